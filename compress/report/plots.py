"""Figures drawn as SVG or PNG: the same bytes for the same figure, fit for a page that opens offline."""

from __future__ import annotations

import io
from typing import Any

from compress.figures import Figure, Series

_SIZE = (6.4, 4.0)  # inches
_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#ad1a72", "#787774", "#6940a5")


def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None}).decode()


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, "png", metadata={"Software": None})


def _saved(figure: Figure, format: str, **settings: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none", "font.size": 10}):
        canvas = Canvas(figsize=_SIZE, layout="constrained", dpi=150)
        axes = canvas.add_subplot()
        for number, series in enumerate(figure.series):
            _draw(axes, series, _COLOURS[number % len(_COLOURS)])
        axes.set(title=figure.title, xlabel=figure.x, ylabel=figure.y)
        if figure.log_x:
            axes.set_xscale("log")
        if figure.log_y:
            axes.set_yscale("log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if any(series.label for series in figure.series):
            axes.legend(frameon=False)
        written = io.BytesIO()
        canvas.savefig(written, format=format, **settings)
    return written.getvalue()


def _draw(axes: Any, series: Series, colour: str) -> None:
    label = series.label or None
    if series.style == "steps":
        axes.stairs(series.y, series.x, label=label, color=colour)
        return
    line = "-" if series.style == "line" else "none"
    axes.plot(series.x, series.y, linestyle=line, marker="o", markersize=4, label=label, color=colour)
    if series.low and series.high:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)
    for x, y, name in zip(series.x, series.y, series.names, strict=False):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
