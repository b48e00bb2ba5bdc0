"""A training inside a command: its state beside the output, its teacher, its part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import fx

from compress.checkpoint.bundle import is_bundle
from compress.data import Split
from compress.errors import CompressError, Elsewhere, InputError, ModelError
from compress.graph import Program
from compress.pipeline.opening import Opened, open_model, traced
from compress.pipeline.original import original_of
from compress.progress import Progress
from compress.recover import Hook, StateFile, Trained, finetune
from compress.recover.launch import is_main
from compress.request import FinetuneRequest, ModelSource, Settings
from compress.training import Running, Training
from compress.wording import plural


@dataclass(frozen=True)
class Taught:
    """The original as a teacher, and how to open it again."""

    source: ModelSource
    opened: Opened
    program: Program


def train(
    network: fx.GraphModule,
    opened: Opened,
    teacher: fx.GraphModule | None,
    *,
    training: Training,
    running: Running,
    output: Path,
    recipe: Mapping[str, Any],
    progress: Progress,
    hooks: Sequence[Hook] = (),
) -> tuple[Trained, StateFile]:
    """Train on the data that is open; the state file is to be removed when the result is in its place.

    Args:
        network: What is trained.
        opened: The model it came from, with data.
        teacher: The original, if at hand.
        training, running: What was asked.
        output: The bundle to be written; the state lies beside it, in ``OUTPUT.training``.
        recipe: The resolved settings: a run with others cannot go on from the state.
        progress: Told about every epoch.
        hooks: What is done beside the steps.

    Raises:
        InputError: Data, settings or state are wrong.
        ModelError: The network cannot be trained.
        Elsewhere: This is not the main process; it has done its part.
    """
    data = training_part(opened)
    folder = state_folder(output)
    file = StateFile(folder, _identity(network, opened, len(data), recipe), running.save_every)
    if file.exists and not running.resume and is_main():
        progress.warn(f"{folder} holds an interrupted training, which is lost now; --resume would go on with it")
    progress.step(f"Training on {plural(len(data), 'sample')}, {plural(training.epochs, 'epoch')}")
    trained = finetune(
        network,
        data,
        training,
        seed=int(recipe["seed"]),
        device=opened.device,
        teacher=teacher,
        hooks=hooks,
        file=file,
        resume=running.resume,
        log=running.tensorboard,
        progress=progress,
    )
    if not is_main():
        raise Elsewhere("the main process writes the result")
    return trained, file


def state_folder(output: Path) -> Path:
    """Where the state of a training lies whose bundle goes to ``output``."""
    return output.parent / f"{output.name}.training"


def _identity(network: fx.GraphModule, opened: Opened, samples: int, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the same run: everything that was decided, wherever its files lie."""
    settings = {k: v for k, v in recipe.items() if k not in ("model", "teacher", "device", "threads")}
    return {
        **settings,
        "model": opened.loaded.sha256,
        "samples": samples,
        "shapes": {name: list(p.shape) for name, p in network.named_parameters()},
    }


def training_part(opened: Opened) -> Split:
    """The samples to train on.

    Raises:
        InputError: There are none.
    """
    if opened.data is None or opened.data.train is None:
        name = "" if opened.data is None else f"--data {opened.data.name}: "
        raise InputError(f"{name}there is no training part", "give data with training samples as well")
    return opened.data.train


def check_trainable(program: Program, opened: Opened) -> None:
    """See before any work that there is something to train, and to train on.

    Raises:
        InputError: There are no training samples.
        ModelError: The network takes batches of one size alone, or came from an ONNX file.
    """
    training_part(opened)
    if opened.loaded.onnx is not None:
        raise ModelError(
            f"{opened.loaded.path} comes from an ONNX model, which is made for inference: its dropouts are gone, and "
            "its batch norms may be part of the layers before them",
            "train the model that it was exported from; `compress prune` with --data refits the smaller layers",
        )
    if not program.dynamic_batch:
        size = int(program.inputs[0].shape[0])
        raise ModelError(
            f"{opened.loaded.path} takes batches of {size} alone, so it cannot be trained",
            "export it with a dynamic batch, or give the checkpoint it was made of",
        )


def find_teacher(request: FinetuneRequest, progress: Progress) -> Taught | None:
    """The original: what ``--teacher`` names, or the file that a bundle was made of, if it is there unchanged.

    Raises:
        InputError: What was named cannot be opened.
        ModelError: It cannot be traced.
    """
    if request.training.distill == "none":
        return None
    settings = replace(request.settings)
    if request.teacher is not None:
        return _opened(request.teacher, request, settings, progress)
    if not is_bundle(request.model.path):
        return None
    try:
        source, digest = original_of(request.model, teacher=True)
        taught = _opened(source, request, settings, progress)
        if taught.opened.loaded.sha256 != digest:
            raise InputError(f"{source.path} is not the file any more that it was")
    except CompressError as error:
        progress.step(f"Training without a teacher: {error}. Name the original with --teacher")
        return None
    return taught


def _opened(source: ModelSource, request: FinetuneRequest, settings: Settings, progress: Progress) -> Taught:
    opened = open_model(source, settings, request.data, progress)
    return Taught(source, opened, traced(opened))
