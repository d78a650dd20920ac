"""The Hugging Face hub as something that may not be there."""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

from sparse_xp.errors import UserError

SECONDS = 5.0
#: NAME or OWNER/NAME. What starts with a dot or a slash, or has a comma, an equals sign or more slashes, is a path.
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def go_offline_if_unreachable() -> None:
    """If the hub does not answer within seconds, use what is cached instead of waiting through retries.

    Must run before the hub's libraries are imported: they read the environment once.
    """
    if os.environ.get("HF_HUB_OFFLINE"):
        return
    endpoint, answered = os.environ.get("HF_ENDPOINT", "https://huggingface.co"), threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=SECONDS)
        except urllib.error.HTTPError:
            pass  # it answered
        except (OSError, ValueError):
            return
        answered.set()

    # In a thread, for looking up a name has no limit of its own and can take half a minute.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    if not answered.is_set():
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_DATASETS_OFFLINE"] = "1"


def unavailable(what: str, error: Exception) -> UserError:
    """The message for something that could not be had from the hub, naming every way to do without it."""
    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    why = "the hub is unreachable and it is not in the local cache" if offline else f"{str(error).splitlines()[0]}"
    return UserError(
        f"Could not load {what}: {why}.\n"
        "Without the hub: data.root=DIR takes <dataset>/<split>.parquet from a local mirror, model.checkpoint=DIR a "
        "local model (teacher=checkpoint teacher.path=DIR a local teacher), and profile=embedded, with no checkpoint "
        "named, needs nothing at all."
    )


def is_local(checkpoint: str) -> bool:
    """Whether a checkpoint is a directory rather than a hub id.

    Raises UserError for a directory without a model, and for a name that no hub id has but that is no directory.
    """
    path = Path(checkpoint)
    if path.is_dir():
        if not (path / "config.json").is_file():
            there = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
            hint = f" Its model is {path / 'model'}." if (path / "model").is_dir() else ""
            raise UserError(f"{checkpoint} is not a model directory: it has no config.json.{hint} It holds {there}.")
        return True
    if not HUB_ID.fullmatch(checkpoint):
        raise UserError(
            f"No directory {checkpoint}: a checkpoint is a local directory or a hub id such as bert-base-uncased."
        )
    return False
