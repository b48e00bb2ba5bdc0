"""What a gate found: as rows of a table, as Markdown and as JUnit XML."""

from __future__ import annotations

from typing import Literal
from xml.etree import ElementTree

from compress.gate.judge import Judged
from compress.gate.limits import Key
from compress.gate.request import Checked
from compress.wording import milliseconds, plural, signed

Format = Literal["table", "json", "markdown", "junit"]
HEADER = ("", "limit", "allowed", "found", "compared with", "")


def rows(checked: Checked) -> list[tuple[str, ...]]:
    """Status, name, what was allowed, what was found, what it was compared with, and a note; one row per limit."""
    return [
        (each.status, each.limit.name, allowed(each), found(each), compared(each), each.note) for each in checked.judged
    ]


def allowed(each: Judged) -> str:
    """The limit in words: "at most 5,000,000 B"."""
    word = "at least" if each.limit.key.kind == "least" else "at most"
    return f"{word} {_told(each.limit.key, each.limit.allowed)}"


def found(each: Judged) -> str:
    """What was found, with its interval: "97.50 % (95.3 to 98.7)"."""
    told = _told(each.limit.key, each.value)
    if each.low is None or each.high is None:
        return told
    return f"{told} ({100 * each.low:.1f} to {100 * each.high:.1f})"


def compared(each: Judged) -> str:
    """What a relative limit compares with: "original, 98.6 %"; "" for absolute ones."""
    if each.against is None or each.reference is None:
        return ""
    absolute = Key(each.limit.key.metric, "least" if each.limit.key.metric == "accuracy" else "most", "")
    return f"{each.against}, {_told(absolute, each.reference)}"


_UNITS = {"bytes": " B", "params": " parameters", "macs": " MACs"}


def _told(key: Key, value: float) -> str:
    if key.kind == "growth":
        return f"{signed(100 * value, 2)} %"
    if key.kind == "drop":
        return f"{100 * value:z.2f} points"
    if key.kind == "ratio":
        return f"{value:.3f} of the time"
    if key.metric == "accuracy":
        return f"{100 * value:.2f} %"
    if key.metric == "latency":
        return milliseconds(value)
    return f"{value:,.0f}{_UNITS[key.metric]}"


def sentence(checked: Checked) -> str:
    """The verdict in a line."""
    count, failed = len(checked.judged), checked.failed
    warned = sum(each.status == "warned" for each in checked.judged)
    told = []
    if checked.judged:
        met = f"{count - len(failed)} of {plural(count, 'limit')} met"
        met += f", {warned} with a warning" if warned else ""
        told.append(f"failed: {', '.join(failed)}; {met}" if failed else f"passed: {met}")
    if checked.updated:
        told.append(f"{checked.gate.baseline} is the new baseline")
    return "; ".join(told) + "."


def markdown(checked: Checked) -> str:
    """For a comment or a job summary."""
    from compress.report.markdown import text_table  # here, as `compress check --help` comes through this file too

    signs = {"passed": "passed", "warned": "warning", "failed": "**failed**"}
    told = [(signs[row[0]], f"`{row[1]}`", *row[2:]) for row in rows(checked)]
    title = f"## compress check: {'failed' if checked.failed else 'passed'}"
    parts = [title, f"`{checked.model.model}`, limits of `{checked.gate.source}`: {sentence(checked)}"]
    if told:
        parts.append(text_table(HEADER, told, right=(2, 3)))
    if checked.original:
        parts.append(f"original: `{checked.original}`")
    return "\n\n".join(parts) + "\n"


def junit(checked: Checked) -> str:
    """JUnit XML: one test case for each limit; warnings stand in its output."""
    failures = str(len(checked.failed))
    counts = {"tests": str(len(checked.judged)), "failures": failures, "errors": "0"}
    suites = ElementTree.Element("testsuites", {"name": "compress check", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": checked.model.model, **counts, "skipped": "0"})
    for each in checked.judged:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "compress.check", "name": each.limit.name})
        told = f"found {found(each)}, allowed is {allowed(each)}"
        against = compared(each)
        text = "\n".join(part for part in (told, against and f"compared with the {against}", each.note) if part)
        if each.status == "failed":
            ElementTree.SubElement(case, "failure", {"message": told, "type": "limit"}).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = f"{each.status}: {text}"
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
