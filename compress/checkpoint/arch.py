"""The architecture of a state dict: told by the user, told by the file, or found among torchvision's models.

An architecture is written ``mlp:64-300-100-10:relu``, ``torchvision:resnet18``, ``timm:resnet18``,
``package.module:factory`` or ``file.py:factory``. The last two run code, so only the user may say them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from compress.checkpoint import zoo
from compress.checkpoint.fit import Fit, compare, fill
from compress.checkpoint.statedict import parts, within, without_prefixes
from compress.checkpoint.userfile import call_user, load_callable, near_or_some
from compress.errors import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip
_FORMS = "mlp:64-300-10, torchvision:resnet18, timm:resnet18, package.module:factory or file.py:factory"


@dataclass(frozen=True)
class Built:
    """A module with the checkpoint's weights in it, and what was found on the way."""

    module: nn.Module
    architecture: str
    notes: tuple[str, ...]


def build(arch: str, arch_args: Mapping[str, Any] | None, state: dict[str, torch.Tensor]) -> Built:
    """The module `arch` names, with `state` loaded; wrapper prefixes and the class count are worked out.

    Raises:
        InputError: The architecture is not known, its factory fails, or `state` does not fit it.
    """
    kind, _, name = arch.partition(":")
    if kind in ("torchvision", "timm"):
        variants = list(without_prefixes(state))
        fits = [zoo.fit_named(kind, name, dict(arch_args or {}), variant) for variant, _ in variants]
    else:
        module = mlp(arch, arch_args) if kind == "mlp" else _from_factory(arch, arch_args)
        variants = list(without_prefixes(state))
        if kind == "mlp" and any("0.weight" in variant for variant, _ in variants):
            module = nn.Sequential(*list(module.children())[1:])  # trained without the flattening in front
        fits = [compare(module, variant) for variant, _ in variants]
    # The fewest disagreements win; of equals, the state with most prefixes taken off.
    best = min(reversed(range(len(fits))), key=lambda index: fits[index].wrong)
    if not fits[best].wrong:
        return _filled(arch, fits[best], *variants[best])
    part, prefix = within(state, fits[0].missing)
    inner = compare(fits[0].module, part)
    if inner.wrong:
        raise _does_not_fit(arch, fits[best])
    others = [name for name in state if not name.startswith(prefix)]
    left = f"; left out: {', '.join(others[:4])}" if others else ""
    note = f"the weights under {prefix!r} are the model's{left}"
    return _filled(arch, replace(inner, notes=(note, *inner.notes)), part, "")


def find(state: dict[str, torch.Tensor]) -> Built:
    """The torchvision model whose names and shapes are exactly those of `state`, with `state` loaded.

    Raises:
        InputError: No model fits (the nearest is named), or several do (all are named).
    """
    near: list[zoo.Candidate] = []
    for part, removed, notes in _pieces(state):
        candidates = zoo.candidates(part)
        exact = [each for each in candidates if not each.fit.wrong]
        if len(exact) > 1:
            names = [f"torchvision:{each.name}" for each in exact]
            raise InputError(f"the weights fit {' and '.join(names)} equally well", f"say which: --arch {names[0]}")
        if exact:
            built = _filled(f"torchvision:{exact[0].name}", exact[0].fit, part, removed)
            note = f"architecture found by its names and shapes: {built.architecture}"
            return Built(built.module, built.architecture, (note, *notes, *built.notes))
        near += candidates
    raise _nothing_fits(state, near or zoo.nearest(next(_pieces(state))[0]))


def _pieces(state: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], str, tuple[str, ...]]]:
    """What of a state dict may be the network: all of it, without the most prefixes first, or what one prefix has."""
    for variant, removed in reversed(list(without_prefixes(state))):
        yield variant, removed, ()
    for part, start in parts(list(without_prefixes(state))[-1][0]):
        others = [name for name in state if start not in name]
        note = f"the weights under {start!r} are the model's; left out: {', '.join(others[:4])}"
        for variant, removed in reversed(list(without_prefixes(part))):
            yield variant, removed, (note,)


def from_file(arch: str, beside: Mapping[str, Any], state: dict[str, torch.Tensor]) -> Built:
    """As `build`, for an architecture the checkpoint itself names; code it names is not run.

    Raises:
        InputError: It names a factory (the flag to add is told), or anything `build` raises.
    """
    kind, _, name = arch.partition(":")
    args = _harmless(beside.get("arch_args"))
    if kind in ("mlp", "torchvision", "timm") and name:
        built = build(arch, args, state)
    elif ":" in arch:
        raise InputError(
            f"the checkpoint says that its architecture is {arch}. Code that a file names is not run unasked",
            f"if you trust that code, add: --arch {arch}",
        )
    elif arch in zoo.torchvision_names():
        built = build(f"torchvision:{arch}", args, state)
    elif arch in zoo.timm_names():
        built = build(f"timm:{arch}", args, state)
    else:
        return find(state)
    return Built(built.module, built.architecture, ("architecture as the checkpoint says", *built.notes))


