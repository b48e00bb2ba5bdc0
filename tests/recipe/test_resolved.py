from __future__ import annotations

import tomllib
from pathlib import Path

from compress.recipe import finetune_recipe, prune_recipe, to_toml
from compress.request import BudgetTarget, DataSource, FinetuneRequest, ModelSource, PruneRequest, Settings
from compress.training import Training

MODEL = ModelSource(Path(__file__))


def test_the_least_that_is_asked() -> None:
    recipe = prune_recipe(PruneRequest(MODEL, Path("out")), {"p": 2.0}, {"kind": "ratio", "value": 0.3})
    assert recipe == {
        "schema": "compress.recipe/1",
        "seed": 0,
        "model": {"path": __file__},
        "prune": {
            "method": "dependency",
            "granularity": "unit",
            "only": [],
            "exclude": [],
            "prune_outputs": False,
            "prune_inputs": False,
            "allow_frozen": False,
            "keep_module": False,
            "calibrate": True,
            "refit": "auto",
            "round_to": 1,
            "target": "onnxruntime-cpu",
            "allocation": "local",
            "steps": 1,
            "budget": {"kind": "ratio", "value": 0.3},
            "options": {"p": 2.0},
        },
    }


def test_everything_that_can_be_asked() -> None:
    request = PruneRequest(
        model=ModelSource(Path(__file__), "m.py:build", {"width": 8, "heads": [1, 2]}, ((3, 8, 8), (4,))),
        output=Path("out"),
        method="tetris",
        budget=BudgetTarget("macs", 2e9),
        granularity="weight",
        only=("conv*",),
        exclude=("head", 'a "quoted" name'),
        prune_outputs=True,
        prune_inputs=True,
        calibrate=False,
        data=DataSource("digits", (0.5,), (0.25,)),
        settings=Settings(seed=7),
        allocation="block",
        ratio_of=(("layer1.*", 0.5), ("conv1", 0.0)),
        round_to="auto",
        target="cuda",
        steps=3,
    )
    recipe = prune_recipe(request, {"bin": 50, "pmin": "auto", "limit": None}, {"kind": "macs", "value": 2e9}, 8)
    assert recipe["seed"] == 7
    assert recipe["model"] == {
        "path": __file__,
        "arch": "m.py:build",
        "arch_args": {"width": 8, "heads": [1, 2]},
        "input_shapes": [[3, 8, 8], [4]],
    }
    assert recipe["data"] == {"spec": "digits", "mean": [0.5], "std": [0.25]}
    assert recipe["prune"]["options"] == {"bin": 50, "pmin": "auto"}  # TOML has no value for nothing
    assert recipe["prune"]["only"] == ["conv*"]
    assert recipe["prune"]["prune_outputs"] is True
    assert recipe["prune"]["prune_inputs"] is True
    assert recipe["prune"]["calibrate"] is False
    assert (recipe["prune"]["round_to"], recipe["prune"]["target"]) == (8, "cuda")  # resolved
    assert (recipe["prune"]["allocation"], recipe["prune"]["steps"]) == ("block", 3)
    assert recipe["prune"]["ratio_of"] == {"layer1.*": 0.5, "conv1": 0.0}
    assert tomllib.loads(to_toml(recipe)) == recipe


def test_a_method_that_decides_has_no_budget() -> None:
    assert "budget" not in prune_recipe(PruneRequest(MODEL, Path("out"), "tetris"), {"bin": 500}, None)["prune"]


def test_where_the_result_goes_is_not_part_of_it() -> None:
    one, other = (prune_recipe(PruneRequest(MODEL, Path(out)), {}, None) for out in ("a", "b"))
    assert to_toml(one) == to_toml(other)


def test_a_training() -> None:
    request = FinetuneRequest(MODEL, DataSource("digits"), Path("out"), Training(epochs=3, optimizer="adamw"))
    recipe = finetune_recipe(request, (ModelSource(Path(__file__), "m.py:build"), "ab" * 32))
    assert recipe["model"] == {"path": __file__} and recipe["data"] == {"spec": "digits"}
    assert (recipe["finetune"]["epochs"], recipe["finetune"]["lr"]) == (3, 0.001)  # the optimizer's usual rate
    assert recipe["teacher"] == {"path": __file__, "arch": "m.py:build", "sha256": "ab" * 32}
    assert tomllib.loads(to_toml(recipe)) == recipe
    assert "teacher" not in finetune_recipe(request, None)
    pruning = PruneRequest(MODEL, Path("out"), data=DataSource("digits"), training=Training(lr=0.5))
    assert prune_recipe(pruning, {}, None)["finetune"]["lr"] == 0.5
