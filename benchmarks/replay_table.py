"""The part of RESULTS.md that comes from replay.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from formats import Row, table, times

SOURCE = Path(__file__).parent / "results" / "replay.json"


def replay_part() -> Iterator[str]:
    """Yield the paragraphs and tables, or that there is no run."""
    if not SOURCE.exists():
        yield "Not run."
        return
    report = json.loads(SOURCE.read_text(encoding="utf-8"))
    million, on = report["million"], report["machine"]
    yield (
        f"1,000 epochs of one history, one thread unless said, {on['cpu']}, {on['date']}; equal to "
        f"torch's class over {report['equal_lane_epochs']:,} epochs of lanes before. The ratio is "
        "to the first row of each kind of settings: how many times its time an epoch of a lane "
        "takes. Below 1 that row is beaten. *Settings per lane*: patience 0 to 99, thresholds, "
        "cooldown and factor mixed."
    )
    for settings in ("uniform", "per lane"):
        body = [_cells(row) for row in report["rows"] if row["settings"] == settings]
        yield f"### Settings {settings}"
        yield table(["", "lanes", "a call", "lane-epochs a second", "ratio"], body)
    runs = ", ".join(f"{seconds:.2f} s" for seconds in million["seconds"])
    yield (
        f"`sweep` of {million['settings']:,} settings over {million['epochs']:,} epochs on "
        f"{million['threads']} threads, results included: {runs}; {million['more_memory_mib']:.0f} "
        f"MiB of memory more than before it ({million['process_peak_mib']:.0f} MiB in all, most of "
        "it torch)."
    )


def _cells(row: Row) -> list[str]:
    return [
        row["what"],
        f"{row['lanes']:,}",
        f"{row['median_s'] * 1e3:.3g} ms",
        f"{row['lane_epochs_per_s']:.3g}",
        times(row["ratio"]),
    ]
