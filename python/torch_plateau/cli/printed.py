"""What the commands print."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..histories.diagnose import Finding
from ..histories.files import History
from ..histories.replay import Replay
from ..histories.sweep import Sweep
from .tables import new_table, number

if TYPE_CHECKING:
    from rich.console import Console

BEST = 10  # settings of a sweep that are printed


def _print_table(console: Console, title: str, columns: Mapping[str, list[Any]]) -> None:
    table = new_table(title, [name.replace("_", " ") for name in columns], roomy=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(number, row))
    console.print(table)


def print_summary(console: Console, result: Replay) -> None:
    """Print what came of each combination of settings."""
    columns = {name: each for name, each in result.table().items() if name != "lane"}
    columns["first_cut"] = [first or "never" for first in columns["first_cut"]]
    _print_table(console, "In short", columns)


def print_agreement(console: Console, result: Sweep, within: int) -> None:
    """Name the settings under which all runs are cut alike, the least wasteful first."""
    runs = len(result.names)
    if runs < 2:
        console.print(
            "One run: give several, as files or by --by, to see which settings treat all alike."
        )
        return
    alike = result.agreeing(within).flatten()
    total = int(alike.sum())
    console.print(
        f"{total:,} of {alike.numel():,} settings cut all {runs} runs equally often, "
        f"at least once, and first within {within} epochs of each other."
    )
    if not total:
        console.print("No setting suits all of them: try --smoothing, or a larger --within.")
        return
    first = result.first_cut.flatten(1)
    wasted = result.wasted.double().flatten(1).mean(0)
    spread = first.amax(0) - first.amin(0)
    places = alike.nonzero().flatten().tolist()
    places.sort(key=lambda i: (int(spread[i]), float(wasted[i])))
    columns: dict[str, list[Any]] = {name: [] for name in result.axes}
    for place in places[:BEST]:
        for name, value in result.setting_at(place).items():
            columns[name].append(value)
    best = places[:BEST]
    columns["cuts"] = result.num_reductions.flatten(1)[0, best].tolist()
    columns["first cut"] = [span(first[:, i].tolist()) for i in best]
    columns["wasted"] = [f"{float(wasted[i]):.1f}" for i in best]
    more = f" (the first {BEST} of {total:,})" if total > BEST else ""
    _print_table(console, f"Settings that agree across runs{more}", columns)


def span(values: list[int]) -> str:
    """Show the range of values."""
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def print_findings(console: Console, found: Mapping[str, list[Finding]]) -> None:
    """Print the findings about each run."""
    from rich.padding import Padding
    from rich.text import Text as Words

    styles = {"problem": "bold red", "question": "yellow", "good": "green"}
    for name, findings in found.items():
        console.print(Words(name, style="bold"))
        if not findings:
            console.print("  nothing found")
        for each in findings:
            line = Words().append(f"{each.level} ", style=styles[each.level])
            line.append(f"({each.code}): {each.text}")
            console.print(Padding(line, (0, 0, 0, 2)))


def as_json(runs: Mapping[str, History], found: Mapping[str, list[Finding]]) -> dict[str, Any]:
    """Return the findings about each run as JSON has them."""
    return {
        "runs": [
            {
                "name": name,
                "epochs": len(runs[name].metric),
                "findings": [dataclasses.asdict(each) for each in findings],
            }
            for name, findings in found.items()
        ]
    }
