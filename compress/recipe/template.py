"""A recipe to start from."""

from __future__ import annotations

import json

_TEMPLATE = """\
# What `compress run` does. Paths are relative to the folder that it is run in. `compress run RECIPE.toml --dry-run`
# checks this file, --set prune.budget.value=0.3 changes a value for one run.
schema = "compress.recipe/1"
seed = 0

[model]
{path} # a checkpoint (.pt, .pth, .safetensors, .pt2, .onnx) or a bundle
{arch}
# arch_args = {{ num_classes = 10 }}
# input_shapes = [[3, 224, 224]]        # where the file does not say it, without the batch, one list per input

[data]
spec = "digits"                         # or npz:PATH, folder:PATH, torchvision:NAME, package.module:function
# mean = [0.5]                          # per channel, where the checkpoint does not say it
# std = [0.5]

[prune]
method = "dependency"                   # one of `compress methods`
budget = {{ kind = "ratio", value = 0.5 }}  # units that go; or what stays: macs, params, bytes ("5MB"), latency ("8ms")
# round_to = 8                          # widths are multiples of it; "auto": as the target likes them
# allocation = "block"                  # local: the same fraction of every layer; global, block: ranked together
# exclude = ["head", "blocks.0.*"]      # layers that stay whole
# ratio_of = {{ "layer1.*" = 0.25 }}      # layers with a share of their own
# refit = "joint"                       # layers refitted together with those before them: more accurate, slower

# [prune.options]                       # of the method: `compress methods NAME`
# p = 2.0

# With this table the smaller network is trained, with the original as its teacher; without it, it is refitted in closed
# form alone. A recipe with [finetune] and without [prune] trains a bundle or model as it is.
# [finetune]
# epochs = 20
# lr = 0.02
# batch_size = 64
"""


def template(path: str = "model.pt", arch: str | None = None) -> str:
    """A commented recipe: half of the units, refitted on the digits that come with the package.

    Args:
        path: Of the model.
        arch: Its architecture, where the file does not say it.
    """
    told = '# arch = "torchvision:resnet18"' if arch is None else f"arch = {json.dumps(arch)}"
    explained = "or timm:NAME, mlp:64-300-10, package.module:factory, file.py:factory"
    given = f"path = {json.dumps(path)}"
    return _TEMPLATE.format(path=given.ljust(39), arch=f"{told.ljust(39)} # {explained}")
