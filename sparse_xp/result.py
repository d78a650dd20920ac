"""``result.json``: one finished run as one row of a table, with its types checked.

A run writes it last (``delivery.py``), so its presence says that the run is finished. Sweeps read it to skip finished
cells, reports to make tables, ``sparse_xp.export`` to replace the exported file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparse_xp.files.json_text import restore_numbers, to_json
from sparse_xp.files.reading import explain_read_errors, read_regular_file
from sparse_xp.files.writing import write_text
from sparse_xp.functional.measured import CompressedPart, Compression, Removed, Sparsity
from sparse_xp.schema import check_types
from sparse_xp.text import rows_used

#: the record of a finished run
RESULT = "result.json"


@dataclass
class Deployment:
    """The exported file: its metrics (per cent), its distance to PyTorch, its size plain and compressed.

    ``nonzero_bytes``: bytes of nonzero weight elements; None in results of earlier versions. ``compression``: zstd at
    level 3. Older results lack this field and used gzip.
    ``integers``: whether its matrices are of int8. ``openvino_max_abs_diff``: the distance of ``model.xml`` beside it,
    None if there is none. ``largest_pair``: the largest |w1| + |w2| of two int8 weights of one output; ``portable``:
    whether 255 times that stays within 16 bits, so that the file computes the same in every session on every CPU.
    """

    metrics: dict[str, float]
    max_abs_diff: float
    bytes: int
    compressed_bytes: int
    nonzero_bytes: int | None = None
    compression: str = "gzip"
    integers: bool = False
    openvino_max_abs_diff: float | None = None
    largest_pair: int | None = None
    portable: bool | None = None


#: the result of a run that is trained and not exported yet, which result.json replaces, and its deployment
TRAINED = "trained.json"
NO_DEPLOYMENT = Deployment(metrics={}, max_abs_diff=0.0, bytes=0, compressed_bytes=0)


@dataclass
class Training:
    """The cost of training. ``seconds``: of optimizer steps alone, over all resumptions.

    ``train_rows``, ``eval_rows``: the number of rows used; ``..._of``: the number of rows in the data. ``skipped``: the
    number of steps that changed no weight, because gradients overflowed in fp16. ``unlabeled_rows``: the number of rows
    in the file of rows without labels.
    """

    epochs: float
    steps: int
    seconds: float
    samples_per_second: float
    device: str
    precision: str
    train_rows: int
    eval_rows: int
    train_rows_of: int
    eval_rows_of: int
    best_step: int
    skipped: int = 0
    unlabeled_rows: int = 0


@dataclass
class Provenance:
    """The command, code, libraries, configuration and data with which a run is reproduced."""

    command: str
    git: str | None
    versions: dict[str, str]
    config_hash: str
    data_fingerprint: str


@dataclass
class Result:
    """A finished run. Metrics are per cent; for sparsity, compression and sizes see their classes.

    ``quantization``: the option that made the file's integers (``int8``, ``ptq_int8``, ...), None for floating point.
    ``compression``: None in results of earlier versions.
    """

    task: str
    model: str
    recipe: str
    profile: str
    seed: int
    metric: str
    metrics: dict[str, float]
    deployment: Deployment
    sparsity: Sparsity
    training: Training
    teacher: str | None
    provenance: Provenance
    quantization: str | None = None
    compression: Compression | None = None

    def write(self, path: Path) -> None:
        """Write the result atomically: the file is there as a whole or not at all."""
        write_text(path, to_json(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result that ``write`` wrote. Raises UserError for a file that is damaged or of another version."""
        with explain_read_errors(path, "It may be of another version of sparse_xp: restore it, or move its run away."):
            raw: dict[str, Any] = json.loads(read_regular_file(path))
            if removed := raw["sparsity"].get("removed"):
                raw["sparsity"]["removed"] = Removed(**removed)
            # Ratios of nothing are not finite; only these parts have numbers that may be so.
            raw |= {name: restore_numbers(raw[name]) for name in ("metrics", "deployment", "sparsity")}
            if compressed := restore_numbers(raw.get("compression")):
                raw["compression"] = Compression(**{name: CompressedPart(**part) for name, part in compressed.items()})
            parts = {"deployment": Deployment, "sparsity": Sparsity, "training": Training, "provenance": Provenance}
            result = cls(**{name: parts[name](**value) if name in parts else value for name, value in raw.items()})
            check_types(result)
            if result.metric not in result.metrics:
                raise KeyError(result.metric)
            return result


def find_results(directories: Sequence[Path]) -> list[tuple[Path, Result]]:
    """Return the results in the given run directories, or anywhere below the given ones, each with its directory.

    Raises UserError for a damaged file, or one of another version.
    """
    paths: set[Path] = set()
    for directory in directories:
        own = directory / RESULT
        paths.update([own] if own.exists() else directory.rglob(RESULT))
    return [(path.parent, Result.read(path)) for path in sorted(paths)]


def result_summary(result: Result) -> str:
    """Return the result in one line, for the screen."""
    return deployment_summary(result.deployment, result.sparsity, result.quantization)


def deployment_summary(deployment: Deployment, sparsity: Sparsity, quantization: str | None = None) -> str:
    """Return scores, sparsity and sizes of an exported file in one line, for the screen."""
    scores = "  ".join(f"{name} {value:.2f}" for name, value in deployment.metrics.items())
    removed = f"  {sparsity.removed.description}" if sparsity.removed else ""
    return (
        f"exported file: {scores}{removed}  sparsity {sparsity.prunable:.1%}  "
        + (f"{quantization}  " if quantization else "")
        + f"{deployment.bytes / 1e6:.2f} MB ({deployment.compressed_bytes / 1e6:.2f} MB under {deployment.compression})"
    )


def result_row(result: Result) -> dict[str, str]:
    """Return the result as text, by the headings of the columns of a table of runs."""
    deployment, sparsity, training = result.deployment, result.sparsity, result.training
    scores = "  ".join(f"{name} {value:.2f}" for name, value in deployment.metrics.items())
    part = rows_used(training.eval_rows, training.eval_rows_of, some_only=True)
    fractions = " / ".join(f"{value:.1%}" for value in (sparsity.prunable, sparsity.encoder, sparsity.model))
    removed = f"  [{sparsity.removed.share:.1%} of the encoder removed]" if sparsity.removed else ""
    gzipped = " (gzip)" if deployment.compression == "gzip" else ""
    return {
        "task": result.task,
        "model": result.model,
        "recipe": result.recipe,
        "quantization": result.quantization or "none",
        "teacher": "yes" if result.teacher else "no",
        "seed": str(result.seed),
        "score": scores + (f"  [on {part}]" if part else ""),
        "sparsity (prunable / encoder / model)": fractions + removed,
        "compression (encoder / model)": result.compression.ratios if result.compression else "",
        "ONNX MB": f"{deployment.bytes / 1e6:.2f}",
        "zstd MB": f"{deployment.compressed_bytes / 1e6:.2f}{gzipped}",
        "train rows": rows_used(training.train_rows, training.train_rows_of),
        "epochs": f"{training.epochs:g}",
    }
