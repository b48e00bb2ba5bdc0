"""What `sensitivity` and `search` begin with: a model open, its training samples divided, scores at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from compress.budget import Scores
from compress.data import Data, Split
from compress.errors import InputError
from compress.graph import Program
from compress.pipeline.opening import Opened, analysed, open_model, traced
from compress.pipeline.training import training_part
from compress.plugin import Context, make_scores
from compress.progress import Progress
from compress.recover.samples import divided
from compress.registry import create
from compress.request import DataSource, ModelSource, Scope, Settings
from compress.search import Bench
from compress.training import Training

KEPT_OUT = Training.validation  # the share of the training samples that fine-tuning chooses its best epoch by, too


@dataclass(frozen=True)
class Ready:
    """A model and all that its candidates are made and judged with.

    Attributes:
        opened: The model and its data.
        program: Its graph.
        context: As methods see it, without the samples that judge.
        bench: Makes candidates and judges them.
    """

    opened: Opened
    program: Program
    context: Context
    bench: Bench

    def scores(self, method: str) -> Scores:
        """What a method says of every unit.

        Raises:
            InputError: There is no such method, or it does not score units.
            PluginError: It breaks its contract or fails.
        """
        return make_scores(scoring(method), self.context)


def scoring(method: str) -> object:
    """The method of that name.

    Raises:
        InputError: There is none, or it does not score units.
        PluginError: It cannot be imported.
    """
    found, instance = create(method, {})
    if found.kind != "criterion":
        raise InputError(
            f"{method} decides by itself what goes, so no ratio can be set for it",
            "choose a method of the kind criterion: `compress methods` lists them",
        )
    return instance


def ready(
    model: ModelSource,
    data: DataSource,
    settings: Settings,
    scope: Scope,
    progress: Progress,
    *,
    samples: int,
    refit: bool,
) -> Ready:
    """Open a model for candidates.

    Args:
        model, data, settings: What is opened.
        scope: What may go.
        progress: Told about every stage.
        samples: How many of the validation part judge at most.
        refit: Whether candidates are refitted.

    Raises:
        InputError: The file, the data or their fit is wrong, or there are no training samples.
        ModelError: The model cannot be traced, or has nothing to prune.
    """
    opened = open_model(model, settings, data, progress)
    judge = some(divided(training_part(opened), KEPT_OUT)[1], samples)
    progress.step("Tracing")
    program = traced(opened)
    coupling = analysed(program, progress, prune_outputs=scope.prune_outputs, allow_frozen=scope.allow_frozen)
    seen = without_judges(opened.data, KEPT_OUT)
    context = Context(
        coupling, only=scope.only, exclude=scope.exclude, seed=settings.seed, data=seen, progress=progress
    )  # fmt: skip
    inputs = context.samples()[0] if refit else None
    bench = Bench(coupling, context.clusters, judge, inputs, opened.device, settings.seed)
    return Ready(opened, program, context, bench)


def without_judges(data: Data | None, share: float) -> Data | None:
    """The data without the share of its training samples that judges."""
    if data is None or data.train is None or not share:
        return data
    return replace(data, train=divided(data.train, share)[0])


def some(split: Split, count: int) -> Split:
    """At most so many samples, always the same ones, from everywhere in the split."""
    if len(split) <= count:
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return Split(split.inputs[order], split.targets[order])
