"""The beginning of every command: settings in force, the model and its data open, example inputs made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.checkpoint.read import LoadedModel, load_model
from compress.checkpoint.torchfile import would_import
from compress.data import CLASSES_NEEDED, Data, load_data
from compress.errors import InputError, ModelError
from compress.evaluate import tried
from compress.graph import Coupling, Program, analyse, load_rules, trace
from compress.graph.features import selections
from compress.inputs import InputType, types_of, written
from compress.pictures import ImageShape
from compress.progress import Progress
from compress.request import DataSource, ModelSource, Settings
from compress.wording import plural

Shapes = tuple[tuple[int, ...], ...]
Normal = tuple[tuple[float, ...] | None, tuple[float, ...] | None]  # mean and deviation

_MOST_CHANNELS = 4  # of a picture
_IMAGENET = "--mean .485,.456,.406 --std .229,.224,.225"


@dataclass(frozen=True)
class Opened:
    """A model ready for work.

    Attributes:
        loaded: What the file gave.
        shapes: Of each input, without the batch.
        data: The user's data in the model's input shape, if any.
        device: Where networks are run for accuracy and speed.
        types: Of each input.
        mean, std: By which inputs are normalised, where the user or the file says so.
        unjudged: Why the accuracy on the data cannot be measured; None where it can.
    """

    loaded: LoadedModel
    shapes: Shapes
    data: Data | None
    device: torch.device
    types: tuple[InputType, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    unjudged: InputError | None = None

    def examples(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs (standard normal where they are floats), the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        types = types_of(self.types, len(self.shapes))
        return tuple(t.draw((batch, *shape), generator) for shape, t in zip(self.shapes, types, strict=True))


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
    source: ModelSource,
    settings: Settings,
    data: DataSource | None = None,
    progress: Progress | None = None,
    *,
    judged: bool = True,
) -> Opened:
    """Load a model and, where given, its data.

    Args:
        source, settings: What is opened, and how.
        data: The user's data.
        progress: Told what is found.
        judged: Whether accuracy has to be measured on the data; where not, any model and any targets will do.

    Raises:
        InputError: Anything about the files or their fit is wrong, or the input shape is not known.
        ModelError: It is a detector.
    """
    device = apply(settings)
    if source.trust_pickle and progress is not None:
        _tell_imports(source, progress)
    loaded = load_model(
        source.path,
        arch=source.arch,
        arch_args=source.arch_args or None,
        input_shape=source.input_shapes,
        trust_pickle=source.trust_pickle,
        input_types=source.input_types,
        weights=source.weights,
    )
    if progress is not None:
        progress.step(f"Loaded {loaded.path}: {loaded.form}, {loaded.architecture}")
        for note in loaded.notes:
            progress.detail(note)
    mean, std = (loaded.mean, loaded.std) if data is None or data.mean is None else (data.mean, data.std)
    read = None if data is None else _read(loaded, data, (mean, std), judged, progress)
    shapes = loaded.input_shapes or (None if read is None else (read.input_shape,))
    if read is not None and loaded.usual_shape and len(read.input_shape) == 3:
        shapes = (read.input_shape,)  # images of the data's size are as good as those that are usual
    if shapes is None and type(loaded.module).__module__.startswith("torchvision.models.detection"):
        raise ModelError(
            f"{loaded.path} is a detector ({loaded.architecture}): its path depends on its data",
            "there is no one graph of it: docs/usage.md shows how to prune it in Python",
        )
    if shapes is None:
        raise InputError(
            f"the input shape of {loaded.path} is not known",
            "give it without the batch, such as --input-shape 3,224,224, or give --data",
        )
    if read is not None:
        if len(shapes) > 1:
            raise InputError(f"the model has {plural(len(shapes), 'input')}, data can feed one", "leave out --data")
        read = _of_type(read, types_of(loaded.input_types, 1)[0]).fit_to(shapes[0])
    opened = Opened(loaded, shapes, read, device, types_of(loaded.input_types, len(shapes)), mean, std)
    _try_out(opened, given=source.input_shapes is not None)
    problem = None if read is None else _unjudged(loaded.module, read, progress)
    if judged and problem is not None:
        raise problem
    return replace(opened, unjudged=problem)


def _read(loaded: LoadedModel, data: DataSource, by: Normal, judged: bool, progress: Progress | None) -> Data:
    """The user's data, normalised by mean and deviation, with images of the size that the model reads."""
    mean, std = by
    if data.mean is None and mean is not None and std is not None and progress is not None:
        progress.step(f"Normalising as the file says: --mean {joined(mean)} --std {joined(std)}")
    read = load_data(data.spec, mean=mean, std=std, images=_images(loaded), labels=judged)
    if mean is None and progress is not None and _wants_normalised(loaded, data.spec, read):
        progress.warn(f"the images are not normalised, as the networks of torchvision mostly are used: {_IMAGENET}")
    return read


