"""Load checkpoints from the Hugging Face hub, which may be unreachable, or a directory, which may be damaged."""

from __future__ import annotations

import os
import re
import sys
import threading
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from sparse_xp.errors import UserError, did_you_mean, shortened
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, WEIGHT_FILES, describe_other_model, has_weights
from sparse_xp.files.reading import explain_library_errors, explain_read_errors, sibling_names
from sparse_xp.run_directory import is_run

TIMEOUT_SECONDS = 5.0
#: NAME or OWNER/NAME. Anything with a leading dot or slash, a comma, an equals sign or more slashes is a path.
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def go_offline_if_unreachable() -> None:
    """Switch to the local cache if the hub does not answer within ``TIMEOUT_SECONDS``.

    The libraries of the hub read the environment once, when they are imported.
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
        if imported := sys.modules.get("huggingface_hub"):
            imported.constants.HF_HUB_OFFLINE = True


def hub_error(what: str, error: BaseException) -> UserError:
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
    if not path.is_dir():
        check_hub_id(checkpoint)
        return False
    with explain_read_errors(path / "config.json", CHECKPOINT_ADVICE):
        if (path / "config.json").is_dir():
            raise IsADirectoryError
    if not (path / "config.json").is_file():
        there = ", ".join(sorted(p.name for p in path.iterdir())) or "nothing"
        raise UserError(
            f"{checkpoint} is not a model directory: it has no config.json. {_advice_without_model(path)} It holds "
            f"{shortened(there, 400)}."
        )
    return True


def _advice_without_model(directory: Path) -> str:
    """Return what to do about a directory without config.json: where in it there are models, or what else it is."""
    inside = sorted((path.parent for path in directory.glob("*/config.json")), key=os.path.getmtime)
    models = [str(path) for path in inside if has_weights(path)]
    if models:
        return f"Its model is {models[0]}." if len(models) == 1 else f"Name one in it: {', '.join(models[-5:])}."
    if is_run(directory):
        return "It is a run that has no model yet: the command that began it continues it. Name one that has."
    if has_weights(directory):
        return "Add the config.json that belongs to its weights. Name one that has."
    return describe_other_model(directory) or "Name one that has."


def check_hub_id(name: str) -> None:
    """Raise UserError for the name of something that is no directory, if it cannot be a hub id either."""
    path = Path(name)
    if path.exists():
        where = f" Name its directory, {path.parent}." if (path.parent / "config.json").is_file() else ""
        raise UserError(f"{name} is a file, and a checkpoint is a directory with config.json and weights.{where}")
    if name.startswith("~") and path.expanduser().is_dir():
        raise UserError(f"No directory {name}: the shell did not expand the '~'. Write {path.expanduser()}.")
    could_be_id = HUB_ID.fullmatch(name) is not None
    here = could_be_id and "/" in name and path.parent.is_dir()  # OWNER/NAME, and OWNER is a directory
    if could_be_id and not (here and not is_cached(name, "config.json")):
        return
    hint = did_you_mean(path.name, sibling_names(path))
    if here and not hint:
        hint = f" {path.parent} is a directory here; if the hub's {name} is meant, run the command elsewhere."
    raise UserError(
        f"No directory {name}: a checkpoint is a local directory or a hub id such as bert-base-uncased.{hint}"
    )


def check_available(what: str, checkpoint: str, revision: str | None) -> None:
    """Raise UserError unless the hub, or its local cache, has a model under this id, before torch is loaded.

    Only its config.json is downloaded.
    """
    from huggingface_hub import hf_hub_download

    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    with explain_loading_errors(f"{what} {checkpoint}", checkpoint):
        hf_hub_download(checkpoint, "config.json", revision=revision, local_files_only=offline)
        if offline and not any(is_cached(checkpoint, file, revision) for file in WEIGHT_FILES):
            raise FileNotFoundError


def is_cached(checkpoint: str, file: str, revision: str | None = None) -> bool:
    """Return whether the local cache of the hub has a file of a checkpoint."""
    go_offline_if_unreachable()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(checkpoint, file, revision=revision), str)


def _short_cause(error: BaseException) -> str:
    """Return the message of an error in one line of readable length."""
    if str(error).startswith("Weights only load failed"):  # torch then explains how to execute the code in the file
        return "it is no file of weights alone, and what else it holds is never run"
    if "trust_remote_code" in str(error):
        return "its class is code of its own, which is never run; take a checkpoint whose class transformers has"
    return shortened(" ".join(str(error).split()).rstrip(".") or type(error).__name__, 400)


def explain_loading_errors(what: str, checkpoint: str, *files: str) -> AbstractContextManager[None]:
    """Return a context manager that turns any error of a library that loads ``checkpoint`` into a UserError.

    For a directory the message names the ``files`` in it, for a hub id ``what`` could not be loaded.
    """

    def describe(error: BaseException) -> UserError:
        if not os.path.isdir(checkpoint):
            # An OSError means that files could not be had; anything else is the fault of what they hold.
            if isinstance(error, OSError):
                return hub_error(f"{what}, which is no directory here", error)
            return UserError(f"Could not load {what}: {_short_cause(error)}. {CHECKPOINT_ADVICE}")
        names = " and ".join([str(Path(checkpoint) / files[0]), *files[1:]])
        return UserError(f"{names} cannot be loaded: {_short_cause(error)}. {CHECKPOINT_ADVICE}")

    return explain_library_errors(describe)
