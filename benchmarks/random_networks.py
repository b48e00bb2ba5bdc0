"""How exact the engine is on networks that nobody thought of.

Draws networks from the constructs in tests/graph/generator. Each is traced, and the graph compared with the module;
every family of units loses a random share; the slice is compared with the masked original in float64, and with itself
on another batch. Every fifth network may lose outputs as well.

    python benchmarks/random_networks.py [--count 2000] [--seed 0] [--ratio 0.3] [--threads 1]
    python benchmarks/random_networks.py --each           every construct alone: what of it can be pruned, and why not

Prints one line per failure with the command that repeats it, then totals. Exits with status 1 if any network is not
exact to 1e-9, cannot be traced, or breaks the engine.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compress.budget import at_steps  # noqa: E402
from compress.graph import (  # noqa: E402
    TOLERANCE,
    Coupling,
    Program,
    analyse,
    clusters,
    slice_graph,
    slice_module,
    trace,
    verify,
)
from compress.graph.double import as_double, double_by_default, leaves  # noqa: E402
from compress.graph.freedom import Freedom, freedom  # noqa: E402
from compress.graph.verify import compare  # noqa: E402
from tests.graph.generator import CONSTRUCTS, Network, draw_network  # noqa: E402

RATIOS = (0.2, 0.3, 0.5, 0.9)
# Share of networks in which nothing may be prunable: those whose only layers meet an operation that has to pin.
MOST_STUCK = 0.02
NOTHING = Freedom(0, ())


@dataclass(frozen=True)
class Outcome:
    """One network.

    Attributes:
        error: Largest relative error in float64; NaN if it could not be compared.
        problem: What went wrong, "" if nothing did.
        free: What may be pruned.
        unruled: Operations without a rule.
        in_place: Why the user's own module could not be sliced, "" if it could.
        any_batch: Whether the slice takes any batch.
    """

    seed: int
    recipe: tuple[str, ...]
    error: float = float("nan")
    problem: str = ""
    free: Freedom = NOTHING
    unruled: tuple[str, ...] = ()
    in_place: str = ""
    any_batch: bool = False

    @property
    def share(self) -> float:
        return self.free.share


def repeated(network: Network, sliced: fx.GraphModule) -> float:
    """Largest relative difference between a batch of three and the same samples in the batch of the trace."""
    double = as_double(sliced)
    small, large = ([x.double() if x.is_floating_point() else x for x in network.more(n)] for n in (2, 3))
    with torch.no_grad(), double_by_default():
        pairs = list(zip(leaves(double(*small)), leaves(double(*large)), strict=True))
    expected = [torch.cat([a, a[:1]]) for a, _ in pairs]
    return compare(expected, [b for _, b in pairs], TOLERANCE).error


def unfaithful(network: Network, program: Program) -> bool:
    """Whether the traced graph computes something else than the module."""
    with torch.no_grad():
        expected = leaves(network.module(*(x.clone() for x in network.inputs)))
        got = leaves(program.module(*(x.clone() for x in network.inputs)))
    return not all(torch.allclose(a, b, 1e-3, 1e-4) for a, b in zip(expected, got, strict=True))


def chosen(coupling: Coupling, ratio: float | None, seed: int) -> NDArray[np.bool_]:
    """By label what stays: every family loses ``ratio``, or a share of its own, of its units at random."""
    rng = np.random.default_rng(seed)
    found = [c for c in clusters(coupling) if c.steps > 1]
    shares = rng.choice(RATIOS, len(found)) if ratio is None else [ratio] * len(found)
    scores = {g.name: rng.random(g.size) for g in coupling.groups}
    steps = [min(c.steps - 1, max(1, round(r * c.steps))) for c, r in zip(found, shares, strict=True)]
    return coupling.alive(at_steps(coupling, found, scores, steps))


def judge(seed: int, network: Network, ratio: float | None) -> Outcome:
    """Trace, analyse, slice and verify; whatever is raised becomes the problem."""
    try:
        program = trace(network.module, network.inputs)
        if unfaithful(network, program):
            return Outcome(seed, network.recipe, problem="the traced graph is not the module")
        coupling = analyse(program, prune_outputs=seed % 5 == 0)
        alive = chosen(coupling, ratio, seed)
        sliced = slice_graph(coupling, alive)
        checked = verify(coupling, alive, sliced)
        problem = "" if checked.passed else checked.problem or f"differs by {checked.error:.1e}"
        again = repeated(network, sliced) if program.dynamic_batch and not problem else 0.0
        if again > TOLERANCE:
            problem = f"differs by {again:.1e} in another batch"
        in_place = slice_module(network.module, coupling, alive, sliced).problem
        free = freedom(coupling)
    except Exception as error:  # a defect of the engine, whatever it is: that is what this looks for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = (str(error).splitlines() or [""])[0][:160]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome(seed, network.recipe, problem=f"crash: {type(error).__name__}: {reason} ({where})")
    unruled = tuple(coupling.flow.unruled)
    worst = max(checked.error, again)
    return Outcome(seed, network.recipe, worst, problem, free, unruled, in_place, program.dynamic_batch)


def outcomes(arguments: argparse.Namespace) -> Iterator[Outcome]:
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        yield judge(seed, draw_network(seed, arguments.size, arguments.only), arguments.ratio)


def line(outcome: Outcome, arguments: argparse.Namespace) -> str:
    more = "".join(
        f" --{n} {v}" for n, v in vars(arguments).items() if n in ("ratio", "size", "only") and v is not None
    )
    command = f"--seed {outcome.seed} --count 1{more}"
    return f"{command} | {outcome.problem} | {' > '.join(outcome.recipe)}"


def each(arguments: argparse.Namespace) -> int:
    """Every construct alone between layers that could shrink: prunable share, failures, reasons."""
    failed = 0
    for name in CONSTRUCTS:
        arguments.only, arguments.size = name, 1
        found = [o for o in outcomes(arguments) if name in o.recipe]
        bad = [o for o in found if o.problem]
        failed += len(bad)
        everything = max(sum(o.free.total for o in found), 1)
        reasons: Counter[str] = Counter()
        for held in (h for o in found for h in o.free.held):
            reasons[f"{held.op}: {held.reason}"] += held.indices
        told = ", ".join(f"{why} {n / everything:.0%}" for why, n in reasons.most_common(3) if n > 0.03 * everything)
        share = sum(o.free.prunable for o in found) / everything
        print(f"{name:30} {len(found):3} networks  prunable {share:4.0%}  {told}", flush=True)
        for outcome in bad[:3]:
            print("    FAILED", line(outcome, arguments), flush=True)
    return 1 if failed else 0


def total(found: list[Outcome], seconds: float) -> None:
    crashes = sum(o.problem.startswith("crash") for o in found)
    bad = sum(bool(o.problem) for o in found) - crashes
    exact = [o.error for o in found if not o.problem]
    shares = np.array([o.share for o in found if o.free.total])
    unruled = Counter(op for o in found for op in o.unruled)
    in_place = Counter(o.in_place for o in found if not o.problem)
    drawn = {name for o in found for name in o.recipe}
    print(
        f"{len(found)} networks of {len(drawn & set(CONSTRUCTS))} constructs: {bad} mismatches, {crashes} crashes, "
        f"worst error {max(exact, default=float('nan')):.1e}, {seconds:.0f} seconds"
    )
    print(f"any batch: {sum(o.any_batch for o in found)}; the module sliced in place as well: {in_place['']}")
    if len(shares):
        print(
            f"prunable share of channel indices: median {np.median(shares):.0%}, "
            f"lowest tenth {np.quantile(shares, 0.1):.0%}; nothing prunable: {(shares == 0).sum()} networks"
        )
    print("no rule:", ", ".join(f"{op} ({n})" for op, n in unruled.most_common()) or "none")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exactness of the engine on random networks.")
    parser.add_argument("--count", type=int, default=2000, help="number of networks (with --each: of each construct)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first network")
    parser.add_argument("--ratio", type=float, help="share of units to remove; drawn by family when absent")
    parser.add_argument("--size", type=int, help="constructs in each network; drawn when absent")
    parser.add_argument("--only", choices=sorted(CONSTRUCTS), metavar="NAME", help="only this construct")
    parser.add_argument("--each", action="store_true", help="every construct alone")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    if arguments.each:
        return each(arguments)
    start = time.perf_counter()
    found = []
    for outcome in outcomes(arguments):
        found.append(outcome)
        if outcome.problem:
            print("FAILED", line(outcome, arguments), flush=True)
    total(found, time.perf_counter() - start)
    stuck = sum(o.share == 0 for o in found)
    return 1 if any(o.problem for o in found) or stuck > MOST_STUCK * len(found) + 1 else 0


if __name__ == "__main__":
    sys.exit(main())
