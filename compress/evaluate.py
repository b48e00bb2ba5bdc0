"""Accuracy of a classifier on labelled data, with what the number of samples can tell about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.data import Split
from compress.errors import InputError
from compress.progress import Progress, Silent
from compress.wording import plural

_Z = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class ClassAccuracy:
    """One class.

    Attributes:
        correct: Its samples that are right.
        count: Its samples in all.
        confidence: Mean probability, by softmax, of the class that was told for those that are right; None without any.
    """

    correct: int
    count: int
    confidence: float | None = None


@dataclass(frozen=True)
class Accuracy:
    """How many samples a model puts in the right class, and how sure it is of them.

    Attributes:
        correct: Samples right.
        count: Samples in all.
        accuracy: ``correct / count``.
        low: Lower end of the 95 % Wilson interval of the accuracy.
        high: Upper end.
        per_class: By the number of the class.
    """

    correct: int
    count: int
    accuracy: float
    low: float
    high: float
    per_class: tuple[ClassAccuracy, ...]

    @property
    def chance(self) -> float:
        """The share of the most frequent class: what always naming it would come to."""
        return max((each.count for each in self.per_class), default=0) / self.count

    @property
    def at_chance(self) -> bool:
        """Whether so few samples cannot tell the accuracy from that of always naming the most frequent class."""
        return self.low <= self.chance

    @property
    def confidence(self) -> float | None:
        """Mean confidence of the classes that have one: every class counts alike. None where nothing is right."""
        known = self._confidences()
        return sum(known) / len(known) if known else None

    @property
    def confident_classes(self) -> int:
        """How many classes that is the mean of: one in which nothing is right has no confidence."""
        return len(self._confidences())

    def _confidences(self) -> list[float]:
        return [each.confidence for each in self.per_class if each.confidence is not None]


@dataclass(frozen=True)
class Answers:
    """What a model made of each of N samples.

    Attributes:
        right: Whether it put the sample in the right class, (N,), bool.
        sure: Its largest probability, (N,).
    """

    right: Tensor
    sure: Tensor


def wilson(correct: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927, doi:10.1080/01621459.1927.10502953)."""
    share, z2 = correct / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = _Z / (1 + z2 / count) * sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    # At the ends the bound is exact; rounding would leave it a hair off.
    return (middle - reach if correct else 0.0), (middle + reach if correct < count else 1.0)


