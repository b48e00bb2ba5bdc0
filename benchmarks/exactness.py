"""How exact the engine is, and how fast, on real architectures.

Every model loses the given fraction of every family of units (whole heads and groups included, at least one
step of each), chosen at random, and the slice is compared with the masked original in float64.

    python benchmarks/exactness.py [--only NAME ...] [--ratio 0.3] [--threads 1]

Prints one line per model and exits with status 1 if any is not exact to 1e-9. Nothing is downloaded: the
torchvision models have random weights, and their normalisation parameters, biases and constant tensors are
drawn at random as well, because zero-initialised heads and tiny layer scales would hide mistakes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.budget import at_steps
from compress.errors import CompressError
from compress.graph import (
    Coupling,
    analyse,
    clusters,
    macs,
    parameters,
    slice_graph,
    slice_module,
    trace,
    verify,
)
from compress.graph.trace import plain

SAMPLES = Path(__file__).resolve().parents[1] / "sample_models"

# Smallest square images that every stage can still process.
TORCHVISION = {
    "resnet18": 64,
    "resnet50": 64,
    "vgg16_bn": 64,
    "densenet121": 64,
    "mobilenet_v3_large": 64,
    "shufflenet_v2_x1_0": 64,
    "googlenet": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
    "efficientnet_b0": 64,
    "vit_b_16": 224,
    "swin_t": 64,
    "maxvit_t": 224,
    "deeplabv3_resnet50": 64,
}


@dataclass(frozen=True)
class Case:
    """A model to measure: how to build it, and the shape of one input without the batch."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What was measured of one model; seconds by stage."""

    name: str
    passed: bool
    error: float
    problem: str
    groups: int
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: dict[str, float]
    in_place: str
    unruled: tuple[str, ...]


def _architectures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_architectures", SAMPLES / "architectures.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(SAMPLES / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _digits_mlp() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    module = nn.Sequential(*layers)
    module.load_state_dict(torch.load(SAMPLES / "digits_mlp.pt", weights_only=True)["state_dict"])
    return module


def _digits_resnet() -> nn.Module:
    from safetensors.torch import load_file

    module: nn.Module = _architectures().residual_cnn()
    module.load_state_dict(load_file(SAMPLES / "digits_resnet.safetensors"))
    return module


def _digits_mobile() -> nn.Module:
    module: nn.Module = _architectures().mobile_cnn()
    module.load_state_dict(torch.load(SAMPLES / "digits_mobile.pt", weights_only=True))
    return module


def _digits_vit() -> nn.Module:
    return plain(torch.export.load(SAMPLES / "digits_vit.pt2").module(check_guards=False))


def _torchvision(name: str) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {"weights_backbone": None} if name.startswith("deeplab") else {}
    options |= {"init_weights": False} if name == "googlenet" else {}
    module: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    randomise(module)
    return module


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Draw the tensors that initialisation makes constant: norms, biases, statistics, layer scales."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if not tensor.is_floating_point():
                continue
            vector = tensor.squeeze().dim() <= 1  # layer scales have shape (C, 1, 1)
            if vector:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.numel() > 1 and float(tensor.std()) == 0:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


def cases() -> list[Case]:
    samples = [
        Case("digits_mlp", _digits_mlp, (64,)),
        Case("digits_resnet", _digits_resnet, (1, 8, 8)),
        Case("digits_mobile", _digits_mobile, (1, 8, 8)),
        Case("digits_vit", _digits_vit, (1, 8, 8)),
    ]
    zoo = [Case(n, lambda n=n: _torchvision(n), (3, size, size)) for n, size in TORCHVISION.items()]  # type: ignore[misc]
    return samples + zoo


def remove(coupling: Coupling, ratio: float, seed: int = 0) -> NDArray[np.bool_]:
    """By label, what stays when every family loses ``ratio`` of its units at random, at least one step."""
    rng = np.random.default_rng(seed)
    found = [c for c in clusters(coupling) if c.steps > 1]
    scores = {g.name: rng.random(g.size) for g in coupling.groups}
    steps = [min(c.steps - 1, max(1, round(ratio * c.steps))) for c in found]
    return coupling.alive(at_steps(coupling, found, scores, steps))


def measure(case: Case, ratio: float) -> Row:
    """Trace, analyse, slice and verify one model."""
    torch.manual_seed(0)
    module = case.build().eval()
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage], clock = now - clock, now

    program = trace(module, (torch.randn(2, *case.shape),))
    lap("trace")
    coupling = analyse(program)
    lap("couple")
    alive = remove(coupling, ratio)
    lap("choose")
    sliced = slice_graph(coupling, alive)
    lap("slice")
    outcome = verify(coupling, alive, sliced)
    lap("verify")
    in_place = slice_module(module, coupling, alive, sliced)
    return Row(
        case.name,
        outcome.passed,
        outcome.error,
        outcome.problem,
        len(coupling.groups),
        (parameters(coupling), parameters(coupling, alive)),
        (macs(coupling), macs(coupling, alive)),
        seconds,
        in_place.problem,
        tuple(coupling.flow.unruled),
    )


def _ratio(before_after: tuple[int, int]) -> str:
    before, after = before_after
    return f"{before / 1e6:8.2f}M x{after / before:.2f}"


def _line(row: Row) -> str:
    times = " ".join(f"{row.seconds[s]:6.2f}" for s in ("trace", "couple", "slice", "verify"))
    in_place = f"no: {row.in_place}" if row.in_place else "yes"
    unruled = f" | no rule: {', '.join(row.unruled)}" if row.unruled else ""
    problem = f" | {row.problem}" if row.problem else ""
    status = "ok" if row.passed else "BAD"
    return (
        f"{row.name:20} {status:4} {row.error:7.1e} {row.groups:6} "
        f"{_ratio(row.parameters)} {_ratio(row.macs)} {times} | {in_place}{unruled}{problem}"
    )


_HEAD = (
    f"{'model':20} {'':4} {'error':>7} {'groups':>6} {'parameters':>15} {'MACs':>15} "
    f"{'trace':>6} {'couple':>6} {'slice':>6} {'verify':>6} | in-place module"
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exactness and speed of the engine on real architectures.")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="one model; may be repeated"
    )
    parser.add_argument("--ratio", type=float, default=0.3, help="fraction of every family to remove")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor")
    arguments = parser.parse_args()
    names = [c.name for c in cases()]
    for name in arguments.only:
        if name not in names:
            parser.error(f"no model {name}; there are {', '.join(names)}")
    if not 0 < arguments.ratio < 1:
        parser.error(f"--ratio must lie between 0 and 1, got {arguments.ratio:g}")
    return arguments


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    chosen = [c for c in cases() if not arguments.only or c.name in arguments.only]
    print(_HEAD)
    rows, failed = [], []
    for case in chosen:
        try:
            row = measure(case, arguments.ratio)
        except (CompressError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            print(f"{case.name:20} BAD  {type(error).__name__}: {reason}")
            failed.append(case.name)
            continue
        rows.append(row)
        print(_line(row), flush=True)
        if not row.passed:
            failed.append(case.name)
    totals = {s: sum(r.seconds[s] for r in rows) for s in ("trace", "couple", "slice", "verify")}
    worst = max((r.error for r in rows), default=float("nan"))
    print(
        f"{len(chosen) - len(failed)} of {len(chosen)} exact, worst error {worst:.1e}; "
        f"in place {sum(not r.in_place for r in rows)}; seconds "
        + ", ".join(f"{stage} {total:.1f}" for stage, total in totals.items())
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
