"""Rows as the pages show them: Markdown tables, and the words of all pages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from torch_plateau.bench.figures import Row, times, us

RESULTS = Path(__file__).parent / "results"
RIVALS = ["N torch schedulers", "torch.where", "torch.compile", "optax"]
REFERENCES = ("empty kernel", "plain copy")  # of the GPU: no rivals, but yardsticks
CLOSE = 1.3  # times within which a comparison is called close


def table(head: list[str], body: Iterable[list[str]]) -> str:
    """Return a Markdown table; columns after the first are set to the right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def report_of(script: str) -> Row | None:
    """Return what a script wrote, None where it was not run."""
    source = RESULTS / f"{script}.json"
    if not source.exists():
        return None
    report: Row = json.loads(source.read_text(encoding="utf-8"))
    return report


def left_out(report: Row) -> str:
    """Return what was not run, a line each."""
    return "\n".join(f"- {x['rival']}, {x['what']}: {x['reason']}." for x in report["not_run"])


def between(text: str, block: str, start: str, end: str) -> str | None:
    """Return ``text`` with the block between two markers, None if they are missing."""
    before, found, rest = text.partition(start)
    _, last, after = rest.partition(end)
    return f"{before}{found}\n{block}\n{last}{after}" if last else None


def cell(row: Row | None) -> str:
    """Return time and ratio of a rival."""
    return f"{us(row['median_us'])} ({times(row['ratio'])})" if row else "-"


def told(value: object) -> str:
    """Return a value of the machine's block; some are blocks themselves."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def machine_line(on: Row) -> str:
    """Return in one line what figures belong to."""
    return (
        f"{on['cpu']}, torch {on['torch']}, {on['date']}, commit {str(on['commit'])[:7]}, "
        f"load {on['load_at_start']} when it began."
    )
