"""Figures drawn as SVG: the same bytes for the same figure, fit for a page that opens offline."""

from __future__ import annotations

import io
import math
from typing import Any

from compress.figures import Figure, HeatMap, Panel, Series

_SIZE = (6.4, 4.0)  # inches
_PANEL = 2.9  # inches
_NOTHING = "#d9d9d9"
_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#ad1a72", "#787774", "#6940a5")


def svg(figure: Figure | HeatMap) -> str:
    """The figure as the text of an SVG file."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none", "font.size": 10}):
        width = max(_SIZE[0], _PANEL * len(figure.panels) + 1) if isinstance(figure, HeatMap) else _SIZE[0]
        canvas = Canvas(figsize=(width, _SIZE[1]), layout="constrained")
        FigureCanvasSVG(canvas)
        if isinstance(figure, HeatMap):
            _draw_tables(canvas, figure)
        else:
            _draw_axes(canvas.add_subplot(), figure)
        written = io.StringIO()
        canvas.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _draw_axes(axes: Any, figure: Figure) -> None:
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


def _draw_tables(canvas: Any, figure: HeatMap) -> None:
    from matplotlib import colormaps

    found = [v for panel in figure.panels for row in panel.values for v in row if not math.isnan(v)] or [0.0]
    low = min(found) if figure.low is None else figure.low
    high = max(found) if figure.high is None else figure.high
    colours = colormaps["viridis"].with_extremes(bad=_NOTHING)
    every = canvas.subplots(1, len(figure.panels), squeeze=False)[0]
    canvas.suptitle(figure.title)
    for axes, panel in zip(every, figure.panels, strict=True):
        drawn = axes.imshow(panel.values, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect="equal")
        axes.set(title=panel.label, xlabel=figure.x, ylabel=figure.y)
        axes.set_xticks(range(len(panel.columns)), panel.columns)
        axes.set_yticks(range(len(panel.rows)), panel.rows)
        if figure.numbers:
            _write_numbers(axes, panel, (low + high) / 2)
    canvas.colorbar(drawn, ax=list(every), label=figure.scale, shrink=0.8)


def _write_numbers(axes: Any, panel: Panel, middle: float) -> None:
    for y, row in enumerate(panel.values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                colour = "white" if value < middle else "black"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)


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
