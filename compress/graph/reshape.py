"""The label form of ``view``: the dims are split to a common refinement, then merged.

Splitting a dim into blocks makes two kinds of units out of one: whole blocks (heads, groups) and single indices
inside each block; an element of the original dim is removed as soon as its block or its index is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from compress.graph.labels import Factor, Labels, Relations, Value, squeeze_constant


def _prefix_products(shape: Sequence[int]) -> list[int]:
    products = [1]
    for n in shape:
        products.append(products[-1] * n)
    return products


def refinement(old: Sequence[int], new: Sequence[int]) -> list[int] | None:
    """Sizes of the coarsest shape that both shapes are merges of, dims of size 1 left out; None if there is none."""
    bounds = sorted(set(_prefix_products(old)) | set(_prefix_products(new)))
    if any(b % a for a, b in itertools.pairwise(bounds)):
        return None
    return [b // a for a, b in itertools.pairwise(bounds)]


def _parts(shape: Sequence[int], refined: Sequence[int]) -> list[list[int]]:
    """For each dim of ``shape`` the refined dims it consists of (none for a dim of size 1)."""
    parts: list[list[int]] = []
    position = 0
    for n in shape:
        part: list[int] = []
        size = 1
        while size < n:
            part.append(position)
            size *= refined[position]
            position += 1
        parts.append(part)
    return parts


def reshape(relations: Relations, x: Value, shape: Sequence[int]) -> Value:
    """Labels of ``x.view(shape)``."""
    shape = tuple(shape)
    if 0 in x.shape:
        relations.pin_all(x.factors, "a dimension of an empty tensor")
        return Value(shape)
    if not x.factors:
        return Value(shape)
    moved = _moved(x, shape)
    if moved is not None:
        return moved
    refined = refinement(x.shape, shape)
    if refined is None:
        relations.pin_all(x.factors, f"view from {list(x.shape)} to {list(shape)} cuts across blocks")
        return Value(shape)
    fine = _split(relations, x, _parts(x.shape, refined), refined)
    return _merge(relations, fine, _parts(shape, refined), shape)


def _moved(x: Value, shape: tuple[int, ...]) -> Value | None:
    """The value where only dims of size 1 come and go and no factor has blocks; None otherwise."""
    old, new = ([d for d, n in enumerate(sizes) if n > 1] for sizes in (x.shape, shape))
    if [x.shape[d] for d in old] != [shape[d] for d in new]:
        return None
    target = dict(zip(old, new, strict=True))
    factors = []
    for f in sorted(x.factors, key=lambda f: f.axis):
        flat = f.labels.reshape(-1)
        if f.axis not in target or len(flat) != x.shape[f.axis] or (flat == flat[0]).all():
            return None
        small = [1] * len(shape)
        small[target[f.axis]] = len(flat)
        factors.append(Factor(flat.reshape(small), target[f.axis]))
    return Value(shape, tuple(factors))


def _split(relations: Relations, x: Value, parts: list[list[int]], refined: list[int]) -> Value:
    factors: list[Factor] = []
    for axis, part in enumerate(parts):
        pieces = []
        for f in x.along(axis):
            shape = [1] * len(refined)
            for d, n in enumerate(f.labels.shape):
                if n > 1:
                    for p in parts[d]:
                        shape[p] = refined[p]
            pieces.append(squeeze_constant(f.labels.reshape(shape)))
        if not part:
            relations.pin_all(x.along(axis), "the only index of its dimension")
        else:
            factors += _split_axis(relations, pieces, part)
    return Value(tuple(refined), tuple(factors))


def _split_axis(relations: Relations, pieces: list[Labels], part: list[int]) -> list[Factor]:
    """Factors of one dim after its split into the dims ``part``."""
    supports = [tuple(p for p in part if labels.shape[p] > 1) for labels in pieces]
    # Labels that differ per block are fine when the blocks themselves already are units.
    new = [i for i, s in enumerate(supports) if len(s) > 1 and s[:-1] not in supports]
    if len(new) > 1:  # only the finest may make blocks of its own, the others would be blocks of blocks
        finest = max(new, key=lambda i: len(relations.distinct(pieces[i])))
        for i in new:
            if i != finest:
                relations.pin(pieces[i], "a view that cuts across earlier blocks")
        dropped = set(new) - {finest}
    else:
        dropped = set()
    out: list[Factor] = []
    for i, (labels, support) in enumerate(zip(pieces, supports, strict=True)):
        if i in dropped:
            continue
        if not support:
            relations.pin(labels, "one label for a whole dimension")
        elif i in new:
            out += _new_blocks(relations, labels, support)
        else:
            relations.balance(labels, support[-1])
            out.append(Factor(labels, support[-1]))
    return out


def _new_blocks(relations: Relations, labels: Labels, support: tuple[int, ...]) -> list[Factor]:
    """Units for every level of blocks, and for the indices inside the smallest blocks."""
    key = labels.tobytes() + bytes(str(labels.shape), "ascii")
    levels = relations.splits.get(key)
    if levels is None:
        levels = ()
        for depth, axis in enumerate(support, 1):
            shape = [1 if d in support[depth:] else n for d, n in enumerate(labels.shape)]
            level = relations.fresh(*shape)
            relations.balance(level, axis)
            if depth < len(support):
                relations.block_labels.append(level.ravel())
            levels += (level,)
        relations.define(labels, levels)
        relations.splits[key] = levels
    return [Factor(level, axis) for level, axis in zip(levels, support, strict=True)]


def _merge(relations: Relations, x: Value, parts: list[list[int]], shape: tuple[int, ...]) -> Value:
    owner = {p: axis for axis, part in enumerate(parts) for p in part}
    factors = []
    for f in x.factors:
        labels = f.labels
        for block in f.blocks():
            # A block axis behind the shrinking axis would interleave the survivors of different blocks.
            if owner[block] == owner[f.axis] and block > f.axis:
                labels = relations.align(labels, block)
        target = list(labels.shape)
        for part in parts:
            if any(labels.shape[p] > 1 for p in part):
                for p in part:
                    target[p] = x.shape[p]
        merged = [math.prod(target[p] for p in part) for part in parts]
        factors.append(Factor(np.broadcast_to(labels, target).reshape(merged), owner[f.axis]))
    return Value(shape, tuple(factors))
