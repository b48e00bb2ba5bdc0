"""How good a network in training is on samples that are kept out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from compress.data import Split
from compress.evaluate import class_scores
from compress.recover.losses import summed_loss
from compress.training import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

_BATCH = 256  # samples at least, as no gradients are kept


def validate(model: nn.Module, data: Split, settings: Training, accelerator: Accelerator) -> tuple[float, float]:
    """Accuracy and mean loss, over all processes. All of them have to ask.

    Args:
        model: Gives class scores (N, classes); it is left in evaluation mode.
        data: Each process looks at its share.
        settings: Which loss, and how large batches are.
        accelerator: Where it is done, and with how many processes.
    """
    model.eval()
    device = accelerator.device
    found = torch.zeros(2, device=device)
    numbers = torch.arange(len(data))[accelerator.process_index :: accelerator.num_processes]
    with torch.no_grad():
        for part in numbers.split(max(settings.batch_size, _BATCH)):
            inputs, targets = data.inputs[part].to(device), data.targets[part].to(device)
            scores = class_scores(model(inputs), len(inputs)).float()
            found[0] += (scores.argmax(1) == targets).sum()
            found[1] += summed_loss(scores, targets, settings.loss)
    right, loss = accelerator.reduce(found, "sum").tolist()
    return right / len(data), loss / len(data)
