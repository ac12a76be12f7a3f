"""What ranks send: by formulas, at any size, and beside what was counted on a machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from shown import between, machine_line, report_of, table
from torch_plateau.bench.figures import Row, find, times, us, values

__all__ = ["RANKS_PAGE", "messages", "page_of", "ranks_part", "rows_sent", "sent"]

RANKS_PAGE = Path(__file__).parent.parent / "docs" / "ranks.md"
ALL, LATENCY, SPEED = 1000, 5e-6, 25e9  # ranks; seconds a message; bytes a second of a link
ON_PAPER = (1, 1000, 1_000_000)  # lanes

# -- formulas -------------------------------------------------------------------------------------


def sent(how: str, ranks: int, n: int) -> int:
    """Return the bytes of ``n`` float64 that all ranks send together, in a ring."""
    each = 2 * n if how == "all_reduce" else ranks * -(-n // ranks)
    return (ranks - 1) * 8 * each


def rows_sent(n: int, ranks: int, src: Sequence[int], dst: Sequence[int]) -> int:
    """Return how many rows leave a rank for another."""
    chunk = -(-n // ranks)
    return sum(s // chunk != d // chunk for s, d in zip(src, dst, strict=True))


def messages(ranks: int, how: str) -> int:
    """Return how many messages of an all_reduce follow one another."""
    return 2 * (ranks - 1) if how == "ring" else 2 * math.ceil(math.log2(ranks))


def even_at(ranks: int, how: str) -> float:
    """Return at how many lanes the bytes of an all_reduce take as long as its latencies."""
    a_lane = 16 * (ranks - 1) / ranks / SPEED
    return messages(ranks, how) * LATENCY / a_lane


def packets_of(row: Row) -> float:
    """Return packets by message; a part that gloo sends on is one of 2 a rank, or of n values."""
    return float(row["packets"]) / (2 * (row["ranks"] - 1) * min(row["lanes"], 2 * row["ranks"]))


# -- docs/ranks.md --------------------------------------------------------------------------------


def on_paper() -> str:
    """Return what the formulas say of many ranks."""
    ways, body = ("ring", "tree"), []
    waits = {how: messages(ALL, how) * LATENCY for how in ways}
    for n in ON_PAPER:
        each = sent("all_reduce", ALL, n) / ALL
        bytes_s = each / SPEED
        most = {how: "latency" if waits[how] > bytes_s else "bytes" for how in ways}
        took = [f"{us((waits[how] + bytes_s) * 1e6)}, most of it {most[how]}" for how in ways]
        body.append([f"{n:,}", f"{each:,.0f}", us(bytes_s * 1e6), *took])
    ring, tree = (f"{messages(ALL, how):,} messages, {us(waits[how] * 1e6)}" for how in ways)
    head = ["lanes", "bytes a rank", "their time", f"ring: {ring}", f"tree: {tree}"]
    few, fewer = (f"{even_at(ALL, how):,.0f}" for how in ways)
    return (
        f"{table(head, body)}\n\nLatency and bytes take equally long at {few} lanes in the ring "
        f"and at {fewer} in the tree: fewer lanes cost what the messages cost, however few they "
        "are; more cost by their number."
    )


def spread_on_paper(report: Row) -> str:
    """Return what lanes that are spread over many ranks send, and write."""
    n, some = ON_PAPER[-1], ON_PAPER[-1] // 100
    own = -(-n // ALL)
    save = find(report["rows"], call="save", lanes=n)[0]
    copy = find(report["rows"], call="copy", lanes=n)[0]
    told, a_lane = described(report), save["bytes_of_a_lane"]
    rows_s, told_s = some * a_lane / SPEED, told * (ALL - 1) / SPEED
    gathered = sent("all_gather", ALL, n) / ALL
    return (
        f"Spread over {ALL:,} ranks, {own:,} lanes are on each, and a step sends nothing. `gather` "
        f"of a float64 a lane: {gathered:,.0f} bytes a rank in {ALL - 1:,} messages of a ring, "
        f"{us(gathered / SPEED * 1e6)} beside {us((ALL - 1) * LATENCY * 1e6)} of latency. `copy` "
        f"of 1% of the lanes: {some:,} rows of {a_lane} bytes, {us(rows_s * 1e6)} if one rank "
        f"sends all; but before it each rank tells each other what its state looks like, about "
        f"{told:,.0f} bytes (counted below), so {told * (ALL - 1):,.0f} bytes a rank, "
        f"{us(told_s * 1e6)}; the latency of its {copy['collectives']} collectives, all rings, "
        f"is {us(copy['collectives'] * (ALL - 1) * LATENCY * 1e6)}. `save`: {own * a_lane:,} bytes "
        "of rows a rank."
    )


def described(report: Row) -> float:
    """Return the bytes by which a rank describes its state to one other: a copy of one lane."""
    row = find(report["rows"], call="copy", lanes=1)[-1]
    return float(row["bytes"]) / (row["ranks"] * (row["ranks"] - 1))


def counted(report: Row) -> str:
    """Return the tables of what was counted, beside the formulas."""
    rows = report["rows"]
    agreed, spread = [], []
    for row in find(rows, call="step, mean"):
        same = find(rows, ranks=row["ranks"], lanes=row["lanes"])
        alone, bare = (find(same, call=each)[0] for each in ("step, no group", "all_reduce"))
        star, few = "*" if row["crowded"] else "", row["lanes"] < ON_PAPER[-1]
        keys = ("ranks", "lanes", "collectives", "formula_bytes", "bytes", "packets")
        taken = [f"{us(each['median_us'])}{star}" for each in (alone, bare, row)]
        what = [f"{row[key]:,.0f}" for key in keys]
        agreed.append([*what, f"{packets_of(row):.1f}" if few else "", *taken])
    of = values(find(rows, call="copy"), "ranks")
    for call in ("gather", "copy", "save"):
        for n in ON_PAPER[::2]:
            found = [find(rows, call=call, lanes=n, ranks=ranks)[0] for ranks in of]
            told = [f"{row[key]:,.0f}" for row in found for key in ("formula_bytes", "bytes")]
            disk = f"{found[0]['checkpoint_bytes']:,}" if call == "save" else ""
            spread.append([call, f"{n:,}", str(found[0]["collectives"]), *told, disk])
    steps = table(
        ["ranks", "lanes", "collectives", "by formula", "bytes", "packets", "by message",
         "step, no group", "`all_reduce`", "step, mean"], agreed)  # fmt: skip
    heads = [f"{ranks} ranks, {what}" for ranks in of for what in ("by formula", "bytes")]
    calls = table(["call", "lanes", "collectives", *heads, f"to the disk, {of[0]} ranks"], spread)
    others = ", ".join(map(str, report["other_bytes_a_second"]))
    return (
        f"{steps}\n\nLanes that are spread; the formula knows rows alone, without descriptions:"
        f"\n\n{calls}\n\nBytes a second of others before the ranks began: {others}. "
        f"{machine_line(report['machine'])}"
    )


def page_of(text: str) -> str:
    """Return docs/ranks.md with the numbers of the JSON and of the formulas; as it is without."""
    report = report_of("ranks")
    if report is None:
        return text
    paper = f"{on_paper()}\n\n{spread_on_paper(report)}"
    for name, block in {"paper": paper, "counted": counted(report)}.items():
        marks = f"<!-- ranks_{name}:start -->", f"<!-- ranks_{name}:end -->"
        found = between(text, block, *marks)
        if found is None:
            raise ValueError(f"{RANKS_PAGE.name} lacks {' or '.join(marks)}")
        text = found
    return text


# -- docs/results.md ------------------------------------------------------------------------------


def ranks_part() -> Iterator[str]:
    """Yield what ``ranks.py`` found."""
    report = report_of("ranks")
    if report is None:
        yield "Not run."
        return
    rows, on = report["rows"], report["machine"]
    crowded = sorted({row["ranks"] for row in rows if row["crowded"]})
    yield (
        f"{report['lane_steps_equal']:,} lane steps of ranks that agree were equal to those of one "
        "process before. Times of gloo ranks on one machine, the slowest rank's; in brackets, how "
        "many times the bare `all_reduce` of a float64 a lane they take. With "
        f"{' or '.join(map(str, crowded))} ranks there are more ranks than cores "
        f"({on['cores']}): these wait for each other's turn, too. What they send: "
        f"[what ranks send](ranks.md). {machine_line(on)}"
    )
    for ranks in values(rows, "ranks"):
        of = find(rows, ranks=ranks)
        sizes, body = values(of, "lanes"), []
        bare = {n: find(of, lanes=n, call="all_reduce")[0]["median_us"] for n in sizes}
        for call in values(of, "call"):
            cells = []
            for n in sizes:
                row = find(of, lanes=n, call=call)[0]
                ratio = f" ({times(row['median_us'] / bare[n])})" if row["collectives"] else ""
                cells.append(f"{us(row['median_us'])}{ratio}")
            body.append([call, *cells])
        yield f"### {ranks} ranks{', crowded' if of[0]['crowded'] else ''}"
        yield table(["call", *(f"{n:,} lanes" for n in sizes)], body)
