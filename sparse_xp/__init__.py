"""Sparse, distilled, deployable BERT-class encoders."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_xp.deployment.pipeline import Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    # onnxruntime is loaded by whoever predicts, not by every import.
    if name == "Pipeline":
        from sparse_xp.deployment.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
