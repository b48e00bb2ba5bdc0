"""The sample models under Torch-Pruning, for comparison with sample_models.py; needs `pip install torch-pruning`.

    python benchmarks/torch_pruning_compared.py

Its DepGraph pruner gets the module, an example input and the classifier to leave alone, and nothing else: no number of
heads, no unwrapped parameters, no training afterwards. One line per model and ratio, or the error it ended in.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path

import torch
from torch import nn

from compress.checkpoint.read import load_model
from compress.data import Data, load_data
from compress.evaluate import evaluate

SAMPLES = Path(__file__).parent.parent / "sample_models"
ARCHITECTURES = SAMPLES / "architectures.py"


def modules() -> dict[str, nn.Module]:
    """Three of the four networks as their own classes, and the exported one as it is in its file."""
    found = {}
    for file, factory in (("digits_resnet.safetensors", "residual_cnn"), ("digits_mobile.pt", "mobile_cnn")):
        arch = f"{ARCHITECTURES}:{factory}"
        found[file] = load_model(SAMPLES / file, arch=arch, input_shape=((1, 8, 8),)).module
    spec = importlib.util.spec_from_file_location("architectures", ARCHITECTURES)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(ARCHITECTURES)
    architectures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architectures)
    vit = architectures.vit()
    vit.load_state_dict(torch.export.load(SAMPLES / "digits_vit.pt2").state_dict)
    found["digits_vit (its class)"] = vit.eval()
    found["digits_vit.pt2"] = torch.export.load(SAMPLES / "digits_vit.pt2").module()
    return found


def result(module: nn.Module, ratio: float, data: Data) -> str:
    """Parameters and accuracy after pruning, or how it failed."""
    import torch_pruning

    small = copy.deepcopy(module)
    example = data.test.inputs[:2]
    try:
        pruner = torch_pruning.pruner.MetaPruner(
            small,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[small.head],
        )
        pruner.step()
        accuracy = evaluate(small, data.test, device=torch.device("cpu")).accuracy
    except Exception as error:  # whatever it raises is the result
        return f"{type(error).__name__}: {error}"
    return f"{sum(p.numel() for p in small.parameters()):,} parameters, accuracy {100 * accuracy:.2f} %"


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = load_data("digits")
    for name, module in modules().items():
        for ratio in (0.3, 0.5):
            print(f"{name}, {ratio}: {result(module, ratio, data)}")


if __name__ == "__main__":
    main()
