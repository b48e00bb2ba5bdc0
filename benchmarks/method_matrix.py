"""Every method at both granularities on every model, through the command line; prints a Markdown matrix.

    python benchmarks/method_matrix.py [--model "resnet20=r20.th --arch cifar_resnet.py:resnet20 --data npz:few.npz"]
                                       [--only MODEL] [--methods magnitude,dead] [--no-samples]

Each cell is ``compress prune`` and, for whole units, ``compress export --onnx``. It is *ok*, with the accuracy, where
both succeed, the slice is exact to 1e-9 and the bundle loads; *refused* where the command ended with one of the exit
codes for what cannot be done, the reasons of which follow the matrix; anything else is *FAILED*, and the exit status
is then 1. A fraction of 0.3 goes; methods of the kind ``retrain`` get one epoch. ``dead`` is given what ``magnitude``
left, with one unit of every group at zero.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import compress
from compress.checkpoint.read import load_model
from compress.cli import main as command
from compress.graph import analyse, attribute, trace
from compress.graph.masks import unit_masks
from compress.registry import Method, methods

SAMPLES = Path(__file__).parent.parent / "sample_models"
ARCHITECTURES = f"{SAMPLES / 'architectures.py'}"
AMOUNT = {"tetris": "--bin 20", "channel": "", "fsa": "--keep 0.7", "dead": "", "adjacency": "--epochs 1"}
AMOUNT |= dict.fromkeys(("annealing", "dsc", "wiring"), "--keep 0.7 --epochs 1")
GRANULARITIES = ("unit", "weight")


@dataclass(frozen=True)
class Model:
    """A model and the options that open it: words of a command line."""

    name: str
    file: str
    options: tuple[str, ...]

    @property
    def data(self) -> tuple[str, ...]:
        """The options that name the data, without the architecture."""
        at = self.options.index("--arch") if "--arch" in self.options else len(self.options)
        return self.options[:at] + self.options[at + 2 :]


@dataclass(frozen=True)
class Cell:
    """How one method did on one model: ok, refused or FAILED, and the accuracy or the reason."""

    status: str
    detail: str

    def __str__(self) -> str:
        return f"ok {self.detail}" if self.status == "ok" else self.status


def samples() -> list[Model]:
    """The models of this repository."""
    found = {
        "digits_mlp.pt": "",
        "digits_resnet.safetensors": f"--arch {ARCHITECTURES}:residual_cnn",
        "digits_mobile.pt": f"--arch {ARCHITECTURES}:mobile_cnn",
        "digits_vit.pt2": "",
    }
    return [
        Model(Path(name).stem, str(SAMPLES / name), (*words.split(), "--data", "digits"))
        for name, words in found.items()
    ]


def given(text: str) -> Model:
    """A model of the command line: NAME=FILE and its options."""
    name, _, words = text.partition("=")
    file, *options = shlex.split(words)
    return Model(name, file, tuple(options))


def cell(method: Method, granularity: str, model: Model, folder: Path, seed: int = 0) -> Cell:
    """One method on one model; what it writes stays in ``folder``."""
    output = folder / f"{model.name}_{method.name}_{granularity}"
    file, options = model.file, model.options
    if method.name == "dead":
        source = folder / f"{model.name}_magnitude_unit"
        if not source.exists():
            return Cell("FAILED", "magnitude left nothing to look at")
        file, options = str(zeroed(source, output.with_suffix(".pt2"))), model.data
    words = ["prune", file, *options, "--method", method.name, "--granularity", granularity, "--seed", str(seed)]
    words += [*AMOUNT.get(method.name, "--ratio 0.3").split(), "-o", str(output), "--force", "--threads", "1"]
    code, said = spoken(words)
    if code in (2, 3):
        return Cell("refused", said)
    if code:
        return Cell("FAILED", f"{shlex.join(words)}: exit code {code}: {said}")
    report = json.loads((output / "report.json").read_text("utf-8"))
    problem = _problem(output, report, onnx=granularity == "unit")
    if problem:
        return Cell("FAILED", f"{shlex.join(words)}: {problem}")
    return Cell("ok", f"{100 * report['after']['accuracy']['accuracy']:.1f} %")


def _problem(output: Path, report: dict, onnx: bool) -> str:
    """What is wrong with a bundle; "" where nothing is."""
    if not report["verification"]["slice"] <= 1e-9:
        return f"the slice is off by {report['verification']['slice']}"
    module = compress.load(output)
    if sum(p.numel() for p in module.parameters()) != report["after"]["params"]:
        return "the bundle does not hold the parameters that its report counts"
    code, said = spoken(["export", str(output), "--onnx"]) if onnx else (0, "")
    return f"export: exit code {code}: {said}" if code else ""


def spoken(words: Sequence[str], out: io.StringIO | None = None) -> tuple[int, str]:
    """Exit code of a command, and its last error; what it prints goes to ``out``."""
    err = io.StringIO()
    with contextlib.redirect_stdout(out or io.StringIO()), contextlib.redirect_stderr(err):
        code = command(list(words))
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error")]
    return code, errors[-1].removeprefix("error: ") if errors else err.getvalue()[-500:]


def zeroed(bundle: Path, file: Path) -> Path:
    """The network of a bundle with all that the first unit of every group holds at zero, as an exported program."""
    loaded = load_model(bundle)
    inputs = (torch.rand(2, *loaded.input_shapes[0]),)
    coupling = analyse(trace(loaded.module, inputs))
    masks = unit_masks(coupling, {group.name: [0] for group in coupling.groups})
    with torch.no_grad():
        for name, mask in masks.items():
            attribute(loaded.module, name).mul_(mask)
    torch.export.save(torch.export.export(loaded.module, inputs, dynamic_shapes=({0: torch.export.Dim.AUTO},)), file)
    return file


def rows(models: Sequence[Model], chosen: Sequence[Method], folder: Path) -> Iterator[tuple[str, str, list[Cell]]]:
    """Method, granularity and a cell for each model; magnitude first, as others go on from what it wrote."""
    for method in sorted(chosen, key=lambda m: m.name != "magnitude"):
        for granularity in GRANULARITIES:
            start = time.perf_counter()
            cells = [cell(method, granularity, model, folder) for model in models]
            print(f"{method.name} {granularity}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
            yield method.name, granularity, cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=given, default=[], help="NAME=FILE and its options")
    parser.add_argument("--no-samples", action="store_true", help="without the models of this repository")
    parser.add_argument("--only", action="append", help="a model's name; repeatable")
    parser.add_argument("--methods", help="with commas between; all if left out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    names = None if options.methods is None else {"magnitude", *options.methods.split(",")}
    chosen = [method for method in methods() if names is None or method.name in names]
    models = [
        m
        for m in [*([] if options.no_samples else samples()), *options.model]
        if not options.only or m.name in options.only
    ]
    notes: dict[str, list[str]] = {"refused": [], "FAILED": []}
    print(f"| method | granularity | {' | '.join(m.name for m in models)} |\n| :--- | :--- |{' :--- |' * len(models)}")
    with tempfile.TemporaryDirectory() as folder:
        for name, granularity, cells in rows(models, chosen, Path(folder)):
            print(f"| {name} | {granularity} | {' | '.join(map(str, cells))} |", flush=True)
            for model, found in zip(models, cells, strict=True):
                if found.status != "ok":
                    notes[found.status].append(f"- {found.status}: {name}, {granularity}, {model.name}: {found.detail}")
    print("\n" + "\n".join(notes["refused"] + notes["FAILED"]))
    return 1 if notes["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
