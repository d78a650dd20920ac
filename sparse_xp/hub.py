"""The Hugging Face hub as something that may not be there."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from sparse_xp.errors import UserError

SECONDS = 5.0


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
        "local model (teacher=checkpoint teacher.path=DIR a local teacher), and profile=embedded needs nothing at all."
    )
