"""Which clusters a method may shrink, by the globs that a user gives."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Sequence

from torch import fx

from compress.errors import InputError, ModelError
from compress.graph import Cluster, Coupling, attribute, clusters, layer_weights, thawed


def prunable(
    coupling: Coupling, found: Sequence[Cluster], only: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Cluster, ...]:
    """Clusters that a method may shrink: matched by the globs, of more than one step, and one choice per index.

    Where whole blocks (heads) and the indices inside them (features of a head) could both go, the indices go;
    blocks are used where single indices cannot.

    Raises:
        InputError: A glob matches no layer.
        ModelError: Nothing is left to prune; or a glob of ``only`` matches nothing but frozen layers.
    """
    _check_globs(coupling, only, exclude)
    chosen = _allowed(coupling, found, only, exclude)
    fine = {g for c in chosen for g in c.groups if coupling.group(g).kind != "blocks"}
    result = tuple(c for c in chosen if not any(_covered(coupling, g, fine) for g in c.groups))
    if not result:
        _refuse_frozen(coupling, only, exclude)
        raise ModelError(
            "nothing to prune: no group of units may lose one",
            "`compress inspect` lists the groups and what holds each layer; check --only and --exclude",
        )
    return result


def _covered(coupling: Coupling, group: str, fine: set[str]) -> bool:
    return coupling.group(group).kind == "blocks" and bool(coupling.overlaps.get(group, frozenset()) & fine)


def _layers(coupling: Coupling, group: str) -> list[str]:
    """Names under which a group may be called: its own, and the layers whose outputs it holds."""
    return [group, *coupling.layers_of(group)]


def _allowed(
    coupling: Coupling, found: Sequence[Cluster], only: Sequence[str], exclude: Sequence[str]
) -> list[Cluster]:
    """Clusters of more than one step that the globs let through."""

    def allowed(cluster: Cluster) -> bool:
        return matched([n for g in cluster.groups for n in _layers(coupling, g)], only, exclude)

    return [c for c in found if c.steps > 1 and allowed(c)]


def in_scope(coupling: Coupling, group: str, only: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the globs let a group through."""
    return matched(_layers(coupling, group), only, exclude)


def matched(names: Sequence[str], only: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether one of the names of a thing is among ``only``, if anything is, and none among ``exclude``."""
    return (not only or _hit(names, only)) and not _hit(names, exclude)


def _hit(names: Sequence[str], globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def _check_globs(coupling: Coupling, only: Sequence[str], exclude: Sequence[str]) -> None:
    if not only and not exclude:
        return
    names = {n for g in coupling.groups for n in _layers(coupling, g.name)}
    strange = [glob for glob in (*only, *exclude) if not _hit([*names], [glob])]
    if not strange:
        return
    free = thawed(coupling)
    names |= {n for g in free.groups for n in _layers(free, g.name)}
    for glob in strange:
        if glob not in only and _hit(_whole(coupling), [glob]):
            continue
        if not _hit([*names], [glob]):
            raise _no_layer(glob, names)
        if glob in only:
            _refuse_frozen(coupling, [glob])


def _whole(coupling: Coupling) -> list[str]:
    """Layers that may be left whole; some, such as a classifier, keep their outputs anyway."""
    return [name.rpartition(".")[0] for name in layer_weights(coupling)]


def _no_layer(glob: str, names: Collection[str]) -> InputError:
    known = sorted(names)
    near = difflib.get_close_matches(glob, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"layers are named like {', '.join(known[:3])}"
    return InputError(f"no prunable layer matches '{glob}'", hint)


def fractions(
    coupling: Coupling, found: Sequence[Cluster], ratio_of: Sequence[tuple[str, float]]
) -> list[float | None]:
    """By cluster the fraction of its units that is to go; None where no glob matches it. The last that matches holds.

    Raises:
        InputError: A glob matches none of the layers that may shrink.
    """
    names = [[n for g in cluster.groups for n in _layers(coupling, g)] for cluster in found]
    for glob, fraction in ratio_of:
        if fraction == 0 and _hit(_whole(coupling), [glob]):
            continue
        if not any(_hit(each, [glob]) for each in names):
            raise _no_layer(glob, {n for each in names for n in each})
    return [next((f for glob, f in reversed(ratio_of) if _hit(each, [glob])), None) for each in names]


def _refuse_frozen(coupling: Coupling, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
    """Say so where the globs reach something to prune that only frozen parameters hold."""
    free = thawed(coupling)
    held = {g for c in _allowed(free, clusters(free), only, exclude) for g in c.groups}
    tensors = {m.tensor for g in held for m in free.group(g).members} & coupling.flow.untrained
    if not tensors:
        return
    module = coupling.program.module
    everything = not only and not exclude and not any(p.requires_grad for p in module.parameters())
    names = [n for n, _ in module.named_parameters(remove_duplicate=False) if n in tensors]
    raise ModelError(
        f"nothing to prune: every parameter of {'the model' if everything else _listed(module, names)} is frozen",
        "unfreeze it, or say --allow-frozen",
    )


def _listed(module: fx.GraphModule, names: Sequence[str]) -> str:
    """The layers that the frozen parameters belong to; the parameter alone where its layer is not wholly frozen."""
    places = []
    for name in names:
        layer = name.rpartition(".")[0]
        whole = layer and not any(p.requires_grad for p in attribute(module, layer).parameters())
        places.append(layer if whole else name)
    places = list(dict.fromkeys(places))
    return ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
