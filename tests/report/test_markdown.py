from __future__ import annotations

from typing import Any

from compress.report import LayerChange, build_report, markdown


def test_one_sentence_says_it_all(full: dict[str, Any], least: dict[str, Any]) -> None:
    text = markdown(build_report(**full))
    assert text.splitlines()[0] == "# my model.pth: smaller by `tetris`"
    assert (
        "`tetris` left 420 of 1.00 k parameters (42.0 %), 50.0 % of the MACs, an accuracy of 94.00 % on 100 samples"
        " (before: 95.00 %) and 2.00 times the speed in mlp:4-8-2."
    ) in text
    assert "`dependency` left 420 of 1.00 k parameters (42.0 %) in mlp:4-8-2." in markdown(build_report(**least))


def test_full_report(full: dict[str, Any]) -> None:
    text = markdown(build_report(**full))
    for line in (
        "| parameters | 1.00 k | 420 | 0.42x (-58.0 %) |",
        "| accuracy drop | 0.02 | 0.01 | passed |",
        "| latency | 0.001 | not measured | **failed** |",
        "| `0` | Linear | 8 | 4 |  |",
        "| `2` | Linear | 2 | 2 | output of the model |",
        "| `aten::sort` | `post` | has \\| no rule |",
        "- `1`: error 0.2",
        "| ONNX Runtime against the model | 3.0e-06 |",
        "- **Warning:** The batch size is fixed.",
        "| 1 | 0.25 | - |",
        "compress run recipe.toml",
        "- data: `digits` (64 calibration, 100 test)",
        "- options: bin = 500",
    ):
        assert line in text.splitlines()
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_least_report_leaves_out_what_is_missing(least: dict[str, Any]) -> None:
    text = markdown(build_report(**least))
    assert "compress prune 'my model.pth' --ratio 0.5" in text
    assert "| bundle loaded in a new process | not run |" in text
    assert not any(title in text for title in ("Widths", "Limits", "Training", "keeps its size", "accuracy", "None"))


def test_long_tables_are_folded(least: dict[str, Any]) -> None:
    layers = tuple(LayerChange(f"layer{index}", "Conv2d", 8, 8 - index % 2) for index in range(20))
    text = markdown(build_report(**least, layers=layers))
    assert "<summary>10 of 20 layers are narrower</summary>" in text
