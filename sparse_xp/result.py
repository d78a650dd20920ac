"""One run as one row: what ``result.json`` holds, typed, and where it came from."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparse_xp.files import read_whole, reading, write_text
from sparse_xp.functional.measured import Removed, Sparsity
from sparse_xp.places import PACKAGE
from sparse_xp.text import rows_used

LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "hydra-core",
)


@dataclass
class Deployment:
    """The exported file: metrics (per cent) computed on it, its distance to PyTorch, its size plain and compressed.

    ``nonzero_bytes``: of the elements of its weights that are not zero; None in results of earlier versions.
    ``compression``: zstd at level 3; results of earlier versions do not name theirs, which was gzip.
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
    """What the training took. ``seconds``: of optimizer steps alone, over all resumptions.

    ``train_rows``, ``eval_rows``: the rows that were used, ``..._of`` the rows that there were.
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


@dataclass
class Provenance:
    """How to get the same again."""

    command: str
    git: str | None
    versions: dict[str, str]
    config_hash: str
    data_fingerprint: str


@dataclass
class Result:
    """One row of a benchmark table. Metrics are per cent, sparsity and sizes as in their classes.

    ``quantization``: how the file came to its integers (``int8``, ``ptq_int8``, ...), None for floating point.
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

    def write(self, path: Path) -> None:
        """Write it whole or not at all: its presence says that the run is finished."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read what ``write`` wrote. Raises UserError for a file that is damaged or of another version."""
        with reading(path, "It may be of another version of sparse_xp: restore it, or move its run away."):
            raw: dict[str, Any] = json.loads(read_whole(path))
            if taken := raw["sparsity"].get("removed"):
                raw["sparsity"]["removed"] = Removed(**taken)
            parts = {
                "deployment": Deployment,
                "sparsity": Sparsity,
                "training": Training,
                "provenance": Provenance,
            }
            found = cls(**{name: parts[name](**value) if name in parts else value for name, value in raw.items()})
            check_types(found)
            return found


def check_types(result: Result) -> None:
    """Raise TypeError for a value that a table could not show: JSON may have anything in its place."""
    numbers = [*result.metrics.items(), *result.deployment.metrics.items(), *result.sparsity.layers.items()]
    for part in (result, result.deployment, result.sparsity, result.training, result.provenance):
        for item in fields(part):
            kinds = {"int": int, "float": int | float, "str": str, "bool": bool}
            value, kind = getattr(part, item.name), kinds.get(str(item.type))
            if kind and not isinstance(value, kind):
                raise TypeError(f"{item.name} is {value!r:.40}")
    if result.metric not in result.metrics:
        raise KeyError(result.metric)
    for name, value in numbers:
        if not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r:.40}")


def summary(result: Result) -> str:
    """The row in one line."""
    return summary_of(result.deployment, result.sparsity, result.quantization)


def summary_of(deployed: Deployment, sparsity: Sparsity, quantization: str | None = None) -> str:
    """An exported file in one line."""
    scores = "  ".join(f"{name} {value:.2f}" for name, value in deployed.metrics.items())
    taken = f"  {sparsity.removed.told()}" if sparsity.removed else ""
    return (
        f"exported file: {scores}{taken}  sparsity {sparsity.prunable:.1%}  "
        + (f"{quantization}  " if quantization else "")
        + f"{deployed.bytes / 1e6:.2f} MB ({deployed.compressed_bytes / 1e6:.2f} MB under {deployed.compression})"
    )


def provenance(config_hash: str, data_fingerprint: str, command: str | None = None) -> Provenance:
    """Where a result made now comes from; ``command`` by default as it was typed."""
    return Provenance(
        command=command or shlex.join(["python", "-m", "sparse_xp", *sys.argv[1:]]),
        git=git_revision(),
        versions={name: installed for name in LIBRARIES if (installed := version_of(name))},
        config_hash=config_hash,
        data_fingerprint=data_fingerprint,
    )


