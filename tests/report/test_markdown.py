from __future__ import annotations

from typing import Any

import pytest

from compress.report import Budget, LayerChange, Method, Pin, build_report, markdown


def test_one_sentence_says_it_all(full: dict[str, Any], least: dict[str, Any]) -> None:
    text = markdown(build_report(**full))
    assert text.splitlines()[0] == "# my model.pth, pruned by `tetris`"
    assert (
        "420 of 1.00 k parameters are left (42.0 %), 400 of them not zero, 1.00 M of 2.00 M MACs (50.0 %); "
        "accuracy is 94.00 % on 100 test samples (before: 95.00 %); it runs 2.00 times as fast."
    ) in text
    assert "420 of 1.00 k parameters are left (42.0 %)." in markdown(build_report(**least)).splitlines()


def test_full_report(full: dict[str, Any]) -> None:
    text = markdown(build_report(**full))
    for line in (
        "| parameters | 1.00 k | 420 | -58.0 % |",
        "| accuracy drop | 0.02 | 0.01 | passed |",
        "| latency | 0.001 | not measured | **failed** |",
        "| `0` | Linear | 8 | 4 |  |",
        "| `2` | Linear | 2 | 2 | output of the model |",
        "| `aten::sort` | `post` | has \\| no rule |",
        "- **Left whole after all:** `1`: error 0.2",
        "2 epochs of training: the weights of epoch 2 were kept. Before it, 87.50 % of the test samples were right.",
        "| all | 100 | 95.0 | 94.0 | 90.0 | 87.5 |",
        "| ONNX Runtime against the model | 3.0e-06 |",
        "- **Warning:** The batch size is fixed.",
        "| 1 | 0.25 | - |",
        "| `0` | 3 |",
        "compress prune 'my model.pth' --ratio 0.5",
        "- architecture: `mlp:4-8-2`",
        "- every setting, defaults included: `recipe.toml`",
        "- data: `digits` (64 calibration, 100 test)",
        "- options: bin = 500",
    ):
        assert line in text.splitlines()
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_least_report_leaves_out_what_is_missing(least: dict[str, Any]) -> None:
    text = markdown(build_report(**least))
    assert "compress prune 'my model.pth' --ratio 0.5" in text
    assert "| bundle, loaded in a new process, against what was written | not run |" in text
    assert not any(
        title in text
        for title in ("Widths", "Limits", "Training", "keeps its size", "accuracy", "None", "ONNX", "recipe")
    )


@pytest.mark.parametrize(
    ("device", "kind", "said"),
    [
        ("cpu", "ratio", "gives the same weights on the same machine, bit for bit"),
        ("cpu", "latency", "does it again"),
        ("cuda:0", "ratio", "does it again"),
    ],
)
def test_the_recipe_that_repeats_it(full: dict[str, Any], device: str, kind: str, said: str) -> None:
    report = build_report(**{**full, "device": device, "method": Method("tetris", budget=Budget(kind, 0.5))})
    line = f"- every setting, defaults included: `recipe.toml`; `compress run 'my small/recipe.toml'` {said}"
    assert line in markdown(report, "my small").splitlines()


def test_long_tables_are_folded(least: dict[str, Any]) -> None:
    layers = tuple(LayerChange(f"layer{index}", "Conv2d", 8, 8 - index % 2) for index in range(20))
    text = markdown(build_report(**least, layers=layers))
    assert "<summary>Widths: 10 of 20 layers narrower</summary>" in text


def test_places_kept_for_one_reason_share_a_row(least: dict[str, Any]) -> None:
    pins = [Pin("output", f"head{index}", "an output keeps its size") for index in range(6)]
    text = markdown(build_report(**least, pins=(*pins, Pin("aten::sort", "post", "no rule"))))
    assert "| `output` | `head0`, `head1`, `head2`, `head3` and 2 more | an output keeps its size |" in text
    assert "| `aten::sort` | `post` | no rule |" in text


def test_notes_of_layers_are_folded_side_by_side(least: dict[str, Any]) -> None:
    notes: dict[str, dict[str, Any]] = {"0": {"kept_weights": 3}, "2": {"error after refit / before": 0.125}}
    lines = markdown(build_report(**{**least, "method": Method("tetris", notes=notes)})).splitlines()
    assert "<summary>Layer by layer: what was decided for 2 weights</summary>" in lines
    assert "| weight | kept weights | error after refit / before |" in lines
    assert "| `0` | 3 | - |" in lines
    assert "| `2` | - | 0.125 |" in lines


def test_what_can_be_pruned_and_what_holds_the_rest(least: dict[str, Any], full: dict[str, Any]) -> None:
    lines = markdown(build_report(**full)).splitlines()
    told = "What can be pruned: 30 of 40 channel indices of layer weights (75.0 %)"
    start = lines.index(f"<summary>{told}</summary>")
    assert lines[start + 4 : start + 6] == ["| 8 | has no rule | `aten::sort` | `post` |", "| 2 | a tie |  |  |"]
    assert "can be pruned" not in markdown(build_report(**least))


def test_what_decides_stands_open_and_first(full: dict[str, Any]) -> None:
    text = markdown(build_report(**full))
    top, _, rest = text.partition("\n## Details\n")
    assert "<details>" not in top and "| parameters |" in top and "**Warning:**" in top and "**failed**" in top
    assert rest.count("<details>") == rest.count("</details>") == 10
    assert not any(line.startswith("#") for line in rest.splitlines())


def test_it_fits_into_a_comment(least: dict[str, Any]) -> None:
    layers = tuple(LayerChange(f"features.block.layer{index}.conv", "convolution 3x3", 8, 4) for index in range(900))
    notes: dict[str, dict[str, Any]] = {each.name: {"error after refit / before": 0.125} for each in layers}
    text = markdown(build_report(**{**least, "layers": layers, "method": Method("reconstruct", notes=notes)}))
    assert "Widths: 900 of 900 layers narrower" in text and "and 820 more: report.json" in text
    assert len(text) < 65_536  # characters that GitHub takes


def test_names_with_signs_of_markdown(least: dict[str, Any]) -> None:
    layers = (LayerChange("a|b<c>`d`", "Linear", 8, 4),)
    lines = markdown(build_report(**{**least, "layers": layers, "warnings": ("<b> | bold",)})).splitlines()
    assert "| `` a\\|b<c>`d` `` | Linear | 8 | 4 |  |" in lines
    assert "- **Warning:** &lt;b> \\| bold" in lines


def test_epochs_tell_the_usual_numbers_first(full: dict[str, Any]) -> None:
    """The epoch in which nothing was trained has no loss, which would come last otherwise."""
    history = ({"epoch": 0, "gates": 5, "validation loss": 2.0}, {"epoch": 1, "loss": 1.0, "validation loss": 1.5})
    text = markdown(build_report(**{**full, "history": history}))
    assert "| epoch | loss | validation loss | gates |" in text
