"""The page: what stands in it, that it needs nothing else, and that no name can break out of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from compress.evaluate import Accuracy, ClassAccuracy
from compress.figures import Figure, Series
from compress.report import InputFile, LayerChange, Measures, Method, Picture, Pin, build_report, html, svg
from compress.report.training import curves

VOID = {"meta", "link", "rect", "line", "circle", "path", "use", "br"}
HOSTILE = "</style><script>alert(1)</script>\"'&amp;<b>"


class Page(HTMLParser):
    """Elements with their attributes, texts by the elements that they stand in, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text.replace("<wbr>", ""))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [
        [" ".join(re.sub("<.*?>", "", cell).split()) for cell in re.findall("<t[hd].*?</t[hd]>", row)] for row in found
    ]


@pytest.fixture
def drawn() -> dict[str, str]:
    line = Series("weights", [0, 1, 2], [1, 2, 3])
    return {"figures/tetris-0.svg": svg(Figure("tetris-0", "0.weight", "x", "y", (line,)))}


def test_full_page(full: dict[str, Any], drawn: dict[str, str]) -> None:
    text = html(build_report(**full), drawn)
    page, cells = Page(text), rows(text)
    assert page.open == []
    assert page.of("h1") == ["my model.pth, pruned by tetris"]
    assert page.of("h2") == [
        "Before and after", "The network, layer by layer", "The original class", "Class by class", "Training",
        "What the method decided", "What kept its size, and why", "Checks", "How to repeat it",
    ]  # fmt: skip
    assert "it runs 2.00 times as fast." in page.of("p")[0]
    for row in (
        ["parameters", "1.00 k", "420", "-58.0 %"],
        ["accuracy, 100 samples (95 % interval)", "95.00 % (88.8 to 97.9)", "94.00 % (87.5 to 97.2)", "-1.00 points"],
        ["all", "100", "95.0 → 94.0", "", "90.0 → 87.5"],
        ["latency", "0.001", "not measured", "failed"],
        ["aten::sort", "has | no rule", "post"],
        ["has no rule", "8", "aten::sort", "post"],
        ["2", "0.125", "0.1"],
        ["ONNX Runtime against the model", "3.0e-06"],
        ["0", "3"],
        ["0", "Linear: out_features 8 -&gt; 4"],
        ["module.safetensors in the original class, against what was written", "1.0e-07"],
    ):
        assert row in cells
    for told in ("The batch size is fixed.", "1: error 0.2", "latency"):
        assert told in page.of("li")
    assert "median of 50 runs in turns, batch 8, 1 thread, PyTorch" in page.of("div")
    assert {"8 → 4 (50 %)", "2", "4.00 ms", "2.00 ms"} <= set(page.of("span"))
    assert {"compress", "prune", "'my model.pth'", "--ratio", "0.5"} <= set(page.of("span"))
    assert {"0" * 64, "digits (64 calibration, 100 test)", "cpu, 1 thread", "bin = 500"} <= set(page.of("dd"))
    drawings = {attributes["aria-label"] for tag, attributes in page.elements if tag == "svg" and "role" in attributes}
    assert {"0.weight", "Loss"} <= drawings


def test_an_onnx_model_is_compared_with_one_wherever_files_are(full: dict[str, Any]) -> None:
    full["before"] = replace(full["before"], files={"m.onnx": 4000})
    text = html(build_report(**full))
    figure = next(each for each in re.findall("<figure>.*?</figure>", text, re.DOTALL) if "File on disk" in each)
    assert "-37.5" in figure and "2.50" in figure
    assert ["file on disk", "4.00 kB", "2.50 kB", "-37.5 %"] in rows(text)


def test_least_page_leaves_out_what_is_missing(least: dict[str, Any]) -> None:
    page = Page(html(build_report(**least)))
    assert page.of("h2") == ["Before and after", "Checks", "How to repeat it"]
    assert page.of("figcaption")[0] == "Parameters" and len(page.of("figcaption")) == 1
    assert not any("None" in text for _, text in page.texts)


def test_reports_of_before_the_new_fields_render(old: dict[str, Any]) -> None:
    page = Page(html(old))
    assert "Class by class" not in page.of("h2") and "Training" in page.of("h2")
    assert "Accuracy" in page.of("figcaption") and "Confidence" not in page.of("figcaption")


def test_it_needs_nothing_else(full: dict[str, Any], drawn: dict[str, str]) -> None:
    text = html(build_report(**full), drawn)
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "data", "action"):
                assert value is not None and value.startswith(("#", "data:,"))
    assert "@import" not in text and re.findall(r"url\((?!#)", text) == []
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'") and "script" not in policy


def test_ids_of_drawings_do_not_meet(full: dict[str, Any], drawn: dict[str, str]) -> None:
    full["figures"] = (Picture("figures/tetris-0.svg", "0.weight"), Picture("figures/tetris-1.svg", "1.weight"))
    page = Page(html(build_report(**full), {**drawn, "figures/tetris-1.svg": drawn["figures/tetris-0.svg"]}))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    used = [
        value[1:] for _, attributes in page.elements for name, value in attributes.items() if "href" in name and value
    ]
    assert set(used) - {"ata:,"} <= set(ids)


