"""Write docs/results.md, and tables of three other pages, from the JSON in benchmarks/results.

::

    python benchmarks/tables.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from page_choose import CHOOSE_PAGE, costs
from page_gpu import gpu_check_part, gpu_part
from page_others import (
    false_alarms_part,
    life_part,
    optimizers_part,
    options_part,
    replay_part,
    versions_part,
)
from page_ranks import RANKS_PAGE, page_of, ranks_part
from page_steps import bandwidth, close, drop_in, everything, lanes
from shown import CLOSE, RESULTS, RIVALS, between, cell, left_out, report_of, table
from torch_plateau.bench.cases import SCENARIOS
from torch_plateau.bench.figures import Row, fastest, find, us
from torch_plateau.bench.rivals import OURS

__all__ = ["RESULTS", "headline", "insert", "results"]

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
RESULTS_PAGE = HERE.parent / "docs" / "results.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"

# -- the README's three rows ----------------------------------------------------------------------


def headline(report: Row) -> str:
    """Return the block between the README's markers."""
    rows, on = report["rows"], report["machine"]
    names = {"float": "drop-in, Python float metric", "0-d f32": "drop-in, 0-d tensor metric"}
    body = []
    for metric, label in names.items():
        one = find(rows, table="drop-in", metric=metric, groups=1, scenario="quiet")
        ours, torchs = fastest(one, rival=OURS), fastest(one, rival="torch")
        body.append([label, us(ours["median_us"]) if ours else "-", cell(torchs), "", ""])
    many = find(rows, table="lanes", lanes=4096, dtypes="f32", settings="uniform", scenario="mixed")
    ours = fastest(many, rival=OURS)
    cells = [cell(fastest(many, rival=rival)) for rival in RIVALS[:3]]
    body.append(["`PlateauLanes`, 4,096 lanes", us(ours["median_us"]) if ours else "-", *cells])
    head = ["one `step`", OURS, "torch's schedulers", "`torch.where`", "`torch.compile`"]
    note = (
        f"Median times, one thread of an {on['cpu']}, torch {on['torch']}; in brackets, how many "
        f"times ours. The lanes are float32, and in each step {SCENARIOS['mixed']}."
    )
    return f"{table(head, body)}\n\n{note}"


def insert(text: str, block: str) -> str | None:
    """Return ``text`` with the block between the markers, None if they are missing."""
    return between(text, block, START, END)


# -- docs/results.md ------------------------------------------------------------------------------


def results(report: Row, gpu: Row | None) -> str:
    """Return the whole page."""
    rows, checks = report["rows"], report["checks"]
    quick = " This was a quick run: too short to quote." if report["quick"] else ""
    parts = [
        "# Results",
        "Written by `python benchmarks/tables.py` from the JSON in `benchmarks/results`, of which "
        "`step.py` wrote what comes first; `benchmarks/README.md` says how to read it." + quick,
        f"Before anything was timed, {checks['lane_steps']:,} lane steps and "
        f"{checks['drop_in_steps']:,} steps of the drop-in were equal to torch's, bit for bit; "
        "then three steps of every case below.",
        table(["", ""], [[key, str(value)] for key, value in report["machine"].items()]),
        f"## Where we lose, or win by less than {CLOSE}x",
        close(rows),
        "## The drop-in",
        drop_in(find(rows, table="drop-in")),
        "## PlateauLanes",
        "Of each rival the fastest variant; all variants are at the end.",
        *lanes(find(rows, table="lanes")),
        "## Bandwidth",
        "What a step reads and writes, over its time, beside a plain copy that reads and writes as "
        "many bytes (the faster of `Tensor.copy_` and `memmove`). *improving*: 1% of the lanes "
        "improve, so nearly every block of `best` is written.",
        bandwidth(find(rows, table="bandwidth")),
        "## Replay",
        *replay_part(),
        "## Optional parts",
        *options_part(),
        "## Making, saving and changing lanes",
        *life_part(),
        "## Optimizers with a rate per lane",
        *optimizers_part(),
        "## Ranks",
        *ranks_part(),
        "## Whether a step became slower",
        *versions_part(),
        "## False alarms of diagnose",
        *false_alarms_part(),
        "## GPU",
        *gpu_part(gpu),
        *gpu_check_part(),
        "## Not run",
        left_out(report),
        "## Every row",
        everything(rows),
    ]
    return "\n\n".join(parts) + "\n"


# -- all of it ------------------------------------------------------------------------------------


def main() -> int:
    """Read the JSON, write the files."""
    report, gpu = report_of("cpu"), report_of("gpu")
    if report is None:
        print("cpu.json is missing: run benchmarks/step.py first", file=sys.stderr)
        return 1
    if gpu is not None and not gpu["gpu_run"]:
        print("gpu.json was not run on a GPU", file=sys.stderr)
        return 1
    texts = {}
    for page, block in ((README, headline(report)), (CHOOSE_PAGE, costs(report))):
        text = insert(page.read_text(encoding="utf-8"), block)
        if text is None:
            print(f"{page.name} lacks {START} or {END}", file=sys.stderr)
            return 1
        texts[page] = text
    RESULTS_PAGE.write_text(results(report, gpu), encoding="utf-8")
    for page, text in texts.items():
        page.write_text(text, encoding="utf-8")
    RANKS_PAGE.write_text(page_of(RANKS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