def _unjudged(module: torch.nn.Module, data: Data, progress: Progress | None) -> InputError | None:
    """Why accuracy cannot be measured; says so where it can and may mean nothing."""
    if data.unlabelled:
        return InputError(data.unlabelled, CLASSES_NEEDED)
    found = tried(module, data.test)
    if isinstance(found, int) and found > data.classes and progress is not None:
        progress.warn(
            f"the model tells {found} classes apart, the data has {data.classes}: accuracy is right only where the "
            f"labels of {data.name} are the model's first {data.classes} classes, in that order"
        )
    return found if isinstance(found, InputError) else None


def _of_type(data: Data, kind: InputType) -> Data:
    """With the numbers that a model reads: words stay integers, and images are none."""
    fed, wanted = data.test.inputs.dtype, getattr(torch, kind.dtype)
    if fed.is_floating_point != wanted.is_floating_point or wanted is torch.bool:
        name = str(fed).removeprefix("torch.")
        shape = ",".join(map(str, data.input_shape))
        hint = (
            "leave out --data"
            if fed.is_floating_point
            else (f"--input-shape {shape}:{name} where it reads numbers of words; else store the inputs as float32")
        )
        raise InputError(f"the model reads {kind}, data feeds {name}", hint)
    train, test = (each and replace(each, inputs=each.inputs.to(wanted)) for each in (data.train, data.test))
    return replace(data, train=train, test=test or data.test)


def joined(numbers: Sequence[float]) -> str:
    """As an option takes them."""
    return ",".join(f"{number:g}" for number in numbers)


def _images(loaded: LoadedModel) -> ImageShape | None:
    """The images that a model reads; None if it reads something else, or nobody said which."""
    shapes = loaded.input_shapes or ()
    if len(shapes) != 1 or len(shapes[0]) != 3:
        return None
    channels, height, width = shapes[0]
    if channels > _MOST_CHANNELS >= width:  # channels last, as networks of Keras have them
        channels, height, width = width, channels, height
    return ImageShape(channels, height, width, loaded.usual_shape)


def _wants_normalised(loaded: LoadedModel, spec: str, data: Data) -> bool:
    """Whether a network of torchvision is given images as they are in their files."""
    of_files = spec.startswith(("folder:", "torchvision:"))
    return of_files and loaded.architecture.startswith("torchvision:") and data.input_shape[:-2] == (3,)


def _tell_imports(source: ModelSource, progress: Progress) -> None:
    """What trust means for this file, before it is loaded."""
    names = would_import(source.path)
    if names:
        progress.warn(f"--trust-pickle: loading {source.path} imports, and may run, {', '.join(names)}")


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
    reason = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]
    kind = InputError if given else ModelError
    raise kind(f"the model cannot take inputs of {_said(opened)}: {reason}", _advice(opened)) from failure


def _said(opened: Opened) -> str:
    return written(opened.shapes, opened.types) + (" (float32)" if _floats(opened) else "")


def _floats(opened: Opened) -> bool:
    return all(t == InputType() for t in opened.types)


def _advice(opened: Opened) -> str:
    """What may be wrong: weights of another precision, token numbers taken for floats, too small a vocabulary."""
    others = {p.dtype for p in opened.loaded.module.parameters()} & {torch.float16, torch.bfloat16, torch.float64}
    if others and _floats(opened):
        kind = str(others.pop()).removeprefix("torch.")
        return f"its weights are {kind} and inputs are float32: save it as model.float(), or check --input-shape"
    words = any(isinstance(m, torch.nn.Embedding) for m in opened.loaded.module.modules())
    if words and _floats(opened):
        shape = ",".join(map(str, opened.shapes[0]))
        return f"check --input-shape; for token numbers --input-shape {shape}:int64"
    return "check --input-shape"


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
    program: Program,
    progress: Progress,
    *,
    prune_outputs: bool = False,
    prune_inputs: bool = False,
    allow_frozen: bool = False,
) -> Coupling:
    """What of the model lives and dies together; says which installed rules cannot be used, and which inputs must stay.

    Raises:
        ModelError: Inputs are to be pruned, and none is a table of features.
    """
    for problem in load_rules():
        progress.warn(problem)
    coupling = analyse(program, prune_outputs=prune_outputs, prune_inputs=prune_inputs, allow_frozen=allow_frozen)
    chosen = selections(coupling.program.module) if prune_inputs else []
    for held in coupling.frozen:
        if held.tensor in chosen:
            progress.warn(f"{held.indices} input features stay: {held.reason}")
    return coupling