def told(path: str, directory: Path | None = None) -> str:
    """A path as a file tells it that others will read: without where somebody's home is. Hub ids stay as they are.

    Of what lies beside the run in ``directory``, or below that, the way from the run (``../dense``); of any other path
    that is absolute, or is there, the last part alone.
    """
    place = os.path.expanduser(path)
    if not (os.path.isabs(place) or path.startswith("~") or os.path.lexists(place)):
        return path
    if directory is not None:
        for real in (os.path.abspath, os.path.realpath):  # a home may be a link
            run, there = real(directory), real(place)
            if there == run:
                break
            if Path(there).is_relative_to(Path(run).parent):
                return os.path.relpath(there, run)
    *_, name = ["", *Path(os.path.abspath(place)).parts[1:]]
    # each run has a folder of that name
    return f"{Path(os.path.abspath(place)).parent.name}/{name}".strip("/") if name == "model" else name


#: a path inside of a list, a quoted word or an address
_INNER = re.compile(r"""(?:(?<=[\[,'"({=])|(?<=file://)|(?<=: ))(?:~|/)[^\s,'"\[\](){}]*""")


def told_command(command: str, directory: Path | None = None) -> str:
    """A command with its absolute paths as ``told``, but those below the current directory: from there they still run.

    ``directory``: that of the run. What is not absolute stays as it was typed.
    """
    try:
        words = shlex.split(command)
    except ValueError:  # no command line, of whatever made it
        return command
    return shlex.join(_told_word(word, directory) for word in words)


def _told_word(word: str, directory: Path | None) -> str:
    def tell(path: str) -> str:
        for real in (os.path.abspath, os.path.realpath):
            here, there = real("."), real(os.path.expanduser(path))
            if Path(there).is_relative_to(here):
                return os.path.relpath(there, here)
        return told(path, directory)

    key, equals, value = word.partition("=") if word[:1] not in ("/", "~") or "=~" in word else ("", "", word)
    if value[:1] in ("/", "~"):
        return f"{key}{equals}{tell(value)}"
    if len(value) > 1 and value[0] == value[-1] == "'" and value[1:2] in ("/", "~"):  # as Hydra quotes it
        plain = re.sub(r"\\(.)", r"\1", value[1:-1])
        escaped = tell(plain).replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}{equals}'{escaped}'"
    return f"{key}{equals}{_INNER.sub(lambda found: tell(found[0]), value)}" if equals else word


def git_revision() -> str | None:
    """The commit of this code, with ``-dirty`` if it was changed since; None outside a checkout."""
    if not (PACKAGE.parent / ".git").exists():  # installed, perhaps inside somebody else's checkout
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def version_of(name: str) -> str | None:
    """The installed version of a package, None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def row(result: Result) -> dict[str, str]:
    """The cells of one run, by the heading of their column."""
    deployed, trained = result.deployment, result.training
    return {
        "task": result.task,
        "model": result.model,
        "recipe": result.recipe,
        "quantization": result.quantization or "none",
        "teacher": "yes" if result.teacher else "no",
        "seed": str(result.seed),
        "score": "  ".join(f"{name} {value:.2f}" for name, value in deployed.metrics.items())
        + (f"  [on {part}]" if (part := rows_used(trained.eval_rows, trained.eval_rows_of, some_only=True)) else ""),
        "sparsity (prunable / encoder / model)": " / ".join(
            f"{part:.1%}" for part in (result.sparsity.prunable, result.sparsity.encoder, result.sparsity.model)
        )
        + (f"  [{result.sparsity.removed.share:.1%} of the encoder removed]" if result.sparsity.removed else ""),
        "ONNX MB": f"{deployed.bytes / 1e6:.2f}",
        "zstd MB": f"{deployed.compressed_bytes / 1e6:.2f}{' (gzip)' if deployed.compression == 'gzip' else ''}",
        "train rows": rows_used(trained.train_rows, trained.train_rows_of),
        "epochs": f"{result.training.epochs:g}",
    }
