"""Turn the errors of reading a file into messages that name it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sparse_xp.errors import UserError, did_you_mean


@contextmanager
def explain_read_errors(path: Path, way_out: str = "") -> Iterator[None]:
    """Turn an error of the block about the contents of ``path`` into a UserError that names it.

    ``way_out``: advice, the last sentence of the message.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} {describe_read_error(error)}.{way_out and f' {way_out}'}") from error


@contextmanager
def explain_library_errors(
    describe: Callable[[BaseException], UserError], own_mistakes: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Turn any error that a library raises in the block into the UserError that ``describe`` makes of it.

    For libraries that read files which are not trusted: transformers, tokenizers, safetensors, torch, onnxruntime and
    others raise a dozen classes of errors, some of them derived from Exception directly. ``own_mistakes``: classes of
    errors that are raised as they are, because they are bugs of sparse_xp.
    """
    try:
        yield
    except BaseException as error:
        # A panic of Rust code is not an Exception. Neither is an interrupt or an exit of this process, which pass.
        of_library = isinstance(error, Exception) or type(error).__name__ == "PanicException"
        if isinstance(error, (UserError, *own_mistakes)) or not of_library:
            raise
        raise describe(error) from error


def describe_read_error(error: Exception) -> str:
    """Return why a file could not be read, as the end of a sentence that begins with its name."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is missing"
    if isinstance(error, IsADirectoryError):
        return "is a directory, and should be a file"
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start})"
    if isinstance(error, json.JSONDecodeError):
        if not error.doc.strip():
            return "is empty"
        return f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
    if isinstance(error, RecursionError):
        return "is nested too deep"
    if isinstance(error, KeyError):
        return f"has no {error}"
    return f"is damaged ({(str(error) or type(error).__name__).splitlines()[0]})"


def read_regular_file(path: Path) -> str:
    """Return the text of a file. Raises ValueError for a pipe or a device, which might never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is no file on a disk")
    return path.read_text(encoding="utf-8")


def sibling_names(path: Path) -> list[str]:
    """Return the names in the directory of ``path``, which itself need not exist."""
    return [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []


def resolve_model_dir(path: str) -> str:
    """Return the model directory of a run directory, and any other path as it is.

    Early versions of sentence-transformers saved the encoder in a folder ``0_Transformer``, which is returned as well.
    """
    inner = Path(path) / "model"
    if (inner / "config.json").is_file() and not (Path(path) / "config.json").is_file():
        return str(inner)
    encoder = Path(path) / "0_Transformer"
    is_encoder = (encoder / "config.json").is_file() and (Path(path) / "modules.json").is_file()
    return str(encoder) if is_encoder else path


def check_file(path: Path) -> None:
    """Raise UserError, with the nearest name, unless there is a file at ``path``."""
    with explain_read_errors(path):
        if path.is_file():
            return
        if path.is_dir():
            raise UserError(f"{path} is a directory, and should be a file. Name one in it.")
        if path.exists():  # for example a pipe: reading could block for ever
            raise UserError(f"{path} is no file on a disk. Write its contents into one.")
        if path.is_symlink():
            raise UserError(f"No file {path}: it is a link to {path.readlink()}, which does not exist.")
        raise UserError(f"No file {path}.{did_you_mean(path.name, sibling_names(path))}")
