"""report.md: the report for people, short enough for a comment on a pull request."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compress.report.table import amount, argument_rows, budget_text, summary_rows

_OPEN_ROWS = 12  # longer tables are folded
_NAMED = 4  # tensors in one cell


def markdown(report: Mapping[str, Any]) -> str:
    """report.json as Markdown: a sentence, before and after, widths, what kept its size, how to repeat it."""
    parts = [
        f"# {_text(_name(report))}, {_done(report['method']['name'])}",
        _sentence(report),
        text_table(("", "before", "after", "change"), summary_rows(report), right=(1, 2, 3)),
        _budget(report),
        *_gates(report),
        *_layers(report),
        *_module(report),
        *_notes(report),
        *_figures(report),
        *_prunable(report),
        *_pinned(report),
        *_checks(report),
        *_training(report),
        *_repeat(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _name(report: Mapping[str, Any]) -> str:
    return str(report["input"]["path"]).replace("\\", "/").rstrip("/").rpartition("/")[2]


def _done(method: str) -> str:
    return "fine-tuned" if method == "finetune" else f"pruned by `{method}`"


def _sentence(report: Mapping[str, Any]) -> str:
    """What is left, at which accuracy, and how fast: "420 of 1.00 k parameters are left (42.0 %), ..."."""
    before, after = report["before"], report["after"]
    left = f"{amount(after['params'])} of {amount(before['params'])} parameters are left" + _share(
        after["params"], before["params"]
    )
    if before["macs"] and after["macs"] is not None:
        left += f", {amount(after['macs'])} of {amount(before['macs'])} MACs" + _share(after["macs"], before["macs"])
    told = [left]
    if before["accuracy"] and after["accuracy"]:
        a, b = (100 * each["accuracy"]["accuracy"] for each in (after, before))
        told.append(f"accuracy is {a:.2f} % on {after['accuracy']['count']:,} test samples (before: {b:.2f} %)")
    if report["speedup"] is not None:
        told.append(f"it runs {report['speedup']:.2f} times as fast")
    return "; ".join(told) + "."


def _share(after: float, before: float) -> str:
    return f" ({100 * after / before:.1f} %)" if before else ""


def _budget(report: Mapping[str, Any]) -> str:
    budget = report["method"]["budget"]
    text = budget_text(budget) if budget else ""
    if not text:
        return ""
    return f"Budget: {text}" + ("; the allowed widths come no nearer." if budget.get("limited") else ".")


def _gates(report: Mapping[str, Any]) -> list[str]:
    if not report["gates"]:
        return []
    rows = [
        (each["name"], f"{each['limit']:g}", "not measured" if each["value"] is None else f"{each['value']:g}",
         "passed" if each["passed"] else "**failed**")
        for each in report["gates"]
    ]  # fmt: skip
    return ["## Limits", text_table(("limit", "allowed", "found", ""), rows, right=(1, 2))]


def _layers(report: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"`{each['name']}`", each["kind"], str(each["before"]), str(each["after"]), each["frozen"] or "")
        for each in report["layers"]
    ]
    if not rows:
        return []
    changed = sum(each["before"] != each["after"] for each in report["layers"])
    table = text_table(("layer", "kind", "before", "after", "kept because"), rows, right=(2, 3))
    return ["## Widths", _folded(f"{changed} of {len(rows)} layers are narrower", table, len(rows))]


def _module(report: Mapping[str, Any]) -> list[str]:
    """How the class of the original has to be called for its smaller state dict."""
    found = report.get("module")
    if not found:
        return []
    told = f"`{found['file']}` is the state dict of the original class, called with other arguments."
    rows = [(f"`{layer}`" if layer else "the model", kind, what) for layer, kind, what in argument_rows(report)]
    table = text_table(("layer", "class", "arguments"), rows)
    return ["## The original class", told, _folded(f"{len(rows)} layers", table, len(rows))]


def _notes(report: Mapping[str, Any]) -> list[str]:
    """What the method and the refit say of each layer; always folded."""
    notes = report["method"]["notes"]
    if not notes:
        return []
    names = list(dict.fromkeys(key for note in notes.values() for key in note))
    rows = [(f"`{layer}`", *(_cell(note.get(name)) for name in names)) for layer, note in notes.items()]
    table = text_table(("weight", *(name.replace("_", " ") for name in names)), rows, right=range(1, len(names) + 1))
    return ["## Layer by layer", _details(f"What was decided for {len(rows)} weights", table)]


def _figures(report: Mapping[str, Any]) -> list[str]:
    lines = [f"- [{_text(each['title'])}]({each['file']})" for each in report.get("figures", ())]
    if not lines:
        return []
    told = "\n".join(lines)
    return ["## Pictures", told if len(lines) <= _OPEN_ROWS else _details(f"{len(lines)} pictures", told)]


def _prunable(report: Mapping[str, Any]) -> list[str]:
    found = report["prunable"]
    if not found or not found["total"]:
        return []
    share = f"{100 * found['indices'] / found['total']:.1f} %"
    told = f"{found['indices']:,} of {found['total']:,} channel indices of layer weights ({share})."
    rows = [
        (f"{each['indices']:,}", each["reason"], each["op"] and f"`{each['op']}`", _some(each["places"]))
        for each in found["held"]
    ]
    table = text_table(("held", "because", "by", "in"), rows, right=(0,))
    parts = ["## What can be pruned", told]
    return parts + ([_folded(f"{len(rows)} reasons hold the rest", table, len(rows))] if rows else [])


def _pinned(report: Mapping[str, Any]) -> list[str]:
    parts = []
    if report["pins"]:
        where: dict[tuple[str, str], list[str]] = {}  # by operation and reason
        for each in report["pins"]:
            where.setdefault((each["op"], each["reason"]), []).append(each["where"])
        rows = [(f"`{op}`", _some(places), reason) for (op, reason), places in where.items()]
        table = text_table(("operation", "where", "why"), rows)
        parts += ["## What keeps its size", _folded(f"{len(rows)} reasons", table, len(rows))]
    if report["rolled_back"]:
        lines = [f"- `{each['name']}`: {_text(each['reason'])}" for each in report["rolled_back"]]
        parts += ["## Left whole after all", "\n".join(lines)]
    return parts


def _some(places: Sequence[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return ", ".join(f"`{place}`" for place in places[:_NAMED]) + more


def _checks(report: Mapping[str, Any]) -> list[str]:
    found = report["verification"]
    rows = [
        (label, "not run" if found[key] is None else f"{found[key]:.1e}")
        for key, label in (
            ("slice", "slice, before any refit, against the masked original, in float64"),
            ("reload", "bundle, loaded in a new process, against what was written"),
            ("onnx", "ONNX Runtime against the model"),
        )
        if key != "onnx" or found[key] is not None  # a bundle is often exported later, or never
    ]
    parts = ["## Checks", text_table(("largest relative difference", ""), rows, right=(1,))]
    if report["warnings"]:
        parts.append("\n".join(f"- **Warning:** {_text(each)}" for each in report["warnings"]))
    return parts


def _training(report: Mapping[str, Any]) -> list[str]:
    history = report["history"]
    if not history:
        return []
    names = list(dict.fromkeys(key for each in history for key in each))
    rows = [[_cell(each.get(name)) for name in names] for each in history]
    table = text_table(names, rows, right=range(len(names)))
    return ["## Training", _folded(f"{len(rows)} epochs", table, len(rows))]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _repeat(report: Mapping[str, Any]) -> list[str]:
    given, data = report["input"], report["data"]
    lines = [
        f"- input: `{given['path']}`, {given['form']}, sha256 `{given['sha256']}`",
        f"- architecture: `{given['architecture']}`",
        f"- seed {report['seed']}, device {report['device']}"
        + (f", threads {report['threads']}" if report["threads"] is not None else ""),
    ]
    if report["method"]["options"]:
        options = ", ".join(f"{key} = {value}" for key, value in report["method"]["options"].items())
        lines.append(f"- options: {_text(options)}")
    if data:
        counts = [f"{data[key]:,} {key}" for key in ("train", "calibration", "test") if data[key] is not None]
        lines.append(f"- data: `{data['spec']}`" + (f" ({', '.join(counts)})" if counts else ""))
    tool = f"{report['tool']['name']} {report['tool']['version']}"
    lines.append("- " + ", ".join([tool, *(f"{name} {version}" for name, version in report["libraries"].items())]))
    command = f"```sh\n{shlex.join(report['command'])}\n```" if report["command"] else ""
    if report["recipe"] is not None:
        lines.append("- every setting, defaults included: `recipe.toml`")
    return ["## How to repeat it", command, "\n".join(lines)]


def _folded(summary: str, table: str, rows: int) -> str:
    return table if rows <= _OPEN_ROWS else _details(summary, table)


def _details(summary: str, table: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{table}\n\n</details>"


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table in Markdown; the columns in ``right`` are aligned to the right."""
    sides = set(right)
    rule = ["---:" if index in sides else ":---" for index in range(len(head))]
    lines = [list(head), rule, *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: str) -> str:
    """On one line, without what would end a table cell or start HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
