"""Pictures of searches and sensitivities: every candidate once, many families as a band."""

from __future__ import annotations

from typing import Any

from compress.report import search, sensitivity, svg


def family(name: str, *accuracies: float | None) -> dict[str, Any]:
    points = [
        {"ratio": ratio, "removed": round(10 * ratio), "accuracy": accuracy, "reason": "" if accuracy else "no kernel"}
        for ratio, accuracy in zip((0.5, 0.1), accuracies, strict=True)
    ]
    return {"name": name, "groups": [name], "units": 10, "points": points}


def curves(*families: dict[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": {"count": 100, "accuracy": 0.9, "low": 0.8, "high": 0.95},
        "ratios": [0.5, 0.1],
        "families": list(families),
        "calibrated": True,
        "method": "taylor",
        "model": "model.pt",
    }


def test_few_families_are_a_line_each_the_most_sensitive_first() -> None:
    figure = sensitivity.figure(curves(family("firm", 0.8, 0.9), family("soft", 0.3, None)))
    assert [series.label for series in figure.series] == ["soft", "firm"]
    soft, firm = figure.series
    assert (list(firm.x), list(firm.y)) == ([0, 10, 50], [90, 90, 80])
    assert (list(soft.x), list(soft.y)) == ([0, 50], [90, 30])
    assert svg(figure).count("soft") == 1


def test_many_families_are_five_lines_and_a_band() -> None:
    figure = sensitivity.figure(curves(*(family(f"f{i}", i / 10, i / 10) for i in range(9))))
    *lines, band = figure.series
    assert [series.label for series in lines] == ["f0", "f1", "f2", "f3", "f4"]
    assert band.label == "the other 4: median and range"
    assert [list(part) for part in (band.x, band.y, band.low, band.high)] == [
        *([0, 10, 50], [90, 65, 65], [90, 50, 50], [90, 80, 80])
    ]


def test_a_page_names_what_failed() -> None:
    page = sensitivity.page(curves(family("soft", 0.3, None)))
    assert "- soft: no kernel" in page and "| soft | 10 | 30.00 | failed |" in page and "and refitted" in page


def trial(number: int, size: float, accuracy: float | None) -> dict[str, Any]:
    sizes = {"units": 5, "macs": int(size), "params": int(size), "bytes": int(size), "size": size}
    reason = "" if accuracy else "no kernel"
    return {"number": number, "method": "taylor", "fractions": [0.5], "accuracy": accuracy, "reason": reason, **sizes}


def found(**more: Any) -> dict[str, Any]:
    return {
        "model": "model.pt",
        "objective": "macs",
        "floor": {"accuracy": 0.8},
        "validation": {"samples": 100, "accuracy": 0.9},
        "whole": {"units": 10, "macs": 200, "params": 200, "bytes": 200, "size": 200.0},
        "families": [{"name": "conv", "groups": ["conv"], "units": 10}],
        "trials": [trial(0, 100, 0.85), trial(1, 50, 0.7), trial(2, 120, 0.8), trial(3, 10, None)],
        "front": [1, 0],
        "best": 0,
        "written": None,
        **more,
    }


def test_every_candidate_is_drawn_where_it_belongs() -> None:
    parts = {series.label: series for series in search.figure(found()).series}
    assert list(parts) == ["none better in both", "floor", "other candidates", "written", "original"]
    assert list(parts["none better in both"].x) == [25, 50] and list(parts["none better in both"].y) == [70, 85]
    assert list(parts["other candidates"].x) == [60] and parts["other candidates"].style == "points"
    assert list(parts["floor"].y) == [80, 80] and list(parts["written"].x) == [50]


def test_nothing_found_is_drawn_and_told_as_well() -> None:
    empty = found(trials=[], front=[], best=None)
    assert [series.label for series in search.figure(empty).series] == ["floor", "original"]
    assert "## What was removed" not in search.page(empty)
    page = search.page(found())
    assert "| written | 0 | taylor | 50.0 % | 50 to 50 % |" in page and "|  | 1 | taylor |" in page
    assert "| conv | 10 | 50.0 % |" in page and "- no kernel" in page and "1 of which failed" in page


def test_objectives_have_their_own_words() -> None:
    assert search.size("macs", 2.16e6) == "2.16 M MACs"
    assert search.size("params", 5e3) == "5.00 k parameters"
    assert search.size("bytes", 2000) == "2.00 kB of weights"