def evaluate(
    module: nn.Module,
    split: Split,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Accuracy:
    """The accuracy of `module` on `split`, in eval mode and without gradients; arguments and errors as of `answers`."""
    found = answers(module, split, batch_size=batch_size, device=device, progress=progress)
    return accuracy_of(found, split.targets)


def answers(
    module: nn.Module,
    split: Split,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Answers:
    """What `module` makes of every sample of `split`.

    Args:
        module: Gives logits of shape (batch, classes): a tensor, or a tuple or dict with the logits first.
            It is moved to `device`, and left as it was afterwards.
        split: Inputs (N, ...) and class numbers (N,).
        batch_size: The last batch may be smaller.
        device: Where to run.
        progress: Told about every batch.

    Raises:
        InputError: The model cannot take the inputs, is no classifier, or has fewer classes than the labels.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} is below 1")
    starts = range(0, len(split), batch_size)
    right, sure = [], []
    with torch.no_grad(), _ready(module, torch.device(device)) as dtype:
        for start in (progress or Silent()).track(starts, "evaluating", len(starts)):
            # A copy, as the model may work in place on its input
            inputs = split.inputs[start : start + batch_size].to(device, copy=True)
            targets = split.targets[start : start + batch_size].to(device)
            scores = _logits(module, inputs.to(dtype) if inputs.is_floating_point() else inputs)
            _check_classes(scores, split)
            # A sample whose scores are not numbers is not right, whatever argmax says.
            good = scores.isfinite().all(1) & (scores.argmax(1) == targets)
            right.append(good.cpu())
            sure.append(scores.softmax(1, dtype=torch.float32).amax(1).cpu())
    return Answers(torch.cat(right), torch.cat(sure))


def tried(module: nn.Module, split: Split) -> int | InputError | None:
    """How many classes the module tells apart, by its scores of the first samples, or what `answers` would raise.

    None where it does not run on so few; `answers` says why, if that is so with more.
    """
    few = Split(split.inputs[:2], split.targets)
    try:
        with torch.no_grad(), _ready(module, torch.device("cpu")) as dtype:
            inputs = few.inputs.clone()
            output = module(inputs.to(dtype) if inputs.is_floating_point() else inputs)
    except Exception:  # the model's own code may raise anything, and takes batches of another size perhaps
        return None
    try:
        scores = class_scores(output, len(few.inputs))
        _check_classes(scores, few)
    except InputError as error:
        return error
    return int(scores.shape[1])


def _check_classes(scores: Tensor, split: Split) -> None:
    if scores.shape[1] <= int(split.targets.max()):
        raise InputError(
            f"the model tells {scores.shape[1]} classes apart, the labels go up to {int(split.targets.max())}",
            "use the data that the model was trained for",
        )


def accuracy_of(answers: Answers, targets: Tensor) -> Accuracy:
    """The accuracy of answers to samples of the classes `targets` (N,)."""
    right, sure = answers.right, answers.sure
    classes = int(targets.max()) + 1
    counts = torch.bincount(targets, minlength=classes).tolist()
    found = torch.bincount(targets[right], minlength=classes).tolist()
    sums = torch.bincount(targets[right], weights=sure[right].double(), minlength=classes).tolist()
    per_class = [
        ClassAccuracy(good, count, total / good if good else None)
        for good, count, total in zip(found, counts, sums, strict=True)
    ]
    correct, count = int(right.sum()), len(right)
    return Accuracy(correct, count, correct / count, *wilson(correct, count), tuple(per_class))


def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    try:
        output = module(inputs)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        shape = "x".join(map(str, inputs.shape[1:]))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"the model cannot take inputs of {shape}: {reason}", "check the data and the input shape"
        ) from error
    return class_scores(output, inputs.shape[0])


def _are_scores(output: Any, samples: int) -> bool:
    return isinstance(output, Tensor) and output.dim() == 2 and output.shape[0] == samples and output.shape[1] > 1


def class_scores(output: Any, samples: int) -> Tensor:
    """The class scores (samples, classes) in what a model gives: a tensor, or the first of several that can be them.

    Raises:
        InputError: There are none.
    """
    if isinstance(output, Mapping) and output:
        output = output["logits"] if "logits" in output else next(iter(output.values()))
    elif isinstance(output, (tuple, list)) and output:
        # Classifiers of scikit-learn give the class before the probabilities
        output = next((each for each in output if _are_scores(each, samples)), output[0])
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise InputError(f"the model gives a {type(output).__name__}, not class scores")
    while output.dim() > 2 and output.shape[-1] == 1:
        output = output.squeeze(-1)
    if not _are_scores(output, samples):
        raise InputError(
            f"the model gives an output of shape {tuple(output.shape)} for {plural(samples, 'sample')}; "
            "accuracy needs one score per class, (samples, classes)",
            "only classifiers can be evaluated; segmentation, detection and regression cannot",
        )
    return output


@contextmanager
def _ready(module: nn.Module, device: torch.device) -> Iterator[torch.dtype]:
    """`module` on `device` in eval mode, and back; gives the dtype its inputs should have."""
    training = {name: each.training for name, each in module.named_modules()}
    floats = [each for each in module.parameters() if each.is_floating_point()]
    home = floats[0].device if floats else torch.device("cpu")
    module.eval().to(device)
    try:
        yield _input_type(module, floats)
    finally:
        module.to(home)
        for name, each in module.named_modules():
            each.training = training.get(name, False)


def _input_type(module: nn.Module, floats: list[nn.Parameter]) -> torch.dtype:
    if not floats or (isinstance(module, fx.GraphModule) and floats[0].dtype in (torch.float16, torch.bfloat16)):
        return torch.float32  # a graph of low precision that is opened here casts its inputs itself
    return floats[0].dtype
