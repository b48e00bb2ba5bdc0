"""Does it work on a model at the first try, and is it exact? Asked of whole libraries of models.

    python benchmarks/coverage.py [--suite samples|torchvision|timm|transformers] [--only NAME] [--ratio 0.3]
                                  [--markdown docs/coverage.md] [--resume FILE.jsonl] [--jobs 1] [--timeout 600]

Every model is built with random weights (nothing is downloaded), loses the given fractions of every family of units
at random, whole heads and groups included, and is compared with the masked original in float64. Each runs in a
process of its own. One line per model; status 1 if any is not exact.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from coverage_models import find, suites
from coverage_models.measure import Row, measure
from coverage_models.table import HEAD, line, markdown, totals


def _work(suite: str, name: str, ratios: list[float], answers: Connection) -> None:
    answers.send(measure(find(suite, name), ratios))


def isolated(suite: str, name: str, ratios: list[float], timeout: float) -> Row:
    """The row of one model, measured in a process of its own; a crash and a timeout are rows too."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(suite, name, ratios, theirs))
    process.start()
    theirs.close()
    problem = f"not done after {timeout:g} s"
    try:
        if ours.poll(timeout):
            row = Row(**ours.recv())
            process.join(10)
            return row
    except EOFError:
        process.join()
        problem = f"the process ended with status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return Row(suite, name, find(suite, name).family, problem=problem)


def run(chosen: list[tuple[str, str]], arguments: argparse.Namespace) -> Iterator[Row]:
    """Rows in the order of the models, as they come."""

    def one(suite: str, name: str) -> Row:
        if arguments.isolate:
            return isolated(suite, name, arguments.ratio, arguments.timeout)
        return Row(**measure(find(suite, name), arguments.ratio))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        yield from pool.map(lambda case: one(*case), chosen)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", action="append", choices=suites(), help="may be repeated; all when absent")
    parser.add_argument("--only", action="append", metavar="NAME", help="one model; may be repeated")
    parser.add_argument("--ratio", action="append", type=float, help="fraction of every family; default 0.3 and 0.5")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="JSON lines: rows in it are kept, new ones added")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for one model")
    parser.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction, default=True, help="a process of its own for each model"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    arguments.ratio = arguments.ratio or [0.3, 0.5]
    if not all(0 < ratio < 1 for ratio in arguments.ratio):
        parser.error("--ratio must lie between 0 and 1")
    return arguments


def _chosen(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    names = [(suite, case.name) for suite in arguments.suite or suites() for case in suites()[suite]()]
    wanted = arguments.only
    if not wanted:
        return names
    unknown = set(wanted) - {name for _, name in names}
    if unknown:
        raise SystemExit(f"no model {', '.join(sorted(unknown))}; --list prints the names")
    return [(suite, name) for suite, name in names if name in wanted]


def _done(file: Path | None) -> dict[tuple[str, str], Row]:
    if file is None or not file.exists():
        return {}
    rows = [Row(**json.loads(text)) for text in file.read_text("utf-8").splitlines()]
    return {(row.suite, row.name): row for row in rows}


def _keep(file: Path | None, row: Row) -> None:
    if file is not None:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(row), default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.item()


def main() -> int:
    arguments = _arguments()
    chosen = _chosen(arguments)
    if arguments.list:
        print("\n".join(f"{suite} {name}" for suite, name in chosen))
        return 0
    multiprocessing.get_context("forkserver").set_forkserver_preload(["coverage_models.measure", *suites()])
    done = _done(arguments.resume)
    print(HEAD)
    for key in chosen:
        if key in done:
            print(line(done[key]))
    for row in run([key for key in chosen if key not in done], arguments):
        done[row.suite, row.name] = row
        _keep(arguments.resume, row)
        print(line(row), flush=True)
    rows = [done[key] for key in chosen]
    print("\n".join(totals(rows)))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows, arguments.ratio), "utf-8")
    return 0 if all(row.status == "exact" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
