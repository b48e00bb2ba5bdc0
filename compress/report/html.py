"""report.html: the report as one page that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.report import classes, search, sides, words
from compress.report.network import network
from compress.report.plots import inline, svg
from compress.report.table import argument_rows, summary_rows
from compress.report.training import curves
from compress.wording import plural, signed

if TYPE_CHECKING:
    import jinja2

_CLASSES = 20  # rows of classes that stand open
_PLACES = 8  # in one cell
_DRAWINGS = 48  # pictures of a method; the files of others lie beside the page


@dataclass(frozen=True)
class Table:
    """Texts in rows; the columns in ``right`` are numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()


def html(
    report: Mapping[str, Any], drawings: Mapping[str, str] | None = None, searched: Mapping[str, Any] | None = None
) -> str:
    """report.json as a page.

    Args:
        report: Content of report.json; fields that earlier versions did not write may be missing.
        drawings: Texts of the SVG files that the report names as its figures, by the names it has for them.
        searched: Content of search.json where a search led to the bundle.
    """
    return _templates().get_template("report.html").render(
        title=_title(report),
        sentence=words.sentence(report),
        more=[each for each in (words.budget_sentence(report), words.trained_sentence(report)) if each],
        alerts=_alerts(report),
        pairs=sides.pairs(report),
        summary=Table("What was measured", ("", "before", "after", "change"), summary_rows(report), _set(1, 4)),
        gates=_gates(report),
        search=None if searched is None else _search(searched),
        layers=network(report),
        classes=_classes(report),
        training=_training(report),
        module=_module(report),
        notes=_notes(report),
        **_drawings(report, drawings or {}),
        **_held(report),
        pins=_pins(report),
        checks=Table("Largest relative differences", ("compared", "difference"), words.checks(report), _set(1, 2)),
        command=[shlex.quote(word) for word in report["command"] or ()],
        facts=_facts(report),
        recipe=report["recipe"],
    )  # fmt: skip


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("compress.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"share": sides.share, "units": _units, "percent": classes.percent, "dotted": _dotted}
    made.filters["plural"] = plural
    return made


def _units(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|[kMGT]?B|[kMGT])(?!\w))", "\u00a0", str(text))


def _dotted(name: str) -> Any:
    """A long name breaks after its dots."""
    from markupsafe import Markup, escape

    return escape(name).replace(".", Markup(".<wbr>"))


def _set(start: int, stop: int) -> frozenset[int]:
    return frozenset(range(start, stop))


def _title(report: Mapping[str, Any]) -> str:
    method = report["method"]["name"]
    return f"{words.model_name(report)}, {'fine-tuned' if method == 'finetune' else f'pruned by {method}'}"


def _alerts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = [("Warning", each) for each in report["warnings"]]
    told += [("Limit failed", each["name"]) for each in report["gates"] if not each["passed"]]
    return told + [("Left whole after all", f"{each['name']}: {each['reason']}") for each in report["rolled_back"]]


def _gates(report: Mapping[str, Any]) -> Table | None:
    rows = [
        (each["name"], f"{each['limit']:g}", "not measured" if each["value"] is None else f"{each['value']:g}",
         "passed" if each["passed"] else "failed")
        for each in report["gates"]
    ]  # fmt: skip
    return Table("Limits", ("limit", "allowed", "found", "verdict"), rows, _set(1, 3)) if rows else None


def _search(document: Mapping[str, Any]) -> dict[str, Any]:
    head, rows = search.rows(document)
    drawing = _drawing(svg(search.figure(document)), "pareto", "accuracy and size of every candidate")
    tables = [Table("Candidates that no other one beats in both size and accuracy", head, rows, _set(3, 8))]
    cut = search.cut_rows(document)
    if cut:
        tables.append(Table("What was removed", ("family", "units", "removed"), cut, _set(1, 3)))
    return {"lines": search.sentence(document).splitlines(), "drawing": drawing, "tables": tables}


def _drawing(drawn: str, name: str, title: str) -> Any:
    from markupsafe import Markup

    return Markup(inline(drawn, re.sub(r"[^\w-]", "-", name), title))


