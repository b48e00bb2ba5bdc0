"""Time and memory of the engine beside Torch-Pruning's, model by model.

    pip install torch-pruning
    python benchmarks/engine.py [--only NAME ...] [--repeat 1] [--timeout 600] [--jsonl FILE]

Both cut every torchvision model in half (engine_sides.py says how), each in a process of its own, in turns, with one
thread. Seconds are CPU seconds of the process, which other load on the machine does not lengthen much; of several
repeats the fastest counts. Memory is the peak of the process above what it held once the model was built. Models that
Torch-Pruning fails on are listed and left out of the summary.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

SIDES = ("ours", "theirs")
HEAD = (
    f"{'model':28} {'trace':>6} {'couple':>6} {'choose':>6} {'slice':>6} {'ours':>7}   "
    f"{'graph':>6} {'step':>6} {'theirs':>7}  {'time':>5}   {'MB':>5} {'theirs':>6} {'memory':>6}"
)


def measured(side: str, name: str, timeout: float) -> dict[str, Any]:
    """One side's result for one model, from a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--only", name]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {timeout:g} s"}
    if done.returncode:
        return {"problem": f"the process ended with status {done.returncode}: {done.stderr.strip()[-200:]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(name: str, repeat: int, timeout: float) -> dict[str, Any]:
    """Both sides in turns; of each the fastest run, and the least memory of those."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(repeat):
        for side in SIDES:
            runs[side].append(measured(side, name, timeout))
    row: dict[str, Any] = {"name": name}
    for side in SIDES:
        good = [run for run in runs[side] if not run["problem"]]
        row[side] = min(good, key=seconds) if good else runs[side][0]
        if good:
            row[side]["megabytes"] = min(run["megabytes"] for run in good)
    return row


def seconds(run: dict[str, Any], clock: str = "cpu") -> float:
    """All stages together."""
    return sum(run[clock].values())


def ratios(row: dict[str, Any]) -> tuple[float, float]:
    """Time and memory, ours over theirs; a peak below 1 MB is taken for 1 MB."""
    mine, other = row["ours"], row["theirs"]
    return seconds(mine) / seconds(other), max(mine["megabytes"], 1.0) / max(other["megabytes"], 1.0)


def line(row: dict[str, Any]) -> str:
    """One line of the table; a side that fails is named with the reason."""
    mine, other = row["ours"], row["theirs"]
    text = f"{row['name']:28} "
    if mine["problem"]:
        return text + f"OURS FAILS: {mine['problem']}"
    text += " ".join(f"{mine['cpu'][stage]:6.2f}" for stage in ("trace", "couple", "choose", "slice"))
    text += f" {seconds(mine):7.2f}   "
    if other["problem"]:
        return text + f"theirs fails: {other['problem']}"
    time, memory = ratios(row)
    text += f"{other['cpu']['graph']:6.2f} {other['cpu']['step']:6.2f} {seconds(other):7.2f}  {time:5.2f}   "
    text += f"{mine['megabytes']:5.0f} {other['megabytes']:6.0f} {memory:6.2f}"
    return text + ("" if abs(mine["weights"] - other["weights"]) < 0.01 else f"  {_weights(row)}")


def _weights(row: dict[str, Any]) -> str:
    return f"weights left: {row['ours']['weights']:.0%}, theirs {row['theirs']['weights']:.0%}"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Medians and extremes over the models that both sides pass."""
    both = [row for row in rows if not row["ours"]["problem"] and not row["theirs"]["problem"]]
    failing = [row for row in rows if row["theirs"]["problem"]]
    text = [f"{len(both)} models that both pass; theirs fails on {len(failing)} of {len(rows)}"]
    for label, position in (("time", 0), ("memory", 1)):
        found = sorted((ratios(row)[position], row["name"]) for row in both)
        if found:
            middle = statistics.median(value for value, _ in found)
            above = sum(value > 1 for value, _ in found)
            text.append(
                f"{label}: median {middle:.2f} of theirs, worst {found[-1][0]:.2f} ({found[-1][1]}), "
                f"best {found[0][0]:.2f} ({found[0][1]}), above theirs: {above}"
            )
    text += [f"densenet201: {ratios(row)[0]:.3f} of their time" for row in both if row["name"] == "densenet201"]
    walls = [seconds(row["ours"], "wall") / seconds(row["theirs"], "wall") for row in both]
    return text + ([f"by wall clock instead of CPU time: median {statistics.median(walls):.2f}"] if walls else [])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="one model; may be repeated")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="runs of each side; the fastest counts")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for one run")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="rows in it are kept, new ones added")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def _kept(file: Path | None) -> dict[str, dict[str, Any]]:
    if file is None or not file.exists():
        return {}
    rows = [json.loads(text) for text in file.read_text("utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def main() -> int:
    """Measure and print; 1 where a model that Torch-Pruning passes fails here."""
    import engine_sides

    arguments = _arguments()
    if arguments.side:
        print(json.dumps(engine_sides.measure(arguments.side, arguments.only[0])))
        return 0
    if importlib.util.find_spec("torch_pruning") is None:
        print("this comparison needs Torch-Pruning: pip install torch-pruning", file=sys.stderr)
        return 2
    done = _kept(arguments.jsonl)
    rows = []
    print(HEAD)
    for name in arguments.only or engine_sides.models():
        row = done.get(name) or compared(name, arguments.repeat, arguments.timeout)
        if name not in done and arguments.jsonl:
            with arguments.jsonl.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        rows.append(row)
        print(line(row), flush=True)
    print("\n".join(summary(rows)))
    return int(any(row["ours"]["problem"] and not row["theirs"]["problem"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
