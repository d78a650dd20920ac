"""Read the files of a model directory, which anybody may have written. Damage is one message that names the file."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import Any

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.untrusted_json import is_count, parse_json_object

#: what to do about a damaged file
CHECKPOINT_ADVICE = "Copy or download the checkpoint again, or choose another."
#: the longest header of a safetensors file that is read, as in its library
MAX_HEADER_BYTES = 100_000_000
#: bits of the types that a safetensors file may hold
DTYPE_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8},
    **{"F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
}
#: the files that weights are looked for in, in the order of transformers
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
#: how files begin that are often found in place of a checkpoint's, and what they are
OTHER_CONTENTS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file itself: run git lfs pull beside it"),
    (b"<", "it is a web page"),
    (b"GGUF", "it is a GGUF file of llama.cpp"),
    (b"PK\x03\x04", "it is a zip archive, such as torch.save writes into pytorch_model.bin"),
    (b"\x80", "it is a pickle, such as torch.save writes into pytorch_model.bin"),
    (b"\x1f\x8b", "it is compressed by gzip"),
    (b"\x89HDF", "it is an HDF5 file of TensorFlow"),
    (b"{", "it is JSON"),
)
#: files that directories without weights of transformers hold, as patterns, and what to do with each
OTHER_MODELS = (
    (
        "adapter_config.json",
        "It holds an adapter of PEFT (LoRA). Merge it into its base model first (merge_and_unload and save_pretrained "
        "of peft), and name the directory of the result.",
    ),
    ("*.gguf", "It holds a model for llama.cpp (GGUF), which cannot be trained. Name one of transformers."),
    ("*.onnx", "An ONNX file cannot be trained. Name the directory of the model that it was exported from."),
    ("*.xml", "A model of OpenVINO cannot be trained. Name the directory of the model that it was converted from."),
    ("*.h5", "Its weights are of TensorFlow. Name one with model.safetensors."),
    ("*.ckpt*", "Its weights are of TensorFlow or Lightning. Load them there, and write them with save_pretrained."),
    ("*.msgpack", "Its weights are of Flax. Name one with model.safetensors."),
    ("*.safetensors", "Its weights have names that are not read: call the file model.safetensors, or add its index."),
    ("*.bin", "Its weights have names that are not read: call the file pytorch_model.bin, or add its index."),
    ("*.pt*", "Load its weights into a model of transformers first, and write that with save_pretrained."),
)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint. Raises UserError for anything else."""
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        data = path.read_bytes()
        if not data.startswith(b"{") and (found := other_content(data)):
            raise ValueError(found)
        return parse_json_object(data)


def other_content(start: bytes) -> str:
    """Return what a file is that begins with ``start``; empty if it is nothing that is known."""
    return next((what for magic, what in OTHER_CONTENTS if start.startswith(magic)), "")


def describe_other_model(directory: Path) -> str:
    """Return what a directory holds that is no checkpoint of transformers, and what to do; empty if nothing known."""
    return next((advice for pattern, advice in OTHER_MODELS if any(directory.glob(pattern))), "")


def has_weights(directory: Path) -> bool:
    """Return whether a directory has a file of weights under a name that is read."""
    return any((directory / name).is_file() for name in WEIGHT_FILES)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a vocabulary or of merges. Raises UserError if the file is empty or not UTF-8."""
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        found = path.read_bytes().decode("utf-8").splitlines()
        if not any(map(str.strip, found)):
            raise ValueError("it is empty")
        return found


def read_safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return the header of a safetensors file: ``dtype``, ``shape`` and ``data_offsets`` of each tensor by name.

    No weights are read. Raises UserError for a malformed header, and for a file that ends before its tensors do.
    """
    with explain_read_errors(path, CHECKPOINT_ADVICE), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(24)
        length = int.from_bytes(start[:8], "little")
        if not size:
            raise ValueError("it is empty")
        if length > MAX_HEADER_BYTES and (what := other_content(start)):
            raise ValueError(what)
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):  # before so many bytes are asked for
            raise ValueError("its header is longer than the file")
        file.seek(8)
        found = parse_json_object(file.read(length))
        metadata = found.pop("__metadata__", None)
        if metadata is not None and not isinstance(metadata, dict):
            raise ValueError("its metadata are no JSON object")
        for name, each in found.items():
            if wrong := _tensor_error(each, size - 8 - length):
                raise ValueError(f"{shortened(name, 100)} {wrong}")
        if not found:
            raise ValueError("it holds no tensors")
        return found


def _tensor_error(entry: object, size: int) -> str:
    """Return what is wrong with the entry of a tensor in a header, or an empty string. ``size``: bytes of all data."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        return "has no dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        return f"is of an unknown type {shortened(repr(dtype), 100)}"
    if not all(isinstance(each, list) and all(is_count(number) for number in each) for each in (shape, offsets)):
        return "has a shape or offsets that are no lists of whole numbers"
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
        return "ends behind the end of the file"
    if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * DTYPE_BITS[dtype]:
        return "has another size than its shape"
    return ""


def weight_files(directory: Path) -> list[Path]:
    """Return the file of a model's weights, or the index and the files that it names.

    Raises UserError if there is none, or if one of them is damaged, as far as its header shows.
    """
    with explain_read_errors(directory, CHECKPOINT_ADVICE):
        first = next((directory / name for name in WEIGHT_FILES if os.path.lexists(directory / name)), None)
    if first is None:
        names = f"{', '.join(WEIGHT_FILES[:-1])} or {WEIGHT_FILES[-1]}"
        advice = describe_other_model(directory) or CHECKPOINT_ADVICE
        raise UserError(f"{directory} has no weights: expected {names}. {advice}")
    found = [first]
    if first.suffix == ".json":
        found += _shards(first, read_json_object(first))
    for path in found:
        if path.suffix == ".safetensors":
            read_safetensors_header(path)
        with explain_read_errors(path, CHECKPOINT_ADVICE), path.open("rb") as file:
            start = file.read(24)
            if not start:
                raise ValueError("it is empty")
            if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
                raise ValueError("it ends too early")
            if path.suffix == ".bin" and not start.startswith((b"PK", b"\x80")) and (what := other_content(start)):
                raise ValueError(what)
    return found


def _shards(path: Path, index: dict[str, Any]) -> list[Path]:
    """Return the files that an index names. Raises UserError unless they are beside it and hold the listed weights."""
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        if not isinstance(index.get("metadata"), dict):
            raise ValueError("it has no object 'metadata'")
        files = index.get("weight_map")
        if not isinstance(files, dict) or not files:
            raise ValueError("it has no object 'weight_map', or an empty one")
        for name, file in files.items():
            if not isinstance(file, str) or Path(file).name != file or not file.endswith((".safetensors", ".bin")):
                raise ValueError(
                    f"it says that {shortened(name, 100)} is in {shortened(repr(file), 100)}, which is no weight file "
                    "beside it"
                )
    paths = [path.parent / name for name in sorted(set(files.values()))]
    for shard in paths:
        if shard.suffix == ".safetensors":
            header = read_safetensors_header(shard)
            if missing := [name for name, file in files.items() if file == shard.name and name not in header]:
                raise UserError(
                    f"{shard} is damaged (it lacks {missing[0]}, which {path.name} says is there). {CHECKPOINT_ADVICE}"
                )
    return paths
