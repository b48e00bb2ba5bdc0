"""Limits against facts: exact for what is counted, with its interval for what is estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from compress.errors import InputError
from compress.gate.config import AccuracyRule, Gate
from compress.gate.facts import REPORTED, Facts, Scored, Timed
from compress.gate.limits import Against, Limit
from compress.wording import plural

Status = Literal["passed", "warned", "failed"]
References = Mapping[Against, Facts | None]


@dataclass(frozen=True)
class Judged:
    """One limit and what became of it.

    Attributes:
        limit: As it was set.
        value: What was found, in the unit of the limit: a growth, drop or ratio where it is one.
        status: "failed" only at level "error".
        against: What it was compared with; None for absolute limits.
        found: The number of the model itself.
        reference: The number of what it was compared with.
        low, high: Ends of the 95 % interval of ``value``; None where it is exact, or a time.
        source: "now", or "report" where nothing was measured now.
        note: What else there is to say.
    """

    limit: Limit
    value: float
    status: Status
    against: Against | None
    found: float
    reference: float | None = None
    low: float | None = None
    high: float | None = None
    source: str = "now"
    note: str = ""


def judge(gate: Gate, model: Facts, original: Facts | None, baseline: Facts | None) -> tuple[Judged, ...]:
    """Every limit of a gate.

    Args:
        gate: The limits.
        model: What is judged.
        original: The model that it was made of, as far as it is known.
        baseline: What was committed, if anything.

    Raises:
        InputError: What a limit is about was not measured, or not on the same data.
    """
    references: References = {"original": original, "baseline": baseline}
    return tuple(
        _judged(limit, gate.accuracy_rule, model, references, against_of(limit, gate.baseline is not None))
        for limit in gate.limits
    )


def against_of(limit: Limit, baseline: bool) -> Against | None:
    """What a limit compares with; None for absolute ones."""
    if not limit.key.relative:
        return None
    return limit.against or ("baseline" if baseline else "original")


def against(limits: Iterable[Limit], what: Against, baseline: bool) -> tuple[Limit, ...]:
    """Those of the limits that compare with the original, or with the baseline."""
    return tuple(limit for limit in limits if against_of(limit, baseline) == what)


def _judged(limit: Limit, rule: AccuracyRule, model: Facts, references: References, compared: Against | None) -> Judged:
    reference = None if compared is None else references[compared]
    if compared == "baseline" and reference is None:
        raise InputError(f"{limit.name} compares with a baseline, and there is none", _BASELINE)
    if limit.key.metric == "accuracy":
        return _accuracy(limit, rule, model, reference, compared)
    if limit.key.metric == "latency":
        return _latency(limit, model, reference, compared)
    return _count(limit, model, reference, compared)


_BASELINE = 'baseline = "FILE.json" in the config, or --baseline FILE.json; --update-baseline writes it'


def _count(limit: Limit, model: Facts, reference: Facts | None, compared: Against | None) -> Judged:
    metric = limit.key.metric
    found = getattr(model, metric)
    if found is None:
        raise InputError(f"{limit.name}: {model.model} does not say its {metric}", "check the bundle itself")
    if compared is None:
        return _decided(limit, found, found > limit.allowed, None, found, source=model.source)
    whole = None if reference is None else getattr(reference, metric)
    if not whole:
        raise _missing(limit, metric, compared, reference)
    # In fractions, so that no rounding decides: 102 bytes are 2 % more than 100
    broken = found > whole * (1 + Fraction(limit.allowed).limit_denominator(10**9))
    return _decided(limit, found / whole - 1, broken, compared, found, whole, source=model.source)


def _accuracy(
    limit: Limit, rule: AccuracyRule, model: Facts, reference: Facts | None, compared: Against | None
) -> Judged:
    found = model.accuracy
    if found is None:
        raise InputError(f"{limit.name}: the accuracy of {model.model} is not known", "add --data to measure it now")
    note = f"{found.correct} of {found.count} right, {found.data}" + _reported(found)
    if compared is None:
        value, low, high, whole = found.accuracy, found.low, found.high, None
        broken, excluded = value < limit.allowed, high < limit.allowed
    else:
        other = None if reference is None else reference.accuracy
        if other is None:
            raise _missing(limit, "accuracy", compared, reference)
        _check_alike(limit, found, other, compared)
        value, low, high = drop(other, found)
        whole = other.accuracy
        note = f"sample by sample; {note}" if _paired(other, found) else note
        broken, excluded = value > limit.allowed + 1e-12, low > limit.allowed
    if broken and not excluded:
        note = f"the 95 % interval includes the limit; {note}"
    fails = broken if rule == "point" else excluded
    judged = _decided(limit, value, fails, compared, found.accuracy, whole, low, high, found.source, note)
    if broken and not fails:
        return replace(judged, status="warned")
    return judged


def drop(before: Scored, after: Scored) -> tuple[float, float, float]:
    """How much lower the second accuracy is, and the 95 % interval of that.

    The interval is a hybrid of the two Wilson intervals. Where it is known of each sample which model is right, it is
    that for pairs (Newcombe, 1998, doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C,
    method 10), else that for independent samples (doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I,
    method 10), which is too wide for two models that mostly err on the same samples.
    """
    value = before.accuracy - after.accuracy
    alike = _correlation(before, after)

    def reach(first: float, second: float) -> float:
        return math.sqrt(max(first * first - 2 * alike * first * second + second * second, 0.0))

    below = reach(before.accuracy - before.low, after.high - after.accuracy)
    above = reach(before.high - before.accuracy, after.accuracy - after.low)
    return value, value - below, value + above


def _paired(before: Scored, after: Scored) -> bool:
    return bool(before.right) and len(before.right) == len(after.right)


def _correlation(before: Scored, after: Scored) -> float:
    """Of being right, over the samples, corrected for continuity as Newcombe has it; 0 where it is not known."""
    if not _paired(before, after):
        return 0.0
    pairs = list(zip(before.right, after.right, strict=True))
    both, first, second, none = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    spread = math.sqrt((both + first) * (second + none) * (both + second) * (first + none))
    product = float(both * none - first * second)
    if product > 0:
        product = max(product - len(pairs) / 2, 0.0)
    return product / spread if spread else 0.0


def _check_alike(limit: Limit, found: Scored, other: Scored, compared: Against) -> None:
    if (found.data, found.count) != (other.data, other.count):
        raise InputError(
            f"{limit.name}: the {compared} was measured on {plural(other.count, 'sample')} of {other.data}, the model "
            f"on {found.count} of {found.data}, which cannot be compared",
            "--against ORIGINAL measures both now" if compared == "original" else "compress check --update-baseline",
        )


def _latency(limit: Limit, model: Facts, reference: Facts | None, compared: Against | None) -> Judged:
    found = model.latency
    if found is None:
        raise InputError(f"{limit.name}: the latency of {model.model} is not known", "check the bundle itself")
    note = f"{found.runtime}, batch {found.batch}, {plural(found.threads, 'thread')}{_reported(found)}"
    if compared is None:
        return _decided(limit, found.p50, found.p50 > limit.allowed, None, found.p50, source=found.source, note=note)
    if compared == "original":
        if found.ratio is None:
            raise _missing(limit, "latency", compared, reference)
        value, whole = found.ratio, found.p50 / found.ratio
    else:
        other = None if reference is None else reference.latency
        if other is None:
            raise _missing(limit, "latency", compared, reference)
        value, whole, more = _over(limit, found, other)
        note = f"{more}; {note}"
    return _decided(limit, value, value > limit.allowed, compared, found.p50, whole, source=found.source, note=note)


def _over(limit: Limit, found: Timed, other: Timed) -> tuple[float, float, str]:
    """Time over that of a baseline, which was another run and maybe another machine; its seconds; what was compared."""
    setting = (found.runtime, found.batch, found.threads)
    if setting != (other.runtime, other.batch, other.threads):
        raise InputError(
            f"{limit.name}: the baseline was timed in {other.runtime}, batch {other.batch}, "
            f"{plural(other.threads, 'thread')}, the model in {found.runtime}, batch {found.batch}, "
            f"{plural(found.threads, 'thread')}",
            "the same --runtime and --threads, or compress check --update-baseline",
        )
    if found.ratio is not None and other.ratio is not None:
        return found.ratio / other.ratio, other.p50, "each over its original, timed in turns"
    return found.p50 / other.p50, other.p50, "seconds of two runs, not timed in turns"


def _missing(limit: Limit, metric: str, compared: Against, reference: Facts | None) -> InputError:
    if compared == "baseline":
        return InputError(
            f"{limit.name}: the baseline says nothing of the {metric}", "compress check --update-baseline"
        )
    hint = "name the original: --against MODEL"
    if reference is not None and reference.arch:
        hint = f"its code is run only where --arch {reference.arch} is typed; --against MODEL if the file has moved"
    data = ", and --data to measure it" if metric == "accuracy" else ""
    return InputError(f"{limit.name} compares with the original, whose {metric} is not known", hint + data)


def _reported(found: Scored | Timed) -> str:
    return " (from the report, not measured now)" if found.source == REPORTED else ""


def _decided(
    limit: Limit,
    value: float,
    broken: bool,
    compared: Against | None,
    found: float,
    reference: float | None = None,
    low: float | None = None,
    high: float | None = None,
    source: str = "now",
    note: str = "",
) -> Judged:
    status: Status = "passed" if not broken else "failed" if limit.level == "error" else "warned"
    return Judged(limit, value, status, compared, found, reference, low, high, source, note)
