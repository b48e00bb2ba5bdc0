"""Rows of the coverage benchmark as lines of text and as a page."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from coverage_models.measure import Row

STAGES = ("trace", "couple", "slice", "verify")
HEAD = (
    f"{'model':44} {'status':10} {'error':>7} {'prunable':>8} {'groups':>6} {'parameters':>15} {'MACs':>15} "
    + " ".join(f"{stage:>6}" for stage in STAGES)
    + " | the module itself | what holds the rest"
)


def _smaller(before_after: Sequence[int]) -> str:
    before, after = before_after
    return f"{before / 1e6:8.2f}M x{after / before:.2f}" if before else "-"


def _reasons(row: Row, count: int = 3) -> list[str]:
    """What holds the other indices, operations and modules in which it happens, most indices first."""
    by_reason: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], str] = {}
    for reason, op, module, indices in row.held:
        by_reason[reason, op] += indices
        where.setdefault((reason, op), module)
    found = []
    for (reason, op), indices in by_reason.most_common(count):
        place = f" in {where[reason, op]}" if where[reason, op] else ""
        found.append(f"{indices} {reason}{f' ({op}{place})' if op else ''}")
    return found


def line(row: Row) -> str:
    times = " ".join(f"{row.seconds.get(stage, 0):6.2f}" for stage in STAGES)
    share = f"{row.share:8.1%}" if row.exact else f"{'':8}"
    notes = [f"no: {row.in_place}" if row.in_place else "yes" if row.exact else "-"]
    if row.share < 1 and row.exact:
        notes += _reasons(row)
    if row.outputs_too:
        notes.append(f"outputs pruned too: {row.outputs_too[0]:.1%}, error {row.outputs_too[1]:.1e}")
    if row.unruled:
        notes.append(f"no rule: {', '.join(row.unruled)}")
    if row.left_whole:
        notes.append(f"left whole: {', '.join(row.left_whole)}")
    if row.problem:
        notes.append(row.problem)
    return (
        f"{row.name:44} {row.status:10} {row.error:7.1e} {share} {row.groups:6} "
        f"{_smaller(row.parameters):>15} {_smaller(row.macs):>15} {times} | {' | '.join(notes)}"
    )


def totals(rows: Sequence[Row]) -> list[str]:
    """Exactness, shares and seconds by suite, and the models with many indices held."""
    found = []
    for suite, own in _by_suite(rows):
        good = [r for r in own if r.exact]
        whole = sum(r.status == "exact" for r in own)
        share = statistics.median(r.share for r in good) if good else 0.0
        worst = max((r.error for r in good), default=0.0)
        in_place = sum(not r.in_place for r in good)
        seconds = ", ".join(f"{s} {sum(r.seconds.get(s, 0) for r in own):.0f}" for s in STAGES)
        found.append(
            f"{suite}: {whole} of {len(own)} exact, {len(good) - whole} with groups left whole, "
            f"{len(own) - len(good)} not; worst error {worst:.1e}; median share {share:.1%}; "
            f"{in_place} hold the slice in their own module; seconds {seconds}"
        )
    for row in _held(rows):
        found.append(f"under 80 %: {row.name} {row.share:.1%}: {'; '.join(_reasons(row))}")
    return found


def _by_suite(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    for suite in dict.fromkeys(row.suite for row in rows):
        yield suite, [row for row in rows if row.suite == suite]


def _held(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.exact and row.share < 0.8]


_INTRODUCTION = """# Coverage

Does it work on a model at the first try, and is it exact? Every model below was built with random weights and random
normalisation parameters (those of `sample_models/` are trained), cut without a word about its structure, and compared
with the masked original in float64. Networks whose path depends on their data, such as detectors, are cut in place and
compared with their own module, what was removed set to zero.

Written by `python benchmarks/coverage.py --markdown docs/coverage.md`, with {ratios} of every family of units
removed at random, whole heads and groups included; sizes are those after the largest cut. One core; inputs are the
smallest that the model takes.

*Prunable* is the share of channel indices of layer weights that a unit can remove. Left out of the count are kernel
positions, the channels of the network's input, rows of embeddings, and the network's outputs that no layer reads.
*Its own module*: whether the user's own class can hold the slice as it is; the graph always can.
"""


def markdown(rows: Sequence[Row], ratios: Sequence[float]) -> str:
    """The page: totals, one table per suite, and what keeps models under 80 %."""
    cut = " and ".join(f"{ratio:.0%}".replace("%", " %") for ratio in sorted(ratios))
    text = [_INTRODUCTION.format(ratios=cut), *_summary(rows)]
    for suite, own in _by_suite(rows):
        text += [f"\n## {suite}\n", *_table(own)]
    if _held(rows):
        text += ["\n## Under 80 %\n"]
        text += [f"- `{row.name}` {row.share:.0%}: {'; '.join(_reasons(row))}{_more(row)}" for row in _held(rows)]
    failed = [row for row in rows if row.status != "exact"]
    if failed:
        text += ["\n## Not exact, or not whole\n"]
        text += [f"- `{row.name}` {row.status}: {row.problem}{_whole(row)}" for row in failed]
    return "\n".join(text) + "\n"


def _more(row: Row) -> str:
    return f". With its outputs pruned too: {row.outputs_too[0]:.0%}" if row.outputs_too else ""


def _whole(row: Row) -> str:
    return f"; left whole: {', '.join(f'`{name}`' for name in row.left_whole[:5])}" if row.left_whole else ""


def _summary(rows: Sequence[Row]) -> list[str]:
    text = [
        "| suite | models | exact | worst error | median prunable | own module holds it |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for suite, own in _by_suite(rows):
        good = [row for row in own if row.exact]
        worst = max((row.error for row in good), default=0.0)
        share = statistics.median(row.share for row in good) if good else 0.0
        text.append(
            f"| {suite} | {len(own)} | {sum(row.status == 'exact' for row in own)} | {worst:.1e} | {share:.0%} "
            f"| {sum(not row.in_place for row in good)} |"
        )
    return text


def _table(rows: Sequence[Row]) -> list[str]:
    text = [
        "| model | | error | prunable | groups | parameters | MACs | seconds | its own module |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | :--- |",
    ]
    for row in rows:
        if not row.exact:
            text.append(f"| `{row.name}` | {row.status} | | | | | | | |")
            continue
        seconds = sum(row.seconds.get(stage, 0) for stage in STAGES)
        own = _construct(row.in_place) if row.in_place else "yes"
        text.append(
            f"| `{row.name}` | {row.status} | {row.error:.1e} | {row.share:.0%} | {row.groups} "
            f"| {_size(row.parameters)} | {_size(row.macs)} | {seconds:.1f} | {own} |"
        )
    return text


def _construct(problem: str) -> str:
    """The first of the constructs that keep a module from holding the slice."""
    first = problem.partition(" do not follow the slice")[0].partition(", ")[0]
    return first.replace("|", "/")


def _size(before_after: Sequence[int]) -> str:
    before, after = before_after
    scale, unit = (1e6, "M") if before >= 1e6 else (1e3, "k")
    return f"{before / scale:.2f} {unit} → {after / scale:.2f} {unit}"
