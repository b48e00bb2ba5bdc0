"""What `sensitivity` and `search` begin with: a model open, its training samples divided, scores at hand."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass

from compress.budget import Scores
from compress.errors import InputError
from compress.graph import Program
from compress.pipeline.divided import some, without_judges
from compress.pipeline.opening import Opened, analysed, open_model, traced
from compress.pipeline.training import training_part
from compress.pipeline.unfit import check_network
from compress.plugin import Context, Criterion, make_scores
from compress.progress import Progress
from compress.recover.samples import divided
from compress.registry import create
from compress.request import DataSource, ModelSource, Settings
from compress.search import Bench
from compress.searching import Scope
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

    def ratios(self, fractions: Sequence[float]) -> tuple[tuple[str, float], ...]:
        """What `prune` has to be told of every family: globs that match its groups, and the share that goes.

        A glob also matches families that hold the outputs of the layer it names, and of several the last one counts;
        so families come later the more names of others they answer to.
        """
        coupling, found = self.context.coupling, self.context.clusters
        names = {group for cluster in found for group in cluster.groups}

        def foreign(position: int) -> int:
            groups = found[position].groups
            return len(names.intersection(n for g in groups for n in coupling.layers_of(g)).difference(groups))

        order = sorted(range(len(found)), key=foreign)
        return tuple((glob.escape(g), fractions[i]) for i in order for g in found[i].groups)


def scoring(method: str) -> Criterion:
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
    criterion: Criterion = instance
    return criterion


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
    check_network(program, opened)
    coupling = analysed(program, progress, prune_outputs=scope.prune_outputs, allow_frozen=scope.allow_frozen)
    seen = without_judges(opened.data, KEPT_OUT)
    context = Context(
        coupling, only=scope.only, exclude=scope.exclude, seed=settings.seed, data=seen, progress=progress
    )  # fmt: skip
    inputs = context.samples()[0] if refit else None
    bench = Bench(coupling, context.clusters, judge, inputs, opened.device, settings.seed)
    return Ready(opened, program, context, bench)
