"""Load checkpoints from the Hugging Face hub, which may be unreachable, or a directory, which may be damaged."""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE
from sparse_xp.files.reading import explain_library_errors, explain_read_errors

TIMEOUT_SECONDS = 5.0
#: NAME or OWNER/NAME. Anything with a leading dot or slash, a comma, an equals sign or more slashes is a path.
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def go_offline_if_unreachable() -> None:
    """Switch to the local cache if the hub does not answer within ``TIMEOUT_SECONDS``.

    Call it before the libraries of the hub are imported: they read the environment once.
    """
    if os.environ.get("HF_HUB_OFFLINE"):
        return
    endpoint, answered = os.environ.get("HF_ENDPOINT", "https://huggingface.co"), threading.Event()

    def probe() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError:
            pass  # an answer nevertheless
        except (OSError, ValueError):
            return
        answered.set()

    # The probe runs in a thread: a DNS look-up ignores the timeout and can take half a minute.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if not answered.is_set():
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_DATASETS_OFFLINE"] = "1"


def hub_error(what: str, error: Exception) -> UserError:
    """Return the error for something that could not be loaded from the hub, with every way to do without it."""
    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    why = "the hub is unreachable and it is not in the local cache" if offline else _short_cause(error)
    return UserError(
        f"Could not load {what}: {why}.\n"
        "Without the hub: data.root=DIR takes <dataset>/<split>.parquet from a local mirror, model.checkpoint=DIR a "
        "local model (teacher=checkpoint teacher.path=DIR a local teacher), and profile=embedded, with no checkpoint "
        "named, needs nothing at all."
    )


def is_local_checkpoint(checkpoint: str) -> bool:
    """Return whether a checkpoint is a directory; otherwise it is a hub id.

    Raises UserError for a directory without a model, and for a name that is neither a directory nor a hub id.
    """
    path = Path(checkpoint)
    if path.is_dir():
        with explain_read_errors(path / "config.json", CHECKPOINT_ADVICE):
            if (path / "config.json").is_dir():
                raise IsADirectoryError
        if not (path / "config.json").is_file():
            there = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
            hint = f" Its model is {path / 'model'}." if (path / "model").is_dir() else ""
            hint = hint or " Name one that has."
            raise UserError(f"{checkpoint} is not a model directory: it has no config.json.{hint} It holds {there}.")
        return True
    if not HUB_ID.fullmatch(checkpoint):
        raise UserError(
            f"No directory {checkpoint}: a checkpoint is a local directory or a hub id such as bert-base-uncased."
        )
    return False


def _short_cause(error: BaseException) -> str:
    """Return the message of an error in one line of readable length."""
    if str(error).startswith("Weights only load failed"):  # torch then explains how to execute the code in the file
        return "it is no file of weights alone, and what else it holds is never run"
    return shortened(" ".join(str(error).split()).rstrip(".") or type(error).__name__, 400)


def explain_loading_errors(what: str, checkpoint: str, *files: str) -> AbstractContextManager[None]:
    """Return a context manager that turns any error of a library that loads ``checkpoint`` into a UserError.

    For a directory the message names the ``files`` in it, for a hub id ``what`` could not be loaded.
    """

    def describe(error: BaseException) -> UserError:
        if not os.path.isdir(checkpoint):
            return hub_error(what, RuntimeError(_short_cause(error)))
        names = " and ".join([str(Path(checkpoint) / files[0]), *files[1:]])
        return UserError(f"{names} cannot be loaded: {_short_cause(error)}. {CHECKPOINT_ADVICE}")

    return explain_library_errors(describe)
