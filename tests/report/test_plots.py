"""Figures as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from compress.figures import Figure, Series
from compress.report import png, svg

LINE = Series(
    "accuracy", [0.1, 0.3, 0.5], [0.9, 0.8, 0.4], low=[0.8, 0.7, 0.3], high=[1, 0.9, 0.5], names=["a", "b", "c"]
)
BARS = Series("before", [0, 1, 2], [5, 7], style="steps")


def test_texts_stand_in_the_file_as_texts() -> None:
    drawn = svg(Figure("pareto", "Front", "MACs", "accuracy in %", (LINE, BARS)))
    root = ElementTree.fromstring(drawn)
    texts = {each.text for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Front", "MACs", "accuracy in %", "accuracy", "before", "a", "b", "c"} <= texts


def test_the_same_figure_gives_the_same_bytes() -> None:
    figure = Figure("f", "t", "x", "y", (LINE,), log_x=True, log_y=True)
    assert svg(figure) == svg(figure)
    assert png(figure) == png(figure) and png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("x", "y", "style", "low"),
    [([1, 2], [1], "line", ()), ([1], [1], "steps", ()), ([1], [1], "line", (1, 2))],
)
def test_lengths_have_to_agree(x: list[float], y: list[float], style: str, low: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="for 1 y"):
        Series("s", x, y, style=style, low=low)  # type: ignore[arg-type]