def mlp(spec: str, arch_args: Mapping[str, Any] | None = None) -> nn.Module:
    """``mlp:64-300-100-10[:relu|gelu|tanh|sigmoid]``: flatten, then linear layers with activations between.

    Raises:
        InputError: The sizes or the activation are not understood.
    """
    _, sizes, *rest = spec.split(":")
    numbers = sizes.split("-")
    if len(numbers) < 2 or not all(each.isdigit() and int(each) > 0 for each in numbers) or len(rest) > 1:
        raise InputError(
            f"{spec!r}: expected sizes joined by '-', from input to output",
            "for example mlp:64-300-100-10:relu",
        )
    if arch_args:
        raise InputError(f"{spec!r} takes no --arch-args", "write the sizes and activation in the name")
    name = rest[0] if rest else "relu"
    if name not in ACTIVATIONS:
        raise InputError(f"{spec!r}: no activation {name!r}", near_or_some(name, ACTIVATIONS))
    widths = [int(each) for each in numbers]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[name]()]
    return nn.Sequential(*layers[:-1])


def default_input_shape(built: Built) -> tuple[int, ...] | None:
    """The input shape (without the batch) that goes with an architecture; None when it is not known."""
    kind, _, name = built.architecture.partition(":")
    if kind == "mlp":
        return (int(name.partition("-")[0]),)
    if kind == "torchvision":
        return zoo.usual_shape(name, built.module)
    if kind == "timm":
        size = getattr(built.module, "pretrained_cfg", {}).get("input_size")
        return tuple(size) if size else None
    if kind == "transformers":  # convolutional ones take images of any size
        channels = getattr(getattr(built.module, "config", None), "num_channels", None)
        return (channels, 224, 224) if isinstance(channels, int) else None
    return None


def _from_factory(arch: str, arch_args: Mapping[str, Any] | None) -> nn.Module:
    if ":" not in arch:
        raise InputError(f"--arch {arch}: not understood", f"write one of: {_FORMS}")
    factory = load_callable(arch, flag="--arch")
    module = call_user(factory, what=f"--arch {arch}", **dict(arch_args or {}))
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--arch {arch} returned a {type(module).__name__}, not a torch.nn.Module",
            "name a function that builds and returns the model",
        )
    return module


def _filled(arch: str, fit: Fit, state: dict[str, torch.Tensor], removed: str) -> Built:
    notes = [f"prefix {removed!r} removed from every name"] if removed else []
    expected = fit.module.state_dict()
    types = {(v.dtype, expected[k].dtype) for k, v in state.items() if v.is_floating_point() and k in expected}
    cast = sorted((_plain(a), _plain(b)) for a, b in types if a != b)
    notes += [f"{old} in the file, {new} as in the architecture" for old, new in cast]
    for name, parameter in fit.module.named_parameters():
        found = state.get(name)
        if found is not None and parameter.is_floating_point() and not found.is_floating_point():
            raise InputError(
                f"{name} is {_plain(found.dtype)} in the file and {_plain(parameter.dtype)} in {arch}: whole numbers "
                "are weights only with their scales",
                "give the file that they were quantised from",
            )
    return Built(fill(fit, state), arch, (*notes, *fit.notes))


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _harmless(args: Any) -> dict[str, Any]:
    """The plain numbers, flags and words among a file's arguments; nothing that names something to load."""
    if not isinstance(args, Mapping):
        return {}
    risky = ("pretrained", "weights", "checkpoint", "path", "cfg", "url", "cache", "hub")
    return {
        key: value
        for key, value in args.items()
        if isinstance(key, str)
        and isinstance(value, (bool, int, float, str))
        and not any(word in key for word in risky)
    }


def _does_not_fit(arch: str, fit: Fit) -> InputError:
    hint = "check --arch and --arch-args"
    if any(name.endswith((".zero_point", "_packed_params")) for name in fit.unexpected):
        hint = "the weights are quantised: give the file that they were quantised from"
    if fit.mismatched and not fit.missing and not fit.unexpected:
        hint = """the names agree, the sizes do not: check --arch-args, for example '{"num_classes": 10}'"""
    return InputError(f"the weights do not fit {arch}: {fit.describe()}", hint)


def _nothing_fits(state: dict[str, torch.Tensor], near: list[zoo.Candidate]) -> InputError:
    seen = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(state.items())[:4])
    message = f"no known architecture has these {len(state)} weights: {seen}, ..."
    if near:
        closest = min(near, key=lambda each: each.fit.wrong)
        if closest.fit.wrong <= max(3, len(state) // 3):
            message += f" Nearest is torchvision:{closest.name}, but {closest.fit.describe()}"
    hint = f"name the function that builds the model: --arch models.py:build (or {_FORMS})"
    if sizes := _linear_sizes(state):
        hint = f"if these are linear layers with ReLU between: --arch mlp:{sizes}; else {hint}"
    return InputError(message, hint)


def _linear_sizes(state: dict[str, torch.Tensor]) -> str:
    """ "64-300-10" where the weights are those of linear layers in a row; "" where they are not."""
    weights = [value for key, value in state.items() if key.endswith("weight")]
    rest = [value for key, value in state.items() if not key.endswith("weight")]
    if not weights or any(each.dim() != 2 for each in weights) or any(each.dim() != 1 for each in rest):
        return ""
    if any(a.shape[0] != b.shape[1] for a, b in pairwise(weights)):
        return ""
    return "-".join(str(n) for n in (weights[0].shape[1], *(each.shape[0] for each in weights)))
