"""Every way to prune while training on every model, through the command line; prints a Markdown table.

    python benchmarks/retrain_matrix.py [--model "resnet20=r20.th --arch cifar_resnet.py:resnet20 --data npz:few.npz"]
                                        [--only MODEL] [--modes dsc,standout] [--no-samples] [--epochs 2]

Each row is ``compress retrain`` and ``compress export --onnx``: the accuracy, parameters and multiply-accumulates of
the result; by how much, relative to the largest output, the slice differs from the trained network (in float64,
before layers are refitted), the bundle in a new process from what was written, and the ONNX file in ONNX Runtime from
the bundle; and the seconds of both commands. Where nothing could be done, the reason stands there instead. The exit
status is 1 where something fails: a traceback, a slice that differs by more than 1e-9, a file that differs by more
than 1e-5.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from method_matrix import Model, given, samples, spoken

ROWS = (
    "annealing",
    "annealing --unit-method dependency",
    "dsc",
    "dsc --conv",
    "standout",
    "standout --conv --beta 3",
    "diffsparse",
    "diffsparse --on units",
    "diffsparse --on blocks",
    "slim",
    "proximal",
    "proximal --on filters",
    "wiring",
    "wiring --by dnw",
    "adjacency",
)
_SLICE, _FILE = 1e-9, 1e-5


@dataclass(frozen=True)
class Row:
    """What became of one mode on one model.

    Attributes:
        cells: Of the table.
        refused: Why nothing could be done; "" where it was.
        failed: What is wrong; "" where nothing is.
    """

    cells: tuple[str, ...] = ()
    refused: str = ""
    failed: str = ""

    def __str__(self) -> str:
        if self.failed or self.refused:
            return f"{'FAILED' if self.failed else 'refused'}: {self.failed or self.refused} | | | | | | "
        return " | ".join(self.cells)


def row(words: str, model: Model, epochs: int, folder: Path) -> Row:
    """One mode with its options on one model.

    Args:
        words: The mode and its options.
        model: The model.
        epochs: Of the training.
        folder: For what is written.
    """
    mode, *options = words.split()
    output = folder / "result"
    command = ["retrain", model.file, *model.options, "--mode", mode, *options, "--epochs", str(epochs), "--threads"]
    command += ["1", "--output", str(output), "--force"]
    start = time.perf_counter()
    code, said = spoken(command)
    if code in (2, 3):
        return Row(refused=said)
    if code:
        return Row(failed=f"{shlex.join(command)}: exit code {code}: {said}")
    report = json.loads((output / "report.json").read_text("utf-8"))
    told = io.StringIO()
    code, said = spoken(["export", str(output), "--onnx", "--json"], told)
    if code:
        return Row(failed=f"export: exit code {code}: {said}")
    seconds = time.perf_counter() - start
    (file,) = json.loads(told.getvalue())["artifacts"]
    checks = report["verification"]
    errors = {"slice": checks["slice"], "bundle": checks["reload"], "ONNX": file["error"]}
    worse = [name for name, error in errors.items() if not error <= (_SLICE if name == "slice" else _FILE)]
    after = report["after"]
    cells = (
        f"{100 * after['accuracy']['accuracy']:.1f} %",
        f"{after['params'] / 1e3:.1f} k ({100 * after['params'] / report['before']['params']:.0f} %)",
        f"{after['macs'] / 1e3:,.0f} k ({100 * after['macs'] / report['before']['macs']:.0f} %)",
        *(f"{error:.0e}" for error in errors.values()),
        f"{seconds:.0f}",
    )
    return Row(cells, failed=f"{shlex.join(command)}: off by {errors}" if worse else "")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", type=given, default=[], help="NAME=FILE and its options")
    parser.add_argument("--no-samples", action="store_true", help="without the models of this repository")
    parser.add_argument("--only", action="append", help="a model's name; repeatable")
    parser.add_argument("--modes", help="with commas between; all if left out")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args(words)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    modes = None if options.modes is None else options.modes.split(",")
    models = [*([] if options.no_samples else samples()), *options.model]
    failed = False
    print("| model | mode | accuracy | parameters | MACs | slice | bundle | ONNX | s |")
    print("| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model in models:
        for each in ROWS:
            if (options.only and model.name not in options.only) or (modes and each.split()[0] not in modes):
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = row(each, model, options.epochs, Path(folder))
            print(f"| {model.name} | {each} | {found} |", flush=True)
            failed = failed or bool(found.failed)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
