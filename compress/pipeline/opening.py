"""The beginning of every command: settings in force, the model and its data open, example inputs made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compress.checkpoint.read import LoadedModel, load_model
from compress.data import Data, load_data
from compress.errors import InputError, ModelError
from compress.graph import Coupling, Program, analyse, load_rules, trace
from compress.progress import Progress
from compress.request import DataSource, ModelSource, Settings

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Opened:
    """A model ready for work.

    Attributes:
        loaded: What the file gave.
        shapes: Of each input, without the batch.
        data: The user's data in the model's input shape, if any.
        device: Where networks are run for accuracy and speed.
    """

    loaded: LoadedModel
    shapes: Shapes
    data: Data | None
    device: torch.device

    def examples(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Standard normal inputs, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(batch, *shape, generator=generator) for shape in self.shapes)


def apply(settings: Settings) -> torch.device:
    """Put seed and threads in force; the device that is meant.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    torch.manual_seed(settings.seed)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    available = torch.cuda.is_available()
    if settings.device == "auto":
        return torch.device("cuda" if available else "cpu")
    if settings.device.startswith("cuda"):
        count = torch.cuda.device_count() if available else 0
        index = int(settings.device.partition(":")[2] or 0)
        if index >= count:
            raise InputError(
                f"--device {settings.device}: " + (f"there are {count} GPUs" if count else "no CUDA device was found"),
                "--device cpu, or --device auto to take what there is",
            )
    return torch.device(settings.device)


def open_model(
    source: ModelSource, settings: Settings, data: DataSource | None = None, progress: Progress | None = None
) -> Opened:
    """Load a model and, where given, its data.

    Raises:
        InputError: Anything about the files or their fit is wrong, or the input shape is not known.
    """
    device = apply(settings)
    loaded = load_model(
        source.path,
        arch=source.arch,
        arch_args=source.arch_args or None,
        input_shape=source.input_shapes,
        trust_pickle=source.trust_pickle,
    )
    if progress is not None:
        progress.step(f"Loaded {loaded.path}: {loaded.form}, {loaded.architecture}")
        for note in loaded.notes:
            progress.detail(note)
    read = None
    if data is not None:
        mean, std = (data.mean, data.std) if data.mean is not None else (loaded.mean, loaded.std)
        read = load_data(data.spec, mean=mean, std=std)
    shapes = loaded.input_shapes or (None if read is None else (read.input_shape,))
    if shapes is None:
        raise InputError(
            f"the input shape of {loaded.path} is not known",
            "give it without the batch, such as --input-shape 3,224,224, or give --data",
        )
    if read is not None:
        if len(shapes) > 1:
            raise InputError(f"the model has {len(shapes)} inputs, data can feed one", "leave out --data")
        read = read.fit_to(shapes[0])
    opened = Opened(loaded, shapes, read, device)
    _try_out(opened, given=source.input_shapes is not None)
    return opened


def _try_out(opened: Opened, given: bool) -> None:
    """Run the model once, as a tracer that meets a wrong input says so in its own words.

    Raises:
        InputError: It does not run on inputs of the shape that the user gave.
        ModelError: It does not run on inputs of the shape that the file or the data says.
    """
    module, failure = opened.loaded.module, Exception()
    for batch in (2, 1):  # some were exported for one sample
        try:
            with torch.no_grad():
                module(*opened.examples(batch))
            return
        except Exception as error:  # the model's own code may raise anything
            failure = failure if failure.args else error
    shapes = " and ".join("x".join(map(str, shape)) for shape in opened.shapes)
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]
    kind = InputError if given else ModelError
    raise kind(f"the model cannot take inputs of {shapes} (float32): {reason}", "check --input-shape") from failure


def traced(opened: Opened) -> Program:
    """The model's graph, from a batch of two, or of one where the model was exported for that.

    Raises:
        ModelError: The model cannot be traced.
    """
    try:
        return trace(opened.loaded.module, opened.examples(2))
    except ModelError as error:
        try:
            return trace(opened.loaded.module, opened.examples(1))
        except ModelError:
            raise error from None


def analysed(
    program: Program, progress: Progress, *, prune_outputs: bool = False, allow_frozen: bool = False
) -> Coupling:
    """What of the model lives and dies together; says which installed rules cannot be used."""
    for problem in load_rules():
        progress.warn(problem)
    return analyse(program, prune_outputs=prune_outputs, allow_frozen=allow_frozen)
