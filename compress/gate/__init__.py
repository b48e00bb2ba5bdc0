"""The gate of a pipeline: limits from a file, what is known of a model, the verdict, and how it is told."""

from compress.gate.config import AccuracyRule, Gate, read_gate
from compress.gate.facts import BASELINE, Facts, Scored, Timed, baseline_text, of_report, read_baseline, scored
from compress.gate.judge import Judged, against, drop, judge
from compress.gate.limits import KEYS, Limit, limit_of
from compress.gate.request import CHECK, Checked, CheckRequest
from compress.gate.texts import Format

__all__ = [
    "BASELINE",
    "CHECK",
    "KEYS",
    "AccuracyRule",
    "CheckRequest",
    "Checked",
    "Facts",
    "Format",
    "Gate",
    "Judged",
    "Limit",
    "Scored",
    "Timed",
    "against",
    "baseline_text",
    "drop",
    "judge",
    "limit_of",
    "of_report",
    "read_baseline",
    "read_gate",
    "scored",
]
