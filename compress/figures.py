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
    """

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
