"""The report of a run: one frozen value, as JSON (docs/report.schema.json), as Markdown and as rows of a table."""

from __future__ import annotations

from compress.report.markdown import markdown
from compress.report.plots import svg
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
    read_report,
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
    "markdown",
    "read_report",
    "summary_rows",
    "svg",
]
