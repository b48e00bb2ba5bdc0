"""What a recipe may hold, and what becomes of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from compress.errors import InputError
from compress.recipe import (
    finetune_recipe,
    prune_recipe,
    read_recipe,
    request_of,
    settings_of,
    template,
    to_toml,
    with_settings,
)
from compress.request import BudgetTarget, DataSource, FinetuneRequest, ModelSource, PruneRequest, Settings
from compress.training import Training

LEAST = f'schema = "compress.recipe/1"\n[model]\npath = "{__file__}"\n[prune]\n'


def read(tmp_path: Path, text: str, *changes: str) -> dict[str, Any]:
    file = tmp_path / "r.toml"
    file.write_text(text)
    return read_recipe(file, changes)


def test_what_prune_writes_is_what_it_was_asked() -> None:
    asked = PruneRequest(
        model=ModelSource(Path(__file__), "m.py:build", {"width": 8}, ((3, 8, 8), (4,))),
        output=Path("out"),
        method="tetris",
        options={"bin": "50", "exact": "True", "pmin": "auto"},
        budget=BudgetTarget("macs", 0.1 + 0.2),
        granularity="weight",
        only=("conv*",),
        exclude=("head", 'a "quoted" name'),
        prune_outputs=True,
        prune_inputs=True,
        allow_frozen=True,
        refit="layers",
        data=DataSource("digits", (0.5,), (0.1 + 0.2,)),
        training=Training(epochs=3, lr=0.5, distill="none", clip_norm=0.5),
        settings=Settings(7, "cpu", 2),
        allocation="block",
        ratio_of=(("layer1.*", 0.5), ("conv1", 0.0)),
        round_to=8,
        target="cuda",
        steps=3,
        kept_out=0.1,
    )
    options = {"bin": 50, "exact": True, "pmin": "auto"}
    recipe = prune_recipe(asked, options, {"kind": "macs", "value": 0.1 + 0.2}, 8)
    again = with_settings(tomllib.loads(to_toml(recipe)), [])
    assert request_of(again, Path("out")) == asked
    assert settings_of(again) == Settings(7, "cpu", 2)


def test_what_finetune_writes_is_what_it_was_asked() -> None:
    here = Path(__file__)
    teacher = ModelSource(here, "m.py:build")
    training = Training(lr=0.5, clip_norm=1.0)
    asked = FinetuneRequest(ModelSource(here), DataSource("digits"), Path("out"), training, teacher=teacher)
    recipe = with_settings(tomllib.loads(to_toml(finetune_recipe(asked, (teacher, "ab" * 32)))), [])
    assert request_of(recipe, Path("out")) == asked


def test_amounts_have_units(tmp_path: Path) -> None:
    for budget, value in (
        ('"bytes", value = "5MB"', 5e6),
        ('"latency", value = "8ms"', 8000),
        ('"macs", value = 1', 1),
    ):
        request = request_of(read(tmp_path, f"{LEAST}budget = {{ kind = {budget} }}"), Path("out"))
        assert isinstance(request, PruneRequest) and request.budget is not None and request.budget.value == value


def test_a_bundle_is_no_recipe_but_has_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory") as caught:
        read_recipe(tmp_path)
    assert str(tmp_path / "recipe.toml") in caught.value.hint


def test_values_for_one_run(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        f'{LEAST}budget = {{ kind = "ratio", value = 0.5 }}\nexclude = ["a"]\n',
        *("prune.budget.value=0.3", "prune.method=taylor", 'prune.exclude=["b", "c"]', "seed = 4"),
        'prune.ratio_of."layer1.*"=0.1',
    )
    assert recipe["prune"] == {
        "budget": {"kind": "ratio", "value": 0.3},
        "exclude": ["b", "c"],
        "method": "taylor",
        "ratio_of": {"layer1.*": 0.1},
    }
    assert recipe["seed"] == 4


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("x =", "is not TOML", "compress init"),
        ("[prune]", "does not say its schema", 'schema = "compress.recipe/1"'),
        ('schema = "compress.recipe/9"', "has the schema 'compress.recipe/9'", "update"),
        (LEAST + "metod = 'taylor'", "unknown key prune.metod", "did you mean 'method'"),
        (LEAST + "[finetun]\nepochs = 1", "unknown key finetun", "did you mean 'finetune'"),
        (LEAST + "[finetune]\nepoch = 1", "unknown key finetune.epoch", "did you mean 'epochs'"),
        (LEAST + "[zoo]\nx = 1", "unknown key zoo", "keys are schema, seed"),
        (LEAST + "calibrate = 'yes'", 'prune.calibrate = "yes" is not true or false', ""),
        (LEAST + "steps = 1.5", "prune.steps = 1.5 is not a whole number", ""),
        (LEAST + "steps = true", "prune.steps = true is not a whole number", ""),
        (LEAST + "refit = 'layer'", 'is not auto or norms or layers or joint', "did you mean 'layers'"),
        (LEAST + "only = 'a'", 'prune.only = "a" is not a list, each a text', ""),
        (LEAST + "round_to = 'car'", 'is not a whole number or auto', ""),
        (LEAST + "ratio_of = { a = 'b' }", "is not a table, each a number", ""),
        (LEAST + "budget = 0.5", "prune.budget is not a table", "[prune.budget] with kind, value"),
        (LEAST + "[finetune]\nlr = 'high'", 'finetune.lr = "high" is not a number', ""),
        (LEAST.replace("[model]", "[model]\ninput_shapes = [3, 8]"), "is not a list, each a list", ""),
    ],
)  # fmt: skip
def test_what_is_refused_in_the_file(tmp_path: Path, text: str, said: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value) and "r.toml" in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prune.budget", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("prune.bugdet.value=0.3", "--set: unknown key prune.bugdet"),
        ("prune.steps=many", '--set: prune.steps = "many" is not a whole number'),
        ("prune=3", "--set: prune is not a table"),
    ],
)
def test_what_is_refused_as_a_change(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, LEAST, change)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST.replace("[prune]", ""), "neither [prune] nor [finetune]"),
        (LEAST.replace(__file__, "none.pt"), "none.pt does not exist"),
        (LEAST.replace("path", "arch"), "[model] has no path"),
        ('schema = "compress.recipe/1"\n[prune]\n', "the recipe has no [model]"),
        (LEAST + "[data]\nmean = [0.5]", "[data] has no spec"),
        (LEAST + 'budget = { kind = "macs" }', "prune.budget has no value"),
        (LEAST + 'budget = { kind = "macs", value = "8ms" }', "prune.budget.value = '8ms' is nothing for macs"),
        (LEAST + "options = { a = [1] }", "prune.options.a = [1] is neither"),
        (LEAST + '[teacher]\npath = "x"', "[teacher] belongs to [finetune] alone"),
        (LEAST.replace("[prune]", "[finetune]"), "[finetune] trains on data, and there is none"),
        (LEAST + "[finetune]\n", "--epochs trains on data, and there is none"),
    ],
)
def test_what_makes_no_request(tmp_path: Path, text: str, said: str) -> None:
    recipe = read(tmp_path, text)
    with pytest.raises(InputError) as caught:
        request_of(recipe, Path("out"))
    assert said in str(caught.value)


def test_the_template_is_a_recipe(tmp_path: Path) -> None:
    request = request_of(read(tmp_path, template(__file__, "mlp:64-300-10")), Path("out"))
    assert request == PruneRequest(
        ModelSource(Path(__file__), "mlp:64-300-10"),
        Path("out"),
        budget=BudgetTarget("ratio", 0.5),
        data=DataSource("digits"),
    )


def test_every_line_of_the_template_may_be_used(tmp_path: Path) -> None:
    whole = re.sub(r"^# (\[[a-z.]+\]|[a-z_]+ = .*)", r"\1", template(__file__), flags=re.MULTILINE)
    recipe = read(tmp_path, whole)
    assert recipe["finetune"] == {"epochs": 20, "lr": 0.02, "batch_size": 64} and recipe["prune"]["options"]
    assert isinstance(request_of(recipe, Path("out")), PruneRequest)
