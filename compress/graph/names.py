"""Names of tensors in a graph module, where PyTorch does not allow those of the user's module."""

from __future__ import annotations

import keyword

from torch import Tensor, fx, nn

# What a graph module has and a module has not: `meta`, `graph`, `code` and the like
_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph()))) - frozenset(dir(nn.Module()))


def graph_name(name: str) -> str:
    """What a tensor of a module is called in its graph: ``meta.0.weight`` is ``meta_.0.weight``, ``m.in.bias`` is
    ``m.in_.bias``, and nearly all names stay.

    A graph module has attributes of its own that no child can hide, and its forward is Python code, where no part of a
    name can be a keyword. Such a part gets an underscore more, also where it ends with some already, so that two names
    never become one.
    """
    first, *rest = name.split(".")
    return ".".join([_free(first, _TAKEN), *(_free(part) for part in rest)])


def graph_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module by what they are called in its graph, under all names of shared ones."""
    own = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    if isinstance(module, fx.GraphModule):
        return dict(own)
    return {graph_name(name): tensor for name, tensor in own}


def _free(part: str, taken: frozenset[str] = frozenset()) -> str:
    stem = part.rstrip("_")
    return f"{part}_" if stem in taken or part in taken or keyword.iskeyword(stem) else part
