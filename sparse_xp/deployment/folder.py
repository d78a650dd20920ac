"""Find a deployment folder and check that it is complete.

``predict``, ``verify``, ``benchmark`` and ``Pipeline`` accept a finished run or the folder itself.
"""

from __future__ import annotations

import re
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files.checksums import find_damage, list_files
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.result import TRAINED

#: the files that every deployment folder has
REQUIRED = (
    *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "task.json", "deployment.json"),
    *("model_card.md", "samples/inp-0000.npz", "samples/out-0000.npz"),
)
#: the files that it may have besides
OPTIONAL = re.compile(r"samples/(inp|out)-\d{4}\.npz|model\.(xml|bin|onnx\.data)|recipe\.yaml")


def check_bundle_files(directory: Path) -> None:
    """Raise UserError if a required file is missing or a file differs from ``checksums.txt``.

    Files of other names are ignored.
    """
    needed = {*REQUIRED, *(name for name in list_files(directory) if OPTIONAL.fullmatch(name))}
    if wrong := find_damage(directory, sorted(needed)):
        raise UserError(f"{directory}: {wrong}. Copy the whole folder again, or export it again.")


def bundle_from_options(options: dict[str, str]) -> Path:
    """Return the deployment folder that the options ``run=DIR`` (a finished run) or ``model=DIR`` (itself) name.

    Raises UserError for neither, both, an unfinished run or a directory without ``model.onnx``.
    """
    if ("run" in options) == ("model" in options):
        raise UserError("Give run=DIR (a finished run) or model=DIR (a deployment folder).")
    if "run" in options:
        return find_bundle(Path(options["run"]), run_only=True)
    return find_bundle(Path(options["model"]))


def find_bundle(path: Path, run_only: bool = False) -> Path:
    """Return ``path`` itself if it has a ``model.onnx``, else the ``deployment/`` of the finished run ``path``.

    ``run_only``: accept only a run. Raises UserError if there is no such folder.
    """
    with explain_read_errors(path):
        return _find_bundle(path, run_only)


def _find_bundle(path: Path, run_only: bool) -> Path:
    if not run_only and (path / "model.onnx").is_file():
        return path
    if (path / "result.json").is_file() and (path / "deployment/model.onnx").is_file():
        return path / "deployment"
    if (path / "result.json").is_file():
        raise UserError(f"{path}/deployment has no model.onnx: python -m sparse_xp.export run={path} makes it again.")
    if (path / TRAINED).is_file():
        raise UserError(f"{path} is trained and has no deployment: python -m sparse_xp.export run={path} makes it.")
    if (path / "config.yaml").is_file():
        raise UserError(f"{path} holds an unfinished run: issue its command again first.")
    kind = "run" if run_only else "model.onnx"
    raise UserError(f"{path} holds no {kind}{'' if path.is_dir() else ': no such folder'}.")
