"""Sparse, distilled, deployable BERT-class encoders.

The names of ``__all__`` are loaded when they are used first: ``import sparse_xp`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparse_xp.deploy_model import export as export
    from sparse_xp.deployment.benchmark import benchmark as benchmark
    from sparse_xp.deployment.pipeline import Pipeline as Pipeline
    from sparse_xp.errors import UserError as UserError
    from sparse_xp.functional.weight_count import measure as measure
    from sparse_xp.sparsifier.hugging_face import SparseTrainer as SparseTrainer
    from sparse_xp.sparsifier.hugging_face import SparseTrainerMixin as SparseTrainerMixin
    from sparse_xp.sparsifier.lightning import LightningCallback as LightningCallback
    from sparse_xp.sparsifier.lock import lock as lock
    from sparse_xp.sparsifier.sparsifier import Sparsifier as Sparsifier
    from sparse_xp.sparsifier.trainer_callback import SparseCallback as SparseCallback

__version__ = "0.1.0"

#: the module of each public name; the imports above say the same to type checkers
_MODULES = {
    "LightningCallback": "sparse_xp.sparsifier.lightning",
    "Pipeline": "sparse_xp.deployment.pipeline",
    "SparseCallback": "sparse_xp.sparsifier.trainer_callback",
    "SparseTrainer": "sparse_xp.sparsifier.hugging_face",
    "SparseTrainerMixin": "sparse_xp.sparsifier.hugging_face",
    "Sparsifier": "sparse_xp.sparsifier.sparsifier",
    "UserError": "sparse_xp.errors",
    "benchmark": "sparse_xp.deployment.benchmark",
    "export": "sparse_xp.deploy_model",
    "lock": "sparse_xp.sparsifier.lock",
    "measure": "sparse_xp.functional.weight_count",
}

#: without LightningCallback, which needs an extra: ``from sparse_xp import *`` must not
__all__ = [
    "Pipeline",
    "SparseCallback",
    "SparseTrainer",
    "SparseTrainerMixin",
    "Sparsifier",
    "UserError",
    "__version__",
    "benchmark",
    "export",
    "lock",
    "measure",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
