"""Writes compress/checkpoint/torchvision_names.json: by what names the weights of every torchvision model go.

    python benchmarks/torchvision_index.py

To be run when torchvision has new models; it takes half a minute, and nothing is downloaded.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import torchvision
from torchvision import models

from compress.checkpoint.known import FILE, hash_of
from compress.checkpoint.zoo import build, searched


def rows() -> list[tuple[str, dict[str, Any], int, str]]:
    """(builder, options, number of names, their hash), in the order of the builders."""
    found = []
    for name in searched():
        known = inspect.signature(models.get_model_builder(name)).parameters
        variants: list[dict[str, Any]] = [{}]
        if "aux_loss" in known:
            variants.append({"aux_loss": True})
        if name in ("googlenet", "inception_v3"):
            variants.append({"aux_logits": False})
        found += [(name, args, *hash_of(build("torchvision", name, args).state_dict())) for args in variants]
    return found


def main() -> None:
    """Write the file, one builder per line."""
    lines = ",\n".join(f"  {json.dumps(list(row))}" for row in rows())
    version = torchvision.__version__.partition("+")[0]
    FILE.write_text(f'{{"torchvision": "{version}", "models": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
