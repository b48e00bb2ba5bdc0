"""How well a state dict fits a module, and putting it in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

# Counters that old checkpoints lack and that inference does not use.
_OPTIONAL = "num_batches_tracked"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """Where a module and a state dict disagree; `mismatched` is (name, shape in the module, in the file)."""

    module: nn.Module
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, Shape, Shape], ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def wrong(self) -> int:
        """The number of disagreements; 0 is a fit."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    def describe(self) -> str:
        """Counts and the first five names of each kind."""
        shapes = [f"{name} {file} for {model}" for name, model, file in self.mismatched]
        parts = (
            ("missing from the file", list(self.missing)),
            ("unexpected in the file", list(self.unexpected)),
            ("of another shape than the model's", shapes),
        )
        return "; ".join(
            f"{len(names)} {what} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            for what, names in parts
            if names
        )


def compare(module: nn.Module, state: dict[str, torch.Tensor]) -> Fit:
    """Names and shapes of `state` against those of `module`; nothing is loaded.

    A parameter of several names, such as an embedding that is the last layer's weight, may be in the file under one.
    """
    tensors = module.state_dict(keep_vars=True)
    expected = {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    given = {id(value) for key, value in expected.items() if key in state}
    absent = [key for key, value in expected.items() if key not in state and id(value) not in given]
    missing = tuple(key for key in absent if not key.endswith(_OPTIONAL))
    mismatched = tuple(
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in expected.items()
        if key in state and value.shape != state[key].shape
    )
    unexpected = tuple(key for key in state if key not in expected)
    notes = ("batch-norm counters are not in the file; left at zero",) if len(absent) > len(missing) else ()
    return Fit(module, missing, unexpected, mismatched, notes)


def fill(fit: Fit, state: dict[str, torch.Tensor]) -> nn.Module:
    """The module of `fit` with `state` in it, on the CPU and in eval mode; dtypes are the module's own."""
    module = fit.module
    expected = module.state_dict()
    cast = {key: value.to(expected[key].dtype) for key, value in state.items()}
    hollow = any(each.is_meta for each in module.parameters())
    # A hollow module takes the tensors themselves; copies keep them from sharing memory with the file.
    if hollow:
        cast = {key: value.clone() for key, value in cast.items()}
    # Modules whose names have changed over time ask for the version; those that fit have the present ones
    given = OrderedDict(cast)
    given._metadata = getattr(expected, "_metadata", None)  # type: ignore[attr-defined]
    module.load_state_dict(given, assign=hollow, strict=False)
    return module.eval()


@contextmanager
def hollow_parameters() -> Iterator[None]:
    """Modules built inside get parameters without storage (on the meta device); buffers stay real.

    That makes building fast and free of memory, while constants that an ``__init__`` computes remain right.
    """

    def hollow(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return parameter
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(hollow)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()
