"""The four sample models, pruned with the default method and measured; prints a Markdown table.

    python benchmarks/sample_models.py [--ratio 0.3 --ratio 0.5] [--method dependency] [--round-to 8]

Each row is ``compress prune MODEL --data digits --ratio R --round-to 8``, seed 0: the layers are refitted on 1,000
training images without their labels, nothing is trained. "not refitted" is the same run with ``--no-calibrate``.
Accuracy is of the 360 held-out images, one of which is 0.28 points. Speed is the ratio of median latencies in ONNX
Runtime at batch 1 on one thread, both networks taking turns (``compress measure --runtime onnxruntime``).
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

from compress.pipeline import measure_model, prune
from compress.progress import Silent
from compress.request import BudgetTarget, DataSource, MeasureRequest, ModelSource, PruneRequest, Settings
from compress.result import Pruned
from compress.wording import amount

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = {
    "digits_mlp.pt": None,
    "digits_resnet.safetensors": "residual_cnn",
    "digits_mobile.pt": "mobile_cnn",
    "digits_vit.pt2": None,
}
HEADER = (
    "| model | units removed | parameters | MACs | file | accuracy | not refitted | speed |",
    "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def source(name: str) -> ModelSource:
    """A sample model."""
    factory = MODELS[name]
    shapes = None if factory is None else ((1, 8, 8),)
    return ModelSource(
        SAMPLES / name, None if factory is None else f"{SAMPLES / 'architectures.py'}:{factory}", input_shapes=shapes
    )


def speed(name: str, bundle: Path) -> float:
    """How many times as fast the bundle is."""
    pair = MeasureRequest(source(name), ModelSource(bundle), runs=500, warmup=50, runtime="onnxruntime")
    ratio = measure_model(pair, Silent()).ratio
    assert ratio is not None
    return ratio


def run(name: str, ratio: float, method: str, calibrate: bool, folder: Path, round_to: int = 8) -> Pruned:
    """Prune one sample model into `folder`."""
    request = PruneRequest(
        model=source(name),
        output=folder / f"{Path(name).stem}_{ratio}",
        method=method,
        budget=BudgetTarget("ratio", ratio),
        calibrate=calibrate,
        round_to=round_to,
        data=DataSource("digits"),
        settings=Settings(seed=0, device="cpu"),
    )
    return prune(request, Silent())


def row(name: str, ratio: float, report: dict, plain: dict, faster: float) -> str:
    """One line of the table, from the report of a run and that of the same run without refit."""
    before, after = report["before"], report["after"]
    sizes = [f"{amount(before[key])} → {amount(after[key])}" for key in ("params", "macs")]
    files = " → ".join(amount(sum(side["files"].values()), "B") for side in (before, after))
    accuracy = " → ".join(f"{100 * side['accuracy']['accuracy']:.2f}" for side in (before, after))
    cells = [
        f"`{name}`",
        f"{100 * ratio:g} %",
        *sizes,
        files,
        f"{accuracy} %",
        f"{100 * plain['after']['accuracy']['accuracy']:.2f} %",
        f"{faster:.2f}x",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, action="append", help="fraction of the units to remove; repeatable")
    parser.add_argument("--method", default="dependency")
    parser.add_argument("--round-to", type=int, default=8, help="what widths are multiples of")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("\n".join(HEADER))
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for ratio in given.ratio or (0.3, 0.5):
                settings = (Path(folder), given.round_to)
                done = [run(name, ratio, given.method, refit, *settings) for refit in (False, True)]
                plain, refitted = (dict(each.report) for each in done)
                print(row(name, ratio, refitted, plain, speed(name, done[-1].bundle)), flush=True)


if __name__ == "__main__":
    main()
