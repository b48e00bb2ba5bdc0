"""Table 1 of Lee, "Differentiable Sparsification for Deep Neural Networks" (2019), on a small network and few images.

    python benchmarks/papers/ds_channels.py --data npz:cifar10.npz [--depth 10] [--growth 8] [--epochs 10]
                                            [--samples 1000] [--test 2000] [--seeds 3] [--results docs/results]

Networks are trained from nothing, batch norms at 0.5, in three ways with the same number of epochs: slimming (NS), half
of them before its cut; differentiable sparsification (DS) with the norm on all channels, as in the paper; and with the
norm on those alone that are to go, as this project has it by default. Writes ds_channels.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from ds_networks import DenseNet
from pages import Bound, bounds, cell, table, write
from torch import fx, nn

from compress.budget import Budget
from compress.data import Split, load_data
from compress.evaluate import evaluate
from compress.figures import Figure, Series
from compress.graph import Coupling, analyse, macs, parameters, remove_dead, slice_verified, trace
from compress.plugin import Context
from compress.recover import InSession, finetune
from compress.retrain import Retrain, folded, plan_of, start_session
from compress.training import Training
from compress_plugins.diffsparse import DiffSparse
from compress_plugins.slim import Slim
from compress_plugins.sparse import Sparse

SHARES = (0.7, 0.8)  # of the channels
# By model and share: error in percent, parameters and multiply-accumulates, as printed (its FLOPs are two for each)
PRINTED = {
    ("base", 0.0): ("5.44 ± 0.11", "0.76 M", "290 M"),
    ("NS", 0.7): ("6.53 ± 0.19", "0.29 M", "95 M"),
    ("NS", 0.8): ("8.39 ± 0.28", "0.20 M", "70 M"),
    ("DS", 0.7): ("5.77 ± 0.09", "0.27 M", "90 M"),
    ("DS", 0.8): ("6.64 ± 0.11", "0.17 M", "65 M"),
}
METHODS: dict[str, Retrain] = {
    "NS": Slim(lam=1e-3),
    "DS": DiffSparse(press="all"),
    "DS, on what goes": DiffSparse(press="chosen"),
}


@dataclass(frozen=True)
class Outcome:
    """Of one run: error in percent, shares that are left, and the share of what went that was exactly zero."""

    error: float
    parameters: float
    macs: float
    gone: float
    exact: float


Found = dict[tuple[str, float], list[Outcome]]


def main() -> None:
    """Trains every way with every seed, and writes the page."""
    given = arguments()
    torch.set_num_threads(given.threads)
    data = load_data(given.data)
    if data.train is None:
        raise SystemExit(f"{given.data} has no training part")
    train = Split(data.train.inputs[: given.samples], data.train.targets[: given.samples])
    test = Split(data.test.inputs[: given.test], data.test.targets[: given.test])
    found: Found = {}
    for seed in range(given.seeds):
        for name, share in [("base", 0.0), *((name, share) for share in SHARES for name in METHODS)]:
            done = outcome(given, METHODS.get(name), share, train, test, data.classes, seed)
            found.setdefault((name, share), []).append(done)
            print(f"seed {seed}, {name} {share:.0%}: {done}", flush=True)
    write(given.results, "ds_channels", page(found, given), [figure(found)])


def arguments() -> argparse.Namespace:
    """Of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True, help="as for compress: npz:PATH")
    made.add_argument("--depth", type=int, default=10, help="of the DenseNet-BC, 6 n + 4; the paper has 100")
    made.add_argument("--growth", type=int, default=8, help="the paper has 12")
    made.add_argument("--epochs", type=int, default=10, help="the paper has 320")
    made.add_argument("--samples", type=int, default=1000, help="training samples, the first so many")
    made.add_argument("--test", type=int, default=2000, help="test samples, the first so many")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--lr", type=float, default=0.1)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=Path("docs/results"))
    return made.parse_args()


def network(depth: int, growth: int, classes: int) -> nn.Module:
    """Untrained, with the scales of batch norms at 0.5."""
    made = DenseNet(depth, growth, classes)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
    return made.eval()


def outcome(
    given: argparse.Namespace, method: Retrain | None, share: float, train: Split, test: Split, classes: int, seed: int
) -> Outcome:
    """One training; the last epoch counts, as in the paper."""
    torch.manual_seed(seed)
    coupling = analyse(trace(network(given.depth, given.growth, classes), (train.inputs[:2],)))
    settings = Training(
        epochs=given.epochs, lr=given.lr, batch_size=given.batch_size, nesterov=False, warmup=0.0, patience=0,
        distill="none", augment="flip", clip_norm=0,
    )  # fmt: skip
    if method is None:
        trained = finetune(coupling.program.module, train, settings, seed=seed)
        return Outcome(error(trained.module, test), 1.0, 1.0, 0.0, 0.0)
    context = Context(coupling, Budget("ratio", share), seed=seed)
    session = start_session(method, context)
    assert isinstance(session, Sparse)
    trained = finetune(session.network, train, settings, seed=seed, hooks=[InSession(session)])
    after = analyse(folded(session, trained.module, coupling.program))
    return sliced(session, after, coupling, test)


