"""The closed-form refit of what is left, as a pruning makes it: at its end, and between its rounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import fx

from compress.pipeline.rounds import Refit
from compress.plugin import Context
from compress.recover import Compensation, compensate
from compress.request import PruneRequest
from compress.wording import plural


def refitted(
    context: Context,
    alive: NDArray[np.bool_],
    sliced: fx.GraphModule,
    request: PruneRequest,
    together: bool,
    keep_zeros: bool = False,
) -> Compensation | None:
    """Closed-form compensation where training samples are at hand; zeros of masked weights stay.

    Joint refits can take minutes, for which the user or the method has to ask.
    """
    train = None if context.data is None else context.data.train
    if not request.calibrate or train is None:
        return None
    inputs, _ = context.samples()
    progress = context.progress
    progress.step(f"Refitting on {plural(len(inputs), 'training sample')}")
    result = compensate(
        context.coupling,
        alive,
        sliced,
        inputs,
        seed=request.settings.seed,
        layers=request.refit != "norms",
        together=together,
        keep_zeros=keep_zeros,
        progress=progress,
    )
    progress.detail(
        f"{len(result.refitted)} of {plural(len(result.refitted) + len(result.skipped), 'layer')} refitted, "
        f"{len(result.together)} of them together with those before"
    )
    return result


def refit_of(context: Context, request: PruneRequest, together: bool) -> Refit:
    """The refit between rounds: as at the end, on the same samples."""

    def refit(alive: NDArray[np.bool_], sliced: fx.GraphModule) -> fx.GraphModule:
        done = refitted(context, alive, sliced, request, together)
        return sliced if done is None else done.module

    return refit
