"""The report of a run: one frozen value, as JSON (docs/report.schema.json), HTML, Markdown, rows."""

from __future__ import annotations

from compress.report.html import html
from compress.report.markdown import markdown
from compress.report.plots import png, svg
from compress.report.reading import read_report
from compress.report.schema import (
    SCHEMA,
    Argument,
    Budget,
    DataUsed,
    Gate,
    GroupChange,
    Held,
    InputFile,
    LayerChange,
    Measures,
    Method,
    ModuleFile,
    Picture,
    Pin,
    Prunable,
    Report,
    RolledBack,
    Verification,
    build_report,
)
from compress.report.table import argument_rows, budget_text, summary_rows

__all__ = [
    "SCHEMA",
    "Argument",
    "Budget",
    "DataUsed",
    "Gate",
    "GroupChange",
    "Held",
    "InputFile",
    "LayerChange",
    "Measures",
    "Method",
    "ModuleFile",
    "Picture",
    "Pin",
    "Prunable",
    "Report",
    "RolledBack",
    "Verification",
    "argument_rows",
    "budget_text",
    "build_report",
    "html",
    "markdown",
    "png",
    "read_report",
    "summary_rows",
    "svg",
]
