"""Figures as SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from compress.figures import Figure, HeatMap, Panel, Series
from compress.report import png, svg
from compress.report.plots import inline

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


def texts(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    return [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_names_stand_as_they_are() -> None:
    odd = [Series("_fc", [1, 2], [1, 2]), Series("a$b$c<&", [1, 2], [2, 1])]
    assert {"_fc", "a$b$c<&", "$x$ & <y>"} <= set(texts(svg(Figure("f", "$x$ & <y>", "x", "y", tuple(odd)))))


def test_axes_count_in_whole_numbers_and_in_millions() -> None:
    found = texts(svg(Figure("f", "t", "epoch", "weights", (Series("", [1, 2, 3], [2e6, 1e6, 0]),))))
    assert {"1", "2", "3", "1 M", "2 M"} <= set(found) and "1.5" not in found


def test_powers_of_ten_are_written_as_numbers() -> None:
    for values, expected in (
        ((400, 2500), {"500", "1000", "2000"}),
        ((0.02, 0.5, 40), {"0.1", "1", "10"}),
        ((3e3, 2e6), {"10 k", "100 k", "1 M"}),
    ):
        line = Series("", list(range(len(values))), list(values))
        found = texts(svg(Figure("f", "t", "epoch", "edges", (line,), log_y=True)))
        assert expected <= set(found) and not any("$" in text for text in found)


def test_an_axis_ends_where_there_is_no_more() -> None:
    accuracy = Series("", [1, 2, 3], [20, 100, 100])
    assert "100" in texts(svg(Figure("f", "t", "epoch", "accuracy (%)", (accuracy,), top=100.0)))
    for top, frame in ((100.0, 100.0), (110.0, 104.0), (None, 104.0)):  # the margin is a twentieth of 80
        assert top_of(Figure("f", "t", "epoch", "accuracy (%)", (accuracy,), top=top)) == pytest.approx(frame)


def top_of(figure: Figure) -> float:
    """Where the y axis ends, by the heights of the frame and of two points."""
    groups = {each.get("id"): each for each in ElementTree.fromstring(svg(figure)).iter(f"{SVG}g")}
    frame = [float(word) for word in (groups["patch_2"][0].get("d") or "").split() if word.replace(".", "").isdigit()]
    line = next(each for each in groups["axes_1"] if (each.get("id") or "").startswith("line2d"))
    heights = [float(each.get("y", 0)) for each in line.iter(f"{SVG}use")]
    values = figure.series[0].y
    scale = (max(heights) - min(heights)) / (max(values) - min(values))
    return max(values) + (min(heights) - min(frame[1::2])) / scale


SVG = "{http://www.w3.org/2000/svg}"


def test_legends_lie_below_the_axes() -> None:
    lines = [Series(f"line {number}", [0, 1, 2], [number] * 3) for number in range(8)]
    drawn = ElementTree.fromstring(svg(Figure("f", "t", "x", "y", tuple(lines))))
    groups = {each.get("id"): each for each in drawn.iter("{http://www.w3.org/2000/svg}g")}
    frame = groups["patch_2"][0].get("d")  # of the axes
    assert frame is not None
    bottom = float(frame.split()[2])
    heights = [float(each.get("y", 0)) for each in groups["legend_1"].iter("{http://www.w3.org/2000/svg}text")]
    assert len(heights) == 8 and min(heights) > bottom


def test_a_drawing_inside_a_page_takes_its_colours() -> None:
    figure = Figure("f", "t", "x", "y", (LINE, BARS))
    drawn = inline(svg(figure), "one", 'say "t" & <go>')
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == 'say "t" & <go>' and root.get("role") == "img"
    assert "var(--series-1)" in drawn and "var(--series-2)" in drawn and "currentColor" in drawn
    assert not {"#000000", "#ffffff", "#0b6e99", "<style", "metadata"} & set(
        re.findall(r"#\w{6}|<style|metadata", drawn)
    )
    ids = {each.get("id") for each in root.iter()} - {None}
    assert all(str(each).startswith("one-") for each in ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', drawn)) <= ids
    assert len(drawn) < len(svg(figure))


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
