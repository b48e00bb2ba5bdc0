"""Pictures as data: what a method or a command wants drawn. Methods only say it; `report.plots` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["line", "points", "steps"]


@dataclass(frozen=True)
class Series:
    """One set of points of a figure.

    Attributes:
        label: In the legend; "" leaves it out.
        x, y: Coordinates, as many of one as of the other. For "steps" ``x`` has one more: the edges of the bins.
        style: A line with its points, points alone, or the outline of a histogram.
        low, high: Bounds of each ``y`` (an interval), drawn where both are given.
        names: Texts beside the points, or none.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Style = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        wanted = len(self.y) + (self.style == "steps")
        if len(self.x) != wanted:
            raise ValueError(f"{self.label or 'series'}: {len(self.x)} x for {len(self.y)} y, style {self.style}")
        for name, values in (("low", self.low), ("high", self.high), ("names", self.names)):
            if len(values) not in (0, len(self.y)):
                raise ValueError(f"{self.label or 'series'}: {len(values)} {name} for {len(self.y)} y")


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        name: Of its file, without an ending: letters, digits, "-" and "_".
        title: What it shows.
        x, y: What the axes are, with units.
        series: What is drawn.
        log_x, log_y: Logarithmic axes.
        top: The largest ``y`` that there can be, such as 100 %: the axis goes no further.
    """

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    top: float | None = None


@dataclass(frozen=True)
class Panel:
    """One table of numbers as colours.

    Attributes:
        label: Above it.
        values: Row by row, all of one length; not-a-number is drawn in grey: there is nothing.
        rows, columns: Names of the rows and columns, or none.
    """

    label: str
    values: Sequence[Sequence[float]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.values}
        if len(widths) != 1 or 0 in widths:
            raise ValueError(f"{self.label or 'panel'}: rows of {sorted(widths)} values")
        for name, texts, count in (("rows", self.rows, len(self.values)), ("columns", self.columns, min(widths))):
            if len(texts) not in (0, count):
                raise ValueError(f"{self.label or 'panel'}: {len(texts)} {name} for {count}")


@dataclass(frozen=True)
class HeatMap:
    """Tables of numbers side by side, on one scale of colours.

    Attributes:
        name: Of its file, without an ending: letters, digits, "-" and "_".
        title: What it shows.
        panels: From left to right.
        x, y: What columns and rows are; "" for nothing.
        scale: What the colours are, with units.
        low, high: Ends of the scale; None for the smallest and the largest number there is.
        numbers: Whether each number is written into its cell as well.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    x: str = ""
    y: str = ""
    scale: str = ""
    low: float | None = None
    high: float | None = None
    numbers: bool = False
