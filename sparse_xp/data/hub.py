"""Checkpoints: on the Hugging Face hub, which may not be there, or in a directory, which may be damaged."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparse_xp.errors import UserError, shortened
from sparse_xp.files import reading

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
    why = "the hub is unreachable and it is not in the local cache" if offline else cause(error)
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
        with reading(path / "config.json", AGAIN):
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


# Directories, whose files anybody may have written

#: what to do about a damaged file
AGAIN = "Copy or download the checkpoint again, or choose another."
#: how deep the JSON of a checkpoint may be nested; transformers and tokenizers walk it recursively
DEEPEST = 100
#: digits of a whole number in JSON: those of 64 bits, and to spare
MOST_DIGITS = 100
#: the longest header of a safetensors file that is read, as in its library
LONGEST_HEADER = 100_000_000
#: bits of the types that a safetensors file may hold
BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8},
    **{"F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
}
#: the files that weights are looked for in, in the order of transformers
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def cause(error: BaseException) -> str:
    """What an error says, in one line of a readable length."""
    if str(error).startswith("Weights only load failed"):  # then torch tells how to run what is in the file
        return "it is no file of weights alone, and what else it holds is never run"
    return shortened(" ".join(str(error).split()).rstrip(".") or type(error).__name__, 400)


@contextmanager
def loading(what: str, checkpoint: str, *files: str) -> Iterator[None]:
    """Turn whatever a library raises in the block into a UserError.

    For a directory the message names the ``files`` in it, for a hub id ``what`` could not be loaded.
    """
    try:
        yield
    except UserError:
        raise
    # The files are not trusted, and transformers, tokenizers, safetensors and torch raise a dozen classes for them.
    except BaseException as error:
        # A panic of Rust code is no Exception; an interrupt or exit of this process is neither.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if not os.path.isdir(checkpoint):
            raise unavailable(what, RuntimeError(cause(error))) from error
        names = " and ".join([str(Path(checkpoint) / files[0]), *files[1:]])
        raise UserError(f"{names} cannot be loaded: {cause(error)}. {AGAIN}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises UserError for anything else."""
    with reading(path, AGAIN):
        return parsed(path.read_bytes())


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``. Raises ValueError or RecursionError for anything else."""
    found = json.loads(data.decode("utf-8"), parse_int=whole_number)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {kind(found)} in place of a JSON object")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        inner = (child for each in level for child in (each.values() if isinstance(each, dict) else each))
        level = [child for child in inner if isinstance(child, dict | list)]
        if not level:
            return found
    raise RecursionError


def whole_number(digits: str) -> int:
    """The number in a text. Raises ValueError, which says how long it is, where no library could take it."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)


def kind(value: Any) -> str:
    """What JSON calls the type of a value."""
    names: dict[Any, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else "a number")


def read_lines(path: Path) -> list[str]:
    """The lines of a vocabulary or of merges. Raises UserError if there are none, or if they are no UTF-8."""
    with reading(path, AGAIN):
        found = path.read_bytes().decode("utf-8").splitlines()
        if not any(map(str.strip, found)):
            raise ValueError("it is empty")
        return found


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Of each tensor in a safetensors file ``dtype``, ``shape`` and ``data_offsets``; no weights are read.

    Raises UserError for a file whose header is of another form, or that ends before its tensors do.
    """
    with reading(path, AGAIN), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not size:
            raise ValueError("it is empty")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):  # before so many bytes are asked for
            raise ValueError("its header is longer than the file")
        found = parsed(file.read(length))
        metadata = found.pop("__metadata__", None)
        if metadata is not None and not isinstance(metadata, dict):
            raise ValueError("its metadata are no JSON object")
        for name, each in found.items():
            if wrong := wrong_tensor(each, size - 8 - length):
                raise ValueError(f"{shortened(name, 100)} {wrong}")
        if not found:
            raise ValueError("it holds no tensors")
        return found


def wrong_tensor(told: Any, size: int) -> str:
    """What is wrong with what a header tells of a tensor within ``size`` bytes of data; an empty string: nothing."""
    if not isinstance(told, dict) or not {"dtype", "shape", "data_offsets"} <= told.keys():
        return "has no dtype, shape and data_offsets"
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        return f"is of an unknown type {shortened(repr(dtype), 100)}"
    if not all(isinstance(each, list) and all(is_count(number) for number in each) for each in (shape, offsets)):
        return "has a shape or offsets that are no lists of whole numbers"
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
        return "ends behind the end of the file"
    if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * BITS[dtype]:
        return "has another size than its shape"
    return ""


def is_count(value: Any) -> bool:
    """Whether ``value`` is a whole number from 0."""
    return type(value) is int and value >= 0


def weight_files(directory: Path) -> list[Path]:
    """The file of a model's weights, or the index and the files that it names.

    Raises UserError if there is none, or if what they tell of themselves cannot be.
    """
    with reading(directory, AGAIN):
        first = next((directory / name for name in WEIGHTS if os.path.lexists(directory / name)), None)
    if first is None:
        raise UserError(f"{directory} has no weights: want {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}. {AGAIN}")
    found = [first]
    if first.suffix == ".json":
        found += shards(first, read_object(first))
    for path in found:
        if path.suffix == ".safetensors":
            read_header(path)
        with reading(path, AGAIN), path.open("rb") as file:
            start = file.read(4)
            if not start:
                raise ValueError("it is empty")
            if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
                raise ValueError("it ends too early")
    return found


def shards(path: Path, index: dict[str, Any]) -> list[Path]:
    """The files that an index names. Raises UserError unless they are beside it and hold the weights it says."""
    with reading(path, AGAIN):
        if not isinstance(index.get("metadata"), dict):
            raise ValueError("it has no object 'metadata'")
        places = index.get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError("it has no object 'weight_map', or an empty one")
        for name, place in places.items():
            if not isinstance(place, str) or Path(place).name != place or not place.endswith((".safetensors", ".bin")):
                raise ValueError(
                    f"it says that {shortened(name, 100)} is in {shortened(repr(place), 100)}, which is no weight file "
                    "beside it"
                )
    found = [path.parent / name for name in sorted(set(places.values()))]
    for file in found:
        if file.suffix == ".safetensors":
            there = read_header(file)
            if gone := [name for name, place in places.items() if place == file.name and name not in there]:
                raise UserError(f"{file} is damaged (it lacks {gone[0]}, which {path.name} says is there). {AGAIN}")
    return found
