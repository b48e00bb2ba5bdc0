"""Layers, activations and dropouts that PyTorch lacks, made of operations that can be pruned and exported.

SELU and alpha dropout, which belong here too, are :class:`torch.nn.SELU` and :class:`torch.nn.AlphaDropout`.
"""

from compress.nn.activations import SERLU, serlu
from compress.nn.adjacency import FixedAdjacency, LearnedAdjacency, relationship_score
from compress.nn.dropout import ShiftDropout
from compress.nn.pools import ChannelOut, Maxout

__all__ = [
    "SERLU",
    "ChannelOut",
    "FixedAdjacency",
    "LearnedAdjacency",
    "Maxout",
    "ShiftDropout",
    "relationship_score",
    "serlu",
]
