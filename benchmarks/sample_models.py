"""The four sample models, pruned with the default method and measured; prints a Markdown table.

    python benchmarks/sample_models.py [--ratio 0.3 --ratio 0.5] [--method dependency] [--no-calibrate]

Each row is one run of ``compress prune MODEL --data digits --ratio R``: units removed by the weights of the network,
layers refitted on 1,000 training images without their labels, no training. Accuracy is of the 360 held-out images, one
of which is 0.28 points. Latency is that of batch 1 on one thread, both networks taking turns.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

from compress.pipeline import prune
from compress.progress import Silent
from compress.report.table import amount
from compress.request import BudgetTarget, DataSource, ModelSource, PruneRequest, Settings
from compress.result import Pruned

SAMPLES = Path(__file__).parent.parent / "sample_models"
MODELS = {
    "digits_mlp.pt": None,
    "digits_resnet.safetensors": "residual_cnn",
    "digits_mobile.pt": "mobile_cnn",
    "digits_vit.pt2": None,
}
HEADER = (
    "| model | units removed | parameters | MACs | file | accuracy | speed |",
    "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def run(name: str, ratio: float, method: str, calibrate: bool, folder: Path) -> Pruned:
    """Prune one sample model into `folder`."""
    factory = MODELS[name]
    request = PruneRequest(
        model=ModelSource(SAMPLES / name, None if factory is None else f"{SAMPLES / 'architectures.py'}:{factory}"),
        output=folder / f"{Path(name).stem}_{ratio}",
        method=method,
        budget=BudgetTarget("ratio", ratio),
        calibrate=calibrate,
        data=DataSource("digits"),
        settings=Settings(seed=0, device="cpu"),
    )
    return prune(request, Silent())


def row(name: str, ratio: float, report: dict) -> str:
    """One line of the table."""
    before, after = report["before"], report["after"]
    sizes = [f"{amount(before[key])} → {amount(after[key])}" for key in ("params", "macs")]
    files = " → ".join(amount(sum(side["files"].values()), "B") for side in (before, after))
    accuracy = " → ".join(f"{100 * side['accuracy']['accuracy']:.2f}" for side in (before, after))
    cells = [f"`{name}`", f"{ratio:.0%}", *sizes, files, f"{accuracy} %", f"{report['speedup']:.2f}x"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, action="append", help="fraction of the units to remove; repeatable")
    parser.add_argument("--method", default="dependency")
    parser.add_argument("--no-calibrate", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print("\n".join(HEADER))
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for ratio in given.ratio or (0.3, 0.5):
                result = run(name, ratio, given.method, not given.no_calibrate, Path(folder))
                print(row(name, ratio, dict(result.report)), flush=True)


if __name__ == "__main__":
    main()