def _drawings(report: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    found = [each for each in report.get("figures", ()) if each["file"] in given]
    shown = [_drawing(given[each["file"]], each["file"], each["title"]) for each in found[:_DRAWINGS]]
    left = len(found) - len(shown)
    return {"drawings": shown, "left": f"{plural(left, 'more picture')} beside this page, in files." if left else ""}


def _classes(report: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = classes.class_rows(report)
    if not rows:
        return None
    told = f"{plural(len(rows), 'class', 'classes')}."
    compared = [each for each in rows if each.change is not None]
    if compared:
        worst = min(compared, key=lambda each: each.change or 0.0)
        lost = sum((each.change or 0.0) < 0 for each in compared)
        told = f"{lost} of {plural(len(compared), 'class', 'classes')} lost accuracy"
        told += f", class {worst.name} the most ({signed(worst.change or 0.0, 1)} points)." if lost else "."
    known = [each for row in rows for each in row.accuracy if each is not None]
    low = min(0.9, math.floor(10 * min(known)) / 10)  # where the axis begins
    if len(rows) <= _CLASSES:
        return {"sentence": told, "shown": rows, "rest": [], "summary": "", "low": low}
    ranked = sorted(rows, key=lambda each: each.change or 0.0)
    told += f" Here are the {_CLASSES} that lost most or won least."
    folded = f"All {len(rows)} classes"
    return {"sentence": told, "shown": ranked[:_CLASSES], "rest": rows, "summary": folded, "low": low}


def _training(report: Mapping[str, Any]) -> dict[str, Any] | None:
    history = report["history"]
    if not history:
        return None
    names = words.epoch_columns(report)
    rows = [[words.cell(each.get(name)) for name in names] for each in history]
    return {
        "drawings": [_drawing(svg(each), each.name, each.title) for each in curves(report)],
        "table": Table("Epochs; 0 is the network as it came", names, rows, _set(0, len(names))),
    }


def _module(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the class of the original has to be called for its smaller state dict."""
    found = report.get("module")
    if not found:
        return None
    rows = [(layer or "the model", f"{kind}: {what}") for layer, kind, what in argument_rows(report)]
    told = f"The bundle has the smaller state dict of the original class, {found['file']}. "
    told += "It fits where these layers are made with other arguments." if rows else "No argument changes for it."
    table = Table("Arguments of the class for which it fits", ("layer", "class and arguments"), rows) if rows else None
    return {"sentence": told, "table": table}


def _notes(report: Mapping[str, Any]) -> Table | None:
    notes = report["method"]["notes"]
    names = list(dict.fromkeys(key for note in notes.values() for key in note))
    rows = [(layer, *(words.cell(note.get(name)) for name in names)) for layer, note in notes.items()]
    if not rows:
        return None
    head = ("weight", *(name.replace("_", " ") for name in names))
    return Table("What was decided, weight by weight", head, rows, _set(1, len(head)))


def _held(report: Mapping[str, Any]) -> dict[str, Any]:
    found = report.get("prunable")
    if not found or not found["total"]:
        return {"prunable": "", "held": None}
    part = f"{100 * found['indices'] / found['total']:.1f} %"
    told = f"{found['indices']:,} of {found['total']:,} channel indices of layer weights ({part}) can be pruned."
    rows = [(e["reason"], f"{e['indices']:,}", e["op"], _some(e["places"])) for e in found["held"]]
    head = ("because", "indices", "operation", "in")
    return {"prunable": told, "held": Table("What holds the rest", head, rows, _set(1, 2)) if rows else None}


def _pins(report: Mapping[str, Any]) -> Table | None:
    rows = [(op, reason, _some(places)) for (op, reason), places in words.pins_by_reason(report).items()]
    return Table("What keeps its size", ("operation", "why", "where"), rows) if rows else None


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:_PLACES]) + (f" and {len(places) - _PLACES:,} more" if len(places) > _PLACES else "")


def _facts(report: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    given, data, method = report["input"], report["data"], report["method"]
    yield "input", f"{given['path']} ({given['form']}, {given['bytes']:,} bytes)"
    yield "sha256", given["sha256"]
    yield "architecture", given["architecture"]
    for note in given.get("notes", ()):
        yield "how it was read", note
    yield "method", method["name"] + (f", granularity {method['granularity']}" if method["granularity"] else "")
    if method["options"]:
        yield "options", ", ".join(f"{key} = {value}" for key, value in method["options"].items())
    if data:
        counts = words.data_line(report)
        yield "data", data["spec"] + (f" ({counts})" if counts else "")
    yield "seed", str(report["seed"])
    yield "device", words.device(report)
    yield (
        "versions",
        ", ".join(
            f"{name} {version}"
            for name, version in {report["tool"]["name"]: report["tool"]["version"], **report["libraries"]}.items()
        ),
    )
