"""Feature selection with annealing (FSA): which input features a linear classifier needs, and how many."""

from typing import TYPE_CHECKING, Any

from compress.fsa.annealing import FSASettings, Selection, select_features
from compress.fsa.factor import CompressionFactor, compression_factor

if TYPE_CHECKING:
    from compress.fsa.classifier import FSAClassifier

__all__ = ["CompressionFactor", "FSAClassifier", "FSASettings", "Selection", "compression_factor", "select_features"]


def __getattr__(name: str) -> Any:
    """The estimator at first use: the rest does not wait for scikit-learn."""
    if name == "FSAClassifier":
        from compress.fsa.classifier import FSAClassifier

        return FSAClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
