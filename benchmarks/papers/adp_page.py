"""What the pages on ADP have in common: the command line, the samples, and how large a run was."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from compress.data import Split, load_data

PAPER = (60_000, 10_000, 1200)  # training and test samples, width of both hidden layers


@dataclass(frozen=True)
class Samples:
    """Flat inputs, in order, and the number of classes."""

    train: Split
    test: Split
    classes: int

    @property
    def inputs(self) -> int:
        """Values of a sample."""
        return self.train.inputs.shape[1]


def parser(text: str | None, epochs: int = 25) -> argparse.ArgumentParser:
    """The arguments that all pages take; defaults are the sizes of the paper."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="as for compress: npz:PATH, digits, ...")
    made.add_argument("--epochs", type=int, default=epochs)
    made.add_argument("--samples", type=int, default=PAPER[0], help="training samples, the first so many")
    made.add_argument("--test", type=int, default=PAPER[1], help="test samples, the first so many")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--width", type=int, default=PAPER[2], help="of both hidden layers")
    made.add_argument("--batch-size", type=int, default=100)
    made.add_argument("--lr", type=float, default=0.1, help="of the way that is right")
    made.add_argument("--legacy-batch-size", type=int, default=100)
    made.add_argument("--legacy-lr", type=float, default=4.0, help="of the author's way")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=Path("docs/results"))
    return made


def samples(spec: str, train: int, test: int, standardise: bool = False) -> Samples:
    """The first samples of both parts.

    Args:
        spec: As for ``--data``.
        train, test: How many, at most.
        standardise: Whether features get mean 0 and variance 1 over the training samples.
    """
    data = load_data(spec)
    if data.train is None:
        raise SystemExit(f"{spec} has no training part")
    first, second = (s.inputs.flatten(1)[:n] for s, n in ((data.train, train), (data.test, test)))
    if standardise:
        centre, scale = first.mean(0), first.std(0).clamp(min=1e-6)
        first, second = (first - centre) / scale, (second - centre) / scale
    return Samples(Split(first, data.train.targets[:train]), Split(second, data.test.targets[:test]), data.classes)


def size_line(script: str, given: argparse.Namespace, data: Samples, epochs: int | None = None) -> str:
    """How large the run was, and that it was a short one where it was.

    Args:
        script: Name of the file.
        given: The arguments.
        data: The samples.
        epochs: Those of the paper; None where it does not say.
    """
    train, test = len(data.train), len(data.test)
    sizes = (
        f"{train:,} training and {test:,} test samples",
        f"{given.epochs} epochs",
        f"hidden layers of {given.width:,}",
        f"batches of {given.batch_size} ({given.legacy_batch_size} as coded)",
        f"{given.seeds} seeds (mean ± deviation)" if given.seeds > 1 else "one seed",
    )
    line = f"Written by `python benchmarks/papers/{script}.py` with {', '.join(sizes)}."
    if (train, test, given.width, given.epochs) != (*PAPER, epochs or given.epochs):
        long = f"{PAPER[0]:,} and {PAPER[1]:,} samples, hidden layers of {PAPER[2]:,}"
        long += f" and {epochs} epochs" if epochs else ""
        line += f" The paper has {long}: this is a **short run**, whose accuracies are not those of the full one."
    return line if epochs else f"{line} How many epochs the paper has is not printed."
