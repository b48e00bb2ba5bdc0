"""Figures as SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from compress.figures import Figure, HeatMap, Panel, Series
from compress.report import svg

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


@pytest.mark.parametrize(
    ("x", "y", "style", "low"),
    [([1, 2], [1], "line", ()), ([1], [1], "steps", ()), ([1], [1], "line", (1, 2))],
)
def test_lengths_have_to_agree(x: list[float], y: list[float], style: str, low: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="for 1 y"):
        Series("s", x, y, style=style, low=low)  # type: ignore[arg-type]


def table(*panels: Panel, numbers: bool = False) -> str:
    return svg(HeatMap("gates", "Gates", panels, "to", "from", "gate", low=0.0, high=1.0, numbers=numbers))


def test_a_heat_map_has_a_table_for_each_panel() -> None:
    one = Panel("first", [[0.25, math.nan], [0.5, 1.0]], ["in", "1"], ["1", "2"])
    drawn = table(one, Panel("second", [[0.0, 1.0]]), numbers=True)
    root = ElementTree.fromstring(drawn)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Gates", "first", "second", "to", "from", "gate", "in", "0.25", "0.50", "1.00"} <= set(texts)
    assert "nan" not in texts and drawn == table(one, Panel("second", [[0.0, 1.0]]), numbers=True)
    assert drawn != table(Panel("first", [[0.75, math.nan], [0.5, 1.0]], ["in", "1"], ["1", "2"]), one, numbers=True)
    assert svg(HeatMap("n", "t", (Panel("", [[math.nan]]),)))  # nothing at all


@pytest.mark.parametrize(
    ("values", "rows", "said"),
    [([], (), "rows of"), ([[]], (), "rows of"), ([[1.0], [1.0, 2.0]], (), "rows of"), ([[1.0]], ("a", "b"), "2 rows")],
)
def test_tables_are_rectangular(values: list[list[float]], rows: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Panel("", values, rows)