def sliced(session: Sparse, after: Coupling, before: Coupling, test: Split) -> Outcome:
    """What is left of the trained network, and how much of what went was exactly zero."""
    plan = plan_of(session, Context(after, session.context.budget))
    if plan.masks:
        found = remove_dead(after, plan.masks)
        module, alive = found.module, after.alive(found.removed)
    else:
        done = slice_verified(after, plan.removed)
        module, alive = done.module, done.alive
    units = sum(len(u) for u in after.removed(alive).values())
    closed = sum(len(u) for u in (session.closed or {}).values())
    return Outcome(
        error(module, test),
        parameters(after, alive) / parameters(before),
        macs(after, alive) / macs(before),
        units / sum(group.size for group in before.groups),
        sum(session.exact.values()) / max(1, closed),
    )


def error(module: fx.GraphModule, test: Split) -> float:
    """In percent."""
    return 100 * (1 - evaluate(module, test).accuracy)


def page(found: Found, given: argparse.Namespace) -> Iterator[str]:
    """What was run, the table, and what of the paper's claim is seen."""
    yield "# Channels by differentiable sparsification: Table 1 of the paper\n"
    yield (
        f"Written by `python benchmarks/papers/ds_channels.py` with a DenseNet-BC-{given.depth}-{given.growth}, "
        f"{given.samples:,} training and {given.test:,} test images, {given.epochs} epochs, batches of "
        f"{given.batch_size}, learning rate {given.lr:g}, {given.seeds} seeds (mean ± deviation). The paper has a "
        "DenseNet-BC-100-12, all 50,000 images of CIFAR-10 and 320 epochs: this is a **short run of a small network**, "
        "which shows the mechanism; its errors say nothing about those of the paper.\n"
    )
    yield "Parameters and MACs are the paper's counts, and the share that is left here. *Exact*: of the channels that"
    yield "went, those that were zero before they were closed by rank. Channels of a concatenation count once here, and"
    yield "once for every batch norm in the paper. NS has lambda 0.001, that of DS is steered. Differences smaller than"
    yield "the deviations say nothing.\n"
    rows = []
    for (name, share), runs in found.items():
        printed = PRINTED.get((name, share), ("", "", ""))
        columns = [[getattr(run, key) for run in runs] for key in ("error", "gone", "parameters", "macs", "exact")]
        errors, *shares = columns
        left = [f"{100 * mean(each):.1f} %" for each in shares]
        rows.append((name if not share else f"{name} {share:.0%}", *printed, cell(errors, 2), *left))
    head = (
        "model",
        "paper: error %",
        "paper: parameters",
        "paper: MACs",
        "error %",
        "channels gone",
        "parameters left",
    )
    yield from table((*head, "MACs left", "exact"), rows)
    yield "\n![Error by channels](ds-channels.svg)\n"
    yield from bounds(claims(found))


def claims(found: Found) -> Iterator[Bound]:
    """The paper's ordering, and that shares are met."""
    for share in SHARES:
        ns, ds, chosen = (mean(run.error for run in found[name, share]) for name in METHODS)
        yield Bound(f"{share:.0%} gone: DS has a smaller error than NS", f"{ds:.2f} and {ns:.2f}", ds < ns)
        claim = f"{share:.0%} gone: DS on what goes has a smaller error than NS"
        yield Bound(claim, f"{chosen:.2f} and {ns:.2f}", chosen < ns)
        gone = [run.gone for name in METHODS for run in found[name, share]]
        within = all(share - 1e-9 <= each <= share + 0.02 for each in gone)
        yield Bound(f"{share:.0%} of the channels are met within 2 %", f"{min(gone):.3f} to {max(gone):.3f}", within)


def figure(found: Found) -> Figure:
    """Errors by the share of channels that went."""
    series = []
    for name in METHODS:
        errors = [mean(run.error for run in found[name, share]) for share in SHARES]
        series.append(Series(name, [100 * share for share in SHARES], errors))
    base = mean(run.error for run in found["base", 0.0])
    whole = Series("whole network", [100 * share for share in SHARES], [base] * len(SHARES))
    return Figure("ds-channels", "Error by channels that went", "channels gone, %", "test error, %", (*series, whole))


if __name__ == "__main__":
    main()
