"""`compress eval`: accuracy on the test split."""

from __future__ import annotations

from compress.evaluate import evaluate
from compress.pipeline.opening import open_model
from compress.progress import Progress
from compress.request import EvalRequest
from compress.result import Evaluation


def evaluate_model(request: EvalRequest, progress: Progress) -> Evaluation:
    """The accuracy of a model.

    Raises:
        InputError: The file, the data or their fit is wrong.
    """
    opened = open_model(request.model, request.settings, request.data, progress)
    if opened.data is None:  # the request always names data
        raise AssertionError("an evaluation without data")
    accuracy = evaluate(
        opened.loaded.module,
        opened.data.test,
        batch_size=request.batch_size,
        device=opened.device,
        progress=progress,
    )
    return Evaluation(opened.loaded.path, opened.data.name, accuracy)
