"""Untrusted ONNX files: library errors become messages, and weights must stand in the file or in one beside it.

A message of protobuf has less than 2 GiB: the weights of large models stand in ``model.onnx.data``. Whatever opens
``model.onnx`` (``engines``, ``graph``) calls ``check_self_contained`` first. The check scans the protobuf itself,
without the ``onnx`` package: prediction does not load it.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_library_errors, explain_read_errors

#: what to do about a file that is not what was exported
EXPORT_AGAIN = (
    "The folder is damaged or of an earlier version: python -m sparse_xp.export run=DIR writes that of a run again."
)


def library_errors(path: Path, way_out: str = EXPORT_AGAIN) -> AbstractContextManager[None]:
    """Return a context manager that turns any error of a library about the file ``path`` into a UserError.

    Wrap only the call of the library: our own mistakes should not become messages. ``way_out``: what to do about it.
    """

    def describe(error: BaseException) -> UserError:
        message = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
        return UserError(f"{path} cannot be used ({message}). {way_out}")

    return explain_library_errors(describe, own_mistakes=(AssertionError, NameError))


#: the messages of onnx.proto that contain tensors, by the numbers of the fields that lead to them
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}


#: the fields of a tensor with external data
EXTERNAL_DATA, DATA_LOCATION = 13, 14


def data_file(path: Path) -> Path:
    """Return the file in which weights of the ONNX file ``path`` may stand."""
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> list[Path]:
    """Return an ONNX file and, if it has one, its file of weights."""
    return [path, *([data_file(path)] if data_file(path).is_file() else [])]


def check_self_contained(path: Path) -> None:
    """Raise UserError for an ONNX file with weights in another file than ``data_file(path)``, or beyond its end.

    onnxruntime 1.23 reads external data from any path of the machine, also from absolute ones and those with ``..``.
    """
    with explain_read_errors(path, EXPORT_AGAIN), path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            external = list(_external_tensors(data, 0, len(data), "model"))
    beside = data_file(path)
    if any(entries.get("location") != beside.name for entries in external):
        raise UserError(f"{path} has weights in other files than {beside.name}. {EXPORT_AGAIN}")
    if external:
        with explain_read_errors(beside, f"Copy it together with {path.name}. {EXPORT_AGAIN}"):
            status = beside.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is a link or no file")
            if max(_end_of(entries) for entries in external) > status.st_size:
                raise ValueError("it is cut short")


def _end_of(entries: dict[str, str]) -> int:
    """Return the offset behind a tensor in the file of weights. Raises ValueError for anything but numbers."""
    numbers = [entries.get(key, "0") for key in ("offset", "length")]
    if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
        raise ValueError("the place of a weight in it is no number")
    return sum(map(int, numbers))


def _external_tensors(data: mmap.mmap, begin: int, end: int, message: str) -> Iterator[dict[str, str]]:
    """Yield the external data (location, offset, length) of each tensor in ``data[begin:end]`` that has some.

    ``message``: the type of the message there, a key of MESSAGES.
    """
    entries: dict[str, str] = {}
    external = False
    for number, first, last in protobuf_fields(data, begin, end):
        if message == "tensor" and number == EXTERNAL_DATA:
            parts = {key: bytes(data[i:j]).decode(errors="replace") for key, i, j in protobuf_fields(data, first, last)}
            entries[parts.get(1, "")] = parts.get(2, "")
            external = True
        if message == "tensor" and number == DATA_LOCATION:
            external |= any(data[first:last])
        if inner := MESSAGES[message].get(number):
            yield from _external_tensors(data, first, last, inner)
    if external:
        yield entries


def protobuf_fields(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, begin and end of the value) for each field of the message in ``data[begin:end]``.

    Raises ValueError for bytes that are no message.
    """
    while begin < end:
        key, begin = read_varint(data, begin, end)
        wire_type = key & 7
        if wire_type == 2:  # a length, then so many bytes
            size, begin = read_varint(data, begin, end)
            last = begin + size
        elif wire_type == 0:  # a varint
            last = read_varint(data, begin, end)[1]
        else:  # 64 or 32 bits
            last = begin + {1: 8, 5: 4}.get(wire_type, end)
        if last > end:
            raise ValueError("it is cut short, or no ONNX file")
        yield (key & 0xFFFFFFFF) >> 3, begin, last
        begin = last


def read_varint(data: mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    """Return the integer at ``begin`` and the offset behind it. Raises ValueError if it does not end before ``end``."""
    value = 0
    for offset in range(begin, min(begin + 10, end)):
        value |= (data[offset] & 127) << 7 * (offset - begin)
        if data[offset] < 128:
            return value, offset + 1
    raise ValueError("it is cut short, or no ONNX file")
