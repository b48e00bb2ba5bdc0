"""`compress sensitivity`: what the accuracy bears, one family of units at a time."""

from __future__ import annotations

import json
from pathlib import Path

from compress.checkpoint.folder import check_place, write_folder
from compress.errors import InputError
from compress.pipeline.bench import ready, scoring
from compress.progress import Progress
from compress.report import svg
from compress.report.sensitivity import figure, label, page
from compress.result import Sensitivities
from compress.search import sensitivities
from compress.searching import SensitivityRequest
from compress.wording import plural

FILES = ("sensitivity.json", "sensitivity.svg", "sensitivity.md")


def sensitivity(request: SensitivityRequest, progress: Progress) -> Sensitivities:
    """Checkpoint to curves: analyse, score once, cut and judge family by family, write.

    The accuracy is that on a part of the training samples, the one that fine-tuning keeps out as well; the test samples
    are not looked at. Cuts are not verified in float64, as none of them is written.

    Raises:
        InputError: Something about the request, the file or the data is wrong.
        ModelError: The model cannot be handled, or has nothing to prune.
        PluginError: The method broke its contract.
    """
    _check_output(request.output, request.force)
    scoring(request.method)
    made = ready(
        *(request.model, request.data, request.settings, request.scope, progress),
        samples=request.samples,
        refit=request.calibrate,
    )
    progress.step(f"Scoring with {request.method}: {plural(len(made.context.groups), 'group')} of units")
    scores = made.scores(request.method)
    whole = made.bench.accuracy(made.program.module)
    progress.step(
        f"Judging on {plural(whole.count, 'sample')}: {100 * whole.accuracy:.2f} % of them right with nothing cut"
    )
    result = Sensitivities(
        folder=request.output,
        model=request.model.path,
        sha256=made.opened.loaded.sha256,
        data=request.data.spec,
        method=request.method,
        calibrated=request.calibrate,
        seed=request.settings.seed,
        accuracy=whole,
        ratios=request.ratios,
        families=sensitivities(made.bench, scores, request.ratios, progress),
        command=request.command,
    )
    _warn(result, progress)
    write(result)
    return result


def _check_output(output: Path, force: bool) -> None:
    check_place(output)
    if output.exists() and not force and any(output.iterdir()) and not (output / FILES[0]).is_file():
        raise InputError(
            f"{output} is not empty and holds no {FILES[0]}, so it is left alone",
            "choose another directory, or --force to write into it",
        )


def _warn(result: Sensitivities, progress: Progress) -> None:
    for each in result.families:
        failed = [point for point in each.points if point.accuracy is None]
        if failed:
            name = label(each.family.name, each.family.groups)
            progress.warn(f"{name} could not be judged at {len(failed)} ratios: {failed[0].reason}")


def write(result: Sensitivities) -> None:
    """The three files, at once."""
    document = result.to_json()
    contents = (json.dumps(document, indent=2, allow_nan=False) + "\n", svg(figure(document)), page(document))
    write_folder(
        result.folder,
        {name: content.encode() for name, content in zip(FILES, contents, strict=True)},
        ours=FILES,
    )
