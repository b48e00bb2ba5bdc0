"""`compress init` and `compress run`: from a template to a bundle, and from a bundle to the same one."""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.measure import latency_pair

finetuning = importlib.import_module("compress.pipeline.finetune")
writing = importlib.import_module("compress.pipeline.writing")
Call = Callable[..., Any]
DENSE = ("dense.pt", "--arch", "mlp:64-32-10", "--data", "digits")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory, invoke: Call) -> Iterator[Call]:
    """Runs commands that must succeed, in a folder with dense.pt; without the second of timing and the new process."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    torch.save(layers.state_dict(), folder / "dense.pt")

    def run(*words: str) -> Any:
        done = invoke(*words)
        assert done.code == 0, done.err
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(writing, "latency_pair", partial(latency_pair, min_seconds=0))
        for module in (writing, finetuning):
            patch.setattr(module, "reloaded", lambda *_: 0.0)
        yield run


def test_from_a_template_to_a_bundle(call: Call, invoke: Call) -> None:
    assert "compress run mine.toml --dry-run" in call("init", "mine.toml").out
    missing = invoke("run", "mine.toml", "--dry-run")
    assert missing.code == 2 and "model.pt does not exist" in missing.err
    again = invoke("init", "mine.toml", "--model", "dense.pt")
    assert again.code == 2 and "mine.toml exists" in again.err
    call("init", "mine.toml", "--model", "dense.pt", "--arch", "mlp:64-32-10", "--force")
    shown = call("run", "mine.toml", "--dry-run", "--set", "prune.budget.value=0.25", "--seed", "3")
    assert "dense.pt by dependency, ratio 0.25" in shown.out and "seed = 3" in shown.out
    assert not Path("compressed").exists()
    document = json.loads(call("run", "mine.toml", "--dry-run", "--json").out)
    assert document["steps"]["write"] == "compressed" and document["recipe"]["seed"] == 0
    call("run", "mine.toml", "--set", "prune.budget.value=0.25", "--seed", "3")
    recipe = tomllib.loads(Path("compressed/recipe.toml").read_text())
    assert (recipe["seed"], recipe["prune"]["budget"]["value"]) == (3, 0.25)
    report = json.loads(Path("compressed/report.json").read_text())
    assert report["after"]["params"] == 64 * 24 + 24 + 24 * 10 + 10
    assert report["command"][:2] == ["compress", "run"]
    assert "`compress run compressed/recipe.toml` gives the same" in Path("compressed/report.md").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("prune", *DENSE, "--ratio", "0.5", "--method", "taylor"),
        ("prune", *DENSE, "--macs", "0.5", "--epochs", "1", "--seed", "5", "--threads", "1"),
        ("retrain", *DENSE, "--keep", "0.4", "--epochs", "2", "--temperature", "2"),
    ],
    ids=["refit", "training", "retrain"],
)
def test_the_recipe_of_a_bundle_gives_the_same_bundle(call: Call, words: tuple[str, ...]) -> None:
    call(*words, "-o", "first")
    call("run", "first/recipe.toml", "-o", "second")
    for name in ("model.safetensors", "recipe.toml", "plan.json"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name
    changed = call("run", "first/recipe.toml", "--seed", "6", "-o", "third", "--quiet")
    assert changed.out == "third\n" and Path("third/recipe.toml").read_bytes() != Path("first/recipe.toml").read_bytes()


def test_the_recipe_of_a_training_gives_the_same_bundle(call: Call) -> None:
    call("prune", *DENSE, "--ratio", "0.5", "-o", "small")
    call("finetune", "small", "--data", "digits", "--epochs", "1", "-o", "first")
    call("run", "first/recipe.toml", "-o", "second")
    assert Path("first/model.safetensors").read_bytes() == Path("second/model.safetensors").read_bytes()
    assert tomllib.loads(Path("second/recipe.toml").read_text())["teacher"]["path"] == "dense.pt"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.toml",), "none.toml cannot be read"),
        (("r.toml", "--set", "prune.metod=x"), "did you mean 'method'"),
        (("r.toml", "--set", "prune.method=taylr"), "no method 'taylr'"),
        (("r.toml", "--set", "prune.options.q=1"), "has no option --q"),
        (("r.toml", "--set", "prune.options.p=fast"), "'fast' is not a number"),
        (("r.toml", "--resume"), "the recipe has none"),
        (("r.toml", "--device", "gpu"), "--device 'gpu' is unknown"),
        (("r.toml", "-o", "other"), "other is not empty and not a bundle"),
    ],
)
def test_a_dry_run_finds_what_is_wrong(call: Call, invoke: Call, words: tuple[str, ...], said: str) -> None:
    call("init", "r.toml", "--model", "dense.pt", "--arch", "mlp:64-32-10", "--force")
    Path("other").mkdir(exist_ok=True)
    Path("other/file").touch()
    done = invoke("run", *words, "--dry-run")
    assert done.code == 2 and said in done.err and done.out == ""
