"""The report of a run: one frozen value, as JSON (docs/report.schema.json), as Markdown and as rows of a table."""

from __future__ import annotations

from compress.report.markdown import markdown
from compress.report.plots import png, svg
from compress.report.reading import read_report
from compress.report.schema import (
    SCHEMA,
    Budget,
    DataUsed,
    Gate,
    GroupChange,
    Held,
    InputFile,
    LayerChange,
    Measures,
    Method,
    Picture,
    Pin,
    Prunable,
    Report,
    RolledBack,
    Verification,
    build_report,
)
from compress.report.table import budget_text, summary_rows

__all__ = [
    "SCHEMA",
    "Budget",
    "DataUsed",
    "Gate",
    "GroupChange",
    "Held",
    "InputFile",
    "LayerChange",
    "Measures",
    "Method",
    "Picture",
    "Pin",
    "Prunable",
    "Report",
    "RolledBack",
    "Verification",
    "budget_text",
    "build_report",
    "markdown",
    "png",
    "read_report",
    "summary_rows",
    "svg",
]
