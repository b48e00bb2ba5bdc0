"""Recurrent layers, whose weights are taken apart and put into PyTorch's order of gates before they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.onnx.registry import Node, Untranslatable, operator

OWN = "compress.recurrent"  # own operators: x, states, then weight_ih, weight_hh, bias_ih, bias_hh of each direction
_USUAL = {
    "LSTM": (["sigmoid", "tanh", "tanh"], 2),
    "GRU": (["sigmoid", "tanh"], 1),
    "RNN": (["tanh"], 1),
}
# Rows of ONNX's gates in the order of PyTorch: i o f c to i f c o, and z r h to r z h
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


@operator("LSTM", "GRU", "RNN", domain=OWN)
def recurrent(node: Node, operands: list[Any]) -> tuple[Tensor, ...]:
    """(T, N, I) to (T, directions, N, H) and the last states (directions, N, H)."""
    states = _USUAL[node.kind][1]
    x, given, parameters = operands[0], operands[1 : 1 + states], operands[1 + states :]
    two = node.get("direction", "forward") == "bidirectional"
    each = len(parameters) // (2 if two else 1)
    hidden = parameters[1].shape[1]
    start = [h if h is not None else x.new_zeros(2 if two else 1, x.shape[1], hidden) for h in given]
    reverse = node.get("direction", "forward") == "reverse"
    run: Any = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[node.kind]
    if _activations(node)[:1] == ["relu"]:
        run = torch.rnn_relu
    seen = x.flip(0) if reverse else x
    hx = start if node.kind == "LSTM" else start[0]
    out, *last = run(seen, hx, parameters, each == 4, 1, 0.0, False, two, False)
    out = out.flip(0) if reverse else out
    sides = out.unsqueeze(1) if not two else out.reshape(*out.shape[:2], 2, hidden).permute(0, 2, 1, 3)
    return (sides, *last)


def check(node: Node) -> None:
    """See that PyTorch has this recurrent layer.

    Raises:
        Untranslatable: It does not.
    """
    usual = _USUAL[node.kind][0]
    sides = 2 if node.get("direction", "forward") == "bidirectional" else 1
    found = _activations(node)
    if found not in ([], usual * sides) and not (node.kind == "RNN" and found == ["relu"] * sides):
        raise Untranslatable(f"its activations are {', '.join(found)}")
    if node.kind == "GRU" and not node.get("linear_before_reset", 0):
        raise Untranslatable("it resets before the linear layer (linear_before_reset=0)")
    for name in ("clip", "input_forget", "layout"):
        if node.get(name):
            raise Untranslatable(f"its {name} is {node.get(name)}")
    if any(node.inputs[4:5]) or any(node.inputs[7:8]):
        raise Untranslatable("it has lengths of sequences, or peepholes")


def _activations(node: Node) -> list[str]:
    return [each.lower() for each in node.get("activations") or []]


@operator("LSTM", "GRU", "RNN")
def foreign(node: Node, operands: list[Any]) -> Tensor:
    """What was not rewritten: its weights are computed, or PyTorch has no such layer."""
    check(node)
    raise Untranslatable("its weights are no constants")
