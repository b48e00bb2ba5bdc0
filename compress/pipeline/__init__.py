"""What the command line can ask for; each function reads as the story of its command."""

from compress.pipeline.check import check
from compress.pipeline.evaluate import evaluate_model
from compress.pipeline.export import export_model
from compress.pipeline.finetune import finetune_model
from compress.pipeline.inspect import inspect_model
from compress.pipeline.measure import measure_model
from compress.pipeline.prune import prune
from compress.pipeline.search import search
from compress.pipeline.sensitivity import sensitivity

__all__ = [
    "check",
    "evaluate_model",
    "export_model",
    "finetune_model",
    "inspect_model",
    "measure_model",
    "prune",
    "search",
    "sensitivity",
]
