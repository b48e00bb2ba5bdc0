"""Figures drawn as SVG or PNG: the same bytes for the same figure, fit for a page that opens offline."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from compress.figures import Figure, HeatMap, Panel, Series

_SIZE = (4.8, 3.0)  # inches, without the legend: at the width of a phone its texts can still be read
_LEGEND_LINE = 0.24  # inches
_FONT = 11.0  # points
_TITLE_WIDTH, _SIDE_WIDTH = 46, 30  # characters in a line of the title, and of the text beside the axis
_PANEL = 2.9  # inches
_NOTHING = "#d9d9d9"
_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#ad1a72", "#787774", "#6940a5")
_LINES = ("-", "--", ":", "-.")  # one after the other, when the colours are used up


def svg(figure: Figure | HeatMap) -> str:
    """The figure as the text of an SVG file."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None}).decode()


def png(figure: Figure | HeatMap) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, "png", metadata={"Software": None})


def _saved(figure: Figure | HeatMap, format: str, **settings: Any) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(
        {
            "svg.hashsalt": figure.name,
            "svg.fonttype": "none",
            "font.size": _FONT,
            "text.parse_math": False,  # a name may hold a dollar sign
        }
    ):
        canvas = Canvas(layout="constrained", dpi=150)
        if isinstance(figure, HeatMap):
            _draw_tables(canvas, figure)
        else:
            _draw_lines(canvas, figure)
        written = io.BytesIO()
        canvas.savefig(written, format=format, **settings)
    return written.getvalue()


def _draw_lines(canvas: Any, figure: Figure) -> None:
    labels = [series.label for series in figure.series if series.label]
    columns = _columns(labels)
    canvas.set_size_inches(_SIZE[0], _SIZE[1] + _LEGEND_LINE * math.ceil(len(labels) / columns))
    axes = canvas.add_subplot()
    drawn = [_draw(axes, series, number) for number, series in enumerate(figure.series)]
    axes.set(xlabel=figure.x, ylabel=textwrap.fill(figure.y, _SIDE_WIDTH))
    axes.set_title(textwrap.fill(figure.title, _TITLE_WIDTH), fontsize=_FONT)
    _scale(axes, figure)
    if figure.top is not None and axes.get_ylim()[1] > figure.top:
        axes.set_ylim(top=figure.top)
        for line in axes.lines:  # a point at the very top stays whole
            line.set_clip_on(False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if labels:
        lines = [line for line, series in zip(drawn, figure.series, strict=True) if series.label]
        # Below the axes, where no line can pass under it
        canvas.legend(lines, labels, loc="outside lower center", ncols=columns, frameon=False)


def _columns(labels: Sequence[str]) -> int:
    """Columns of the legend: as many as fit side by side."""
    return max(1, min(len(labels), 3, 54 // (max(map(len, labels), default=0) + 6)))


def _scale(axes: Any, figure: Figure) -> None:
    """Logarithms, whole numbers where all are whole, and k and M instead of powers of ten at the end of an axis."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    sides = (
        (axes.xaxis, figure.log_x, [x for series in figure.series for x in series.x]),
        (axes.yaxis, figure.log_y, [y for series in figure.series for y in series.y]),
    )
    for axis, logarithmic, values in sides:
        if logarithmic:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
            axis.set_major_formatter(_short)  # the usual one writes powers as mathematics, which is not read here
            few = not values or max(values) < 100 * min(values)
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter(_short if few else NullFormatter())
            continue
        if values and max(values) - min(values) >= 2 and all(float(value).is_integer() for value in values):
            axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))
        if values and max(map(abs, values)) >= 1e4:
            axis.set_major_formatter(EngFormatter())


def _short(value: float, _: int | None = None) -> str:
    from matplotlib.ticker import EngFormatter

    return EngFormatter()(value) if value >= 1e4 else f"{value:g}"


def _draw_tables(canvas: Any, figure: HeatMap) -> None:
    from matplotlib import colormaps

    found = [v for panel in figure.panels for row in panel.values for v in row if not math.isnan(v)] or [0.0]
    low = min(found) if figure.low is None else figure.low
    high = max(found) if figure.high is None else figure.high
    colours = colormaps["viridis"].with_extremes(bad=_NOTHING)
    canvas.set_size_inches(max(_SIZE[0], _PANEL * len(figure.panels) + 1), _SIZE[1] + 1)
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


def _draw(axes: Any, series: Series, number: int) -> Any:
    """What the legend shows of it."""
    colour = _COLOURS[number % len(_COLOURS)]
    dashes = _LINES[number // len(_COLOURS) % len(_LINES)]
    if series.style == "steps":
        return axes.stairs(series.y, series.x, color=colour, linestyle=dashes)
    marker = "o" if series.style == "points" or len(series.x) <= 40 else ""
    line = dashes if series.style == "line" else "none"
    # A point of its own is a ring, which shows where it lies on a line
    ring = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 2} if len(series.x) == 1 else {}
    (drawn,) = axes.plot(
        series.x, series.y, linestyle=line, color=colour, **{"marker": marker, "markersize": 4, **ring}
    )
    if series.low and series.high:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, linewidth=0)
    for x, y, name in zip(series.x, series.y, series.names, strict=False):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=0.9 * _FONT)
    return drawn


def inline(drawn: str, name: str, title: str) -> str:
    """A drawing of :func:`svg` as an element of a page of HTML.

    Its colours are those of the page (``currentColor``, ``--series-1`` to ``--series-6``), its background that of the
    page, and its ids begin with ``name``, so that those of several drawings do not meet.

    Args:
        drawn: Text of an SVG file.
        name: Of letters, digits, "-" and "_".
        title: What who cannot see the picture is told.
    """
    text = drawn[drawn.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("#000000", "currentColor").replace("fill: #ffffff", "fill: none")
    for number, colour in enumerate(_COLOURS, 1):
        text = text.replace(colour, f"var(--series-{number})")
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # hundredths of a point are fine enough
    text = re.sub(r"\n\s*", "\n", text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)
