"""report.md: the report for people, short enough for a comment on a pull request.

What decides stands open: a sentence, before and after, limits, warnings. Everything else is folded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.report import words
from compress.report.classes import class_rows, percent
from compress.report.table import argument_rows, summary_rows
from compress.wording import plural

_NAMED = 4  # tensors in one cell
_ROWS = 80  # of one table: a comment on a pull request may have 65,536 characters
_CODE = re.compile(r"(`+[^`]*`+)")


def markdown(report: Mapping[str, Any], bundle: str | Path | None = None) -> str:
    """report.json as Markdown: a sentence, before and after, widths, what kept its size, how to repeat it.

    Args:
        report: Content of report.json.
        bundle: Where it lies beside its recipe, if that is known.
    """
    parts = [
        f"# {_text(words.model_name(report))}, {_done(report['method']['name'])}",
        words.sentence(report),
        text_table(("", "before", "after", "change"), summary_rows(report), right=(1, 2, 3)),
        words.budget_sentence(report),
        words.trained_sentence(report),
        *_gates(report),
        *_warnings(report),
        "## Details",
        *_layers(report),
        *_module(report),
        *_classes(report),
        *_training(report),
        *_notes(report),
        *_figures(report),
        *_prunable(report),
        *_pinned(report),
        *_checks(report),
        *_repeat(report, bundle),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _done(method: str) -> str:
    return "fine-tuned" if method == "finetune" else f"pruned by `{method}`"


def _gates(report: Mapping[str, Any]) -> list[str]:
    if not report["gates"]:
        return []
    rows = [
        (each["name"], f"{each['limit']:g}", "not measured" if each["value"] is None else f"{each['value']:g}",
         "passed" if each["passed"] else "**failed**")
        for each in report["gates"]
    ]  # fmt: skip
    return ["## Limits", text_table(("limit", "allowed", "found", ""), rows, right=(1, 2))]


def _warnings(report: Mapping[str, Any]) -> list[str]:
    lines = [f"- **Warning:** {_text(each)}" for each in report["warnings"]]
    lines += [f"- **Left whole after all:** {code(e['name'])}: {_text(e['reason'])}" for e in report["rolled_back"]]
    return ["\n".join(lines)] if lines else []


def _layers(report: Mapping[str, Any]) -> list[str]:
    rows = [
        (code(each["name"]), each["kind"], str(each["before"]), str(each["after"]), each["frozen"] or "")
        for each in report["layers"]
    ]
    if not rows:
        return []
    changed = sum(each["before"] != each["after"] for each in report["layers"])
    head = ("layer", "kind", "before", "after", "kept because")
    return [_folded(f"Widths: {changed} of {plural(len(rows), 'layer')} narrower", head, rows, right=(2, 3))]


def _classes(report: Mapping[str, Any]) -> list[str]:
    rows = class_rows(report)
    if not rows:
        return []
    head = ("class", "samples", "accuracy (%) before", "after", "confidence (%) before", "after")
    told = [(each.name, f"{each.count:,}", *map(percent, (*each.accuracy, *each.confidence))) for each in rows]
    summary = f"Accuracy and confidence of {plural(len(rows), 'class', 'classes')}"
    return [_folded(summary, head, told, right=range(1, 6))]


def _module(report: Mapping[str, Any]) -> list[str]:
    """How the class of the original has to be called for its smaller state dict."""
    found = report.get("module")
    if not found:
        return []
    rows = [(code(layer) if layer else "the model", kind, what) for layer, kind, what in argument_rows(report)]
    summary = (
        f"{found['file']}: the state dict of the original class, with other arguments in {plural(len(rows), 'layer')}"
    )
    return [_folded(summary, ("layer", "class", "arguments"), rows)]


def _notes(report: Mapping[str, Any]) -> list[str]:
    """What the method and the refit say of each layer."""
    notes = report["method"]["notes"]
    if not notes:
        return []
    names = list(dict.fromkeys(key for note in notes.values() for key in note))
    rows = [(code(layer), *(words.cell(note.get(name)) for name in names)) for layer, note in notes.items()]
    head = ("weight", *(name.replace("_", " ") for name in names))
    summary = f"Layer by layer: what was decided for {plural(len(rows), 'weight')}"
    return [_folded(summary, head, rows, right=range(1, len(head)))]


def _figures(report: Mapping[str, Any]) -> list[str]:
    lines = [f"- [{_text(each['title'])}]({each['file']})" for each in report.get("figures", ())]
    return [_details(f"Pictures: {len(lines)}", "\n".join(lines))] if lines else []


def _prunable(report: Mapping[str, Any]) -> list[str]:
    found = report["prunable"]
    if not found or not found["total"]:
        return []
    share = f"{100 * found['indices'] / found['total']:.1f} %"
    told = f"What can be pruned: {found['indices']:,} of {found['total']:,} channel indices of layer weights ({share})"
    rows = [
        (f"{each['indices']:,}", each["reason"], each["op"] and code(each["op"]), _some(each["places"]))
        for each in found["held"]
    ]
    if not rows:
        return [f"{told}."]
    return [_folded(told, ("held", "because", "by", "in"), rows, right=(0,))]


def _pinned(report: Mapping[str, Any]) -> list[str]:
    where = words.pins_by_reason(report)
    if not where:
        return []
    rows = [(code(op), _some(places), reason) for (op, reason), places in where.items()]
    told = f"What keeps its size: {plural(len(rows), 'reason')}"
    return [_folded(told, ("operation", "where", "why"), rows)]


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return ", ".join(code(place) for place in places[:_NAMED]) + more


def _checks(report: Mapping[str, Any]) -> list[str]:
    return [_folded("Checks", ("largest relative difference", ""), words.checks(report), right=(1,))]


def _training(report: Mapping[str, Any]) -> list[str]:
    history = report["history"]
    if not history:
        return []
    names = words.epoch_columns(report)
    rows = [[words.cell(each.get(name)) for name in names] for each in history]
    return [_folded(f"Training: {words.epochs(report)}", names, rows, right=range(len(names)))]


def _repeat(report: Mapping[str, Any], bundle: str | Path | None) -> list[str]:
    given, data = report["input"], report["data"]
    lines = [
        f"- input: {code(given['path'])}, {given['form']}, sha256 `{given['sha256']}`",
        f"- architecture: {code(given['architecture'])}",
        f"- seed {report['seed']}, device {words.device(report)}",
    ]
    if report["method"]["options"]:
        options = ", ".join(f"{key} = {value}" for key, value in report["method"]["options"].items())
        lines.append(f"- options: {_text(options)}")
    if data:
        counts = words.data_line(report)
        lines.append(f"- data: {code(data['spec'])}" + (f" ({counts})" if counts else ""))
    tool = f"{report['tool']['name']} {report['tool']['version']}"
    lines.append("- " + ", ".join([tool, *(f"{name} {version}" for name, version in report["libraries"].items())]))
    if report["recipe"] is not None:
        lines.append("- every setting, defaults included: `recipe.toml`" + _again(report, bundle))
    command = f"```sh\n{shlex.join(report['command'])}\n```\n\n" if report["command"] else ""
    return [_details("How to repeat it", command + "\n".join(lines))]


def _again(report: Mapping[str, Any], bundle: str | Path | None) -> str:
    """The command that repeats the run by its recipe, and whether to the bit: clocks and GPUs do not repeat."""
    if bundle is None:
        return ""
    command = f"; {code('compress run ' + shlex.quote(f'{bundle}/recipe.toml'))}"
    budget = report["method"]["budget"]
    timed = budget is not None and budget["kind"] == "latency"
    exact = report["device"] == "cpu" and not timed
    return command + (" gives the same weights on the same machine, bit for bit" if exact else " does it again")


def _folded(summary: str, head: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table behind its summary, cut where it is long."""
    table = text_table(head, rows[:_ROWS], right)
    return _details(summary, table + (f"\n\nand {len(rows) - _ROWS:,} more: report.json" if len(rows) > _ROWS else ""))


def _details(summary: str, content: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table in Markdown; the columns in ``right`` are aligned to the right."""
    sides = set(right)
    rule = ["---:" if index in sides else ":---" for index in range(len(head))]
    lines = [list(head), rule, *([_text(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: str) -> str:
    """A code span, fenced by more backticks than the value has in a row."""
    value = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", value)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{value}{space}{fence}"


def _text(value: str) -> str:
    """On one line, without what would end a table cell or, outside of code, start HTML."""
    parts = _CODE.split(" ".join(str(value).split()).replace("|", "\\|"))
    return "".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))