def test_names_stay_texts(least: dict[str, Any]) -> None:
    report = build_report(
        **{
            **least,
            "command": ("compress", "prune", HOSTILE),
            "input": InputFile(HOSTILE, "0" * 64, 1, HOSTILE, HOSTILE, (HOSTILE,)),
            "method": Method(HOSTILE, {HOSTILE: HOSTILE}, notes={HOSTILE: {HOSTILE: HOSTILE}}),
            "layers": tuple(LayerChange(f"{HOSTILE}{n // 2}.{n}", HOSTILE, 8, 4, HOSTILE) for n in range(50)),
            "pins": (Pin(HOSTILE, HOSTILE, HOSTILE),),
            "warnings": (HOSTILE,),
            "history": ({"epoch": 1, HOSTILE: 1.0}, {"epoch": 2, HOSTILE: 2.0}),
            "figures": (Picture("figures/a.svg", HOSTILE),),
        }
    )
    figure = Figure("a", HOSTILE, HOSTILE, HOSTILE, (Series(HOSTILE, [0, 1], [0, 1], names=(HOSTILE, "$x$")),))
    page = Page(html(report, {"figures/a.svg": svg(figure)}))
    assert page.open == []
    assert not {"script", "b"} & {tag for tag, _ in page.elements}
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    assert HOSTILE in page.of("li") and any(HOSTILE in text for text in page.of("code"))


def classified(count: int, before: Callable[[int], int], after: Callable[[int], int]) -> list[Measures]:
    sides = []
    for right in (before, after):
        each = tuple(ClassAccuracy(right(n), 10, 0.5 if right(n) else None) for n in range(count))
        correct = sum(one.correct for one in each)
        sides.append(Measures(100, accuracy=Accuracy(correct, 10 * count, correct / (10 * count), 0, 1, each)))
    return sides


def test_many_classes_show_those_that_lost_most(least: dict[str, Any]) -> None:
    before, after = classified(100, lambda n: 10, lambda n: 3 if n == 7 else 0 if n == 40 else 9 if n == 5 else 10)
    text = html(build_report(**{**least, "before": before, "after": after}))
    assert "3 of 100 classes lost accuracy, class 40 the most (-100.0" in text
    tables = text.partition("All 100 classes")
    shown = [row[0] for row in rows(tables[0]) if len(row) == 5]
    assert shown[1:4] == ["40", "7", "5"] and len(shown) == 21
    assert ["40", "10", "100.0 → 0.0", "", "50.0 → -"] in rows(tables[0])
    assert len([row for row in rows(tables[2]) if len(row) == 5]) == 101


def test_hundreds_of_layers_are_folded_by_block(least: dict[str, Any]) -> None:
    names = ["stem", *(f"stage{n // 100}.block{n % 100}.conv" for n in range(400)), "head"]
    layers = tuple(LayerChange(name, "convolution 3x3", 64, 32 if name != "head" else 64) for name in names)
    text = html(build_report(**least, layers=layers))
    page = Page(text)
    assert [text for text in page.of("summary") if "stage" in text] == [
        f"stage{n}: 100 layers, 6,400 → 3,200 (50 %) outputs" for n in range(4)
    ]
    assert sum(tag == "title" for tag, _ in page.elements) == 1 + 402  # every column says what it is
    assert page.of("code")[0] == "stem" and len(page.of("code")) == 402
    assert len(text) < 250_000


def test_a_picture_for_every_layer_stays_loadable(least: dict[str, Any]) -> None:
    edges = [n / 500 for n in range(501)]
    drawn = svg(Figure("a", "t", "x", "y", (Series("a", edges, [n * n % 97 for n in range(500)], "steps"),)))
    pictures = tuple(Picture(f"figures/{number}.svg", f"layer {number}") for number in range(200))
    text = html(build_report(**least, figures=pictures), {each.file: drawn for each in pictures})
    assert text.count('aria-label="layer ') == 48 and "152 more pictures beside this page, in files." in text
    assert len(text) < 2_000_000


def luminance(colour: str) -> float:
    """Of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_can_be_read_in_light_and_dark(least: dict[str, Any]) -> None:
    text = html(build_report(**least))
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    assert set(light) == set(dark)
    for colours in (light, dark):
        for front, back, least_ratio in (
            *((front, back, 4.5) for front in ("ink", "quiet") for back in ("paper", "panel")),
            ("ink", "warn", 4.5),
            *((f"series-{number}", "paper", 3.0) for number in range(1, 7)),
            ("after", "paper", 3.0),
        ):
            one, other = sorted(luminance(colours[name]) for name in (front, back))
            assert (other + 0.05) / (one + 0.05) >= least_ratio, (front, back)


def test_curves_of_a_training(full: dict[str, Any]) -> None:
    full["history"] = tuple(
        {"epoch": n, "validation loss": 1 / (n + 1), "validation accuracy": n / 4, "nonzero": 40 - n, "gate ITR": 0.5}
        | ({"loss": 0.5 / n, "learning rate": 0.1} if n else {})
        for n in range(4)
    )
    full["best_epoch"] = 3
    losses, accuracy, *others = curves(build_report(**full))
    assert [(each.label, list(each.x)) for each in losses.series] == [
        ("training", [1, 2, 3]), ("validation", [0, 1, 2, 3]), ("kept: epoch 3", [3]),
    ]  # fmt: skip
    assert list(losses.series[2].y) == [0.25]
    assert list(accuracy.series[0].y) == [0, 25, 50, 75]
    assert [each.title for each in others] == ["Parameters that are not zero", "Gate ITR"]
    full["best_epoch"] = 0
    assert "3 epochs of training: none was better than the start" in html(build_report(**full))
