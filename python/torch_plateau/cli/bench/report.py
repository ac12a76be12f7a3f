"""What ``torch-plateau bench`` prints."""

from __future__ import annotations

from rich.console import Console

from ...bench.cases import SCENARIOS
from ...bench.figures import Row, fastest, find, times, us, values
from ...bench.rivals import OURS
from ..tables import new_table
from .epochs import SEPARATE

__all__ = ["print_bandwidth", "print_epochs", "print_machine", "print_not_run", "print_steps"]


def print_machine(screen: Console, on: Row) -> None:
    """Say what the figures belong to."""
    where = on.get("gpu") or on["cpu"]
    screen.print(
        f"torch-plateau {on['torch_plateau']}, torch {on['torch']}, {where}, "
        f"{on['threads']} of {on['cores']} cores, load {on['load_at_start']} when it began.",
        markup=False,
    )


def print_steps(screen: Console, rows: list[Row]) -> None:
    """Print a table for each scenario: of each rival the fastest variant."""
    on_gpu = any("host_us" in row for row in rows)
    for scenario in values(rows, "scenario"):
        some = find(rows, scenario=scenario)
        table = new_table(
            f"A step in which {SCENARIOS[scenario]}",
            [
                "lanes",
                "competitor",
                *(["host", "device"] if on_gpu else ["a step"]),
                "times ours",
                "quartiles",
                "ours is",
            ],
            texts=["competitor", "ours is"],
        )
        for n in values(some, "lanes"):
            each = find(some, lanes=n)
            rivals = values(each, "rival")
            for rival in rivals:
                row = fastest(each, rival=rival)
                assert row is not None
                table.add_row(
                    f"{n:,}" if rival == OURS else "",
                    rival,
                    *([us(row["host_us"])] if on_gpu else []),
                    us(row["median_us"]),
                    *(["", "", ""] if rival == OURS else _compared(row)),
                    end_section=rival == rivals[-1],
                )
        screen.print(table)
    screen.print(
        "Medians of rounds in which all take turns; of each rival the fastest variant. A ratio is "
        "of two times of one round.\n"
    )


def print_bandwidth(screen: Console, bandwidth: list[Row], rows: list[Row]) -> None:
    """Print what a copy moves, and how near a step of the scenario "mixed" comes to it."""
    table = new_table(
        f"The bytes of a step in which {SCENARIOS['mixed']}",
        ["lanes", "bytes a lane", "copy", "least time", "ours", "of the bandwidth"],
    )
    for row in find(bandwidth, scenario="mixed"):
        ours = fastest(rows, rival=OURS, lanes=row["lanes"], scenario="mixed")
        assert ours is not None
        table.add_row(
            f"{row['lanes']:,}",
            str(row["bytes_a_lane"]),
            f"{row['gb_per_s']:.3g} GB/s",
            us(row["least_us"]),
            us(ours["median_us"]),
            f"{row['least_us'] / ours['median_us']:.0%}",
        )
    screen.print(table)


def print_epochs(screen: Console, rows: list[Row]) -> None:
    """Print how long epochs take, and the scheduler's share."""
    table = new_table(
        "An epoch of n small networks",
        ["n", "trained", "an epoch", "times", "quartiles", "is", "step", "share"],
        texts=["trained", "is"],
    )
    for row in rows:
        alone = row["way"] == SEPARATE
        table.add_row(
            f"{row['networks']:,}" if alone else "",
            row["way"],
            us(row["median_s"] * 1e6),
            *(["", "", ""] if alone else _compared(row)),
            us(row["scheduler_us"]),
            _percent(row["share"]),
            end_section=row["way"] == values(rows, "way")[-1],
        )
    screen.print(table)
    last = rows[-1]
    separate = find(rows, networks=last["networks"], way=SEPARATE)[0]
    beside = separate["scheduler_us"] * 1e-6 / last["median_s"]
    screen.print(
        "Times: of separate networks over a stack's. Step: of the schedulers. Separate networks "
        "have an AdamW and a scheduler of torch each; a stack has all of them in one set of "
        f"parameters. Of an epoch of {last['networks']:,} separate ones torch's schedulers take "
        f"{_percent(separate['share'])}: what a stack gains on that is the stack's. Beside an "
        f"epoch of the stack they would be {_percent(beside)}; lanes are "
        f"{_percent(last['share'])}.\n"
    )


def print_not_run(screen: Console, left_out: list[Row]) -> None:
    """Say what was left out, and why."""
    for row in left_out:
        screen.print(
            f"Not run: {row['rival']}, {row['what']}: {row['reason']}.",
            markup=False,
            soft_wrap=True,
        )


def _compared(row: Row) -> list[str]:
    """Return a ratio, its quartiles, and in a word what they say."""
    low, high = row["ratio_p25"], row["ratio_p75"]
    word = "faster" if low > 1 else "SLOWER" if high < 1 else "even"
    return [times(row["ratio"]), f"{times(low)[:-1]} .. {times(high)[:-1]}", word]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"
