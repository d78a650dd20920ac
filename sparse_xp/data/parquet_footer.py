"""Read the footer of a parquet file: what it says about its columns, before anything is unpacked.

The reader of pyarrow aborts the process on a damaged footer; this one raises an exception."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: the types of parquet in the order of their numbers
TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
#: the least number of bytes that a value takes in memory, for the types that have one
WIDTHS = {"INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4, "FIXED_LEN_BYTE_ARRAY": 1}
#: the Thrift type of the footer
STRUCT = 12


@dataclass
class Chunk:
    """A column chunk as the footer describes it: path in the schema, type, encodings, number of values, bytes."""

    path: str
    kind: str
    encodings: list[int]
    values: int
    size: int

    @property
    def least(self) -> int:
        """The least number of bytes that it takes in memory."""
        return max(self.size, self.values * WIDTHS.get(self.kind, 0))


def chunks_of(path: Path, columns: list[str]) -> list[Chunk]:
    """Return the chunks of ``columns``, from the footer at the end of the file.

    Raises ValueError, LookupError, TypeError or OSError for a malformed footer.
    """
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        footer = Thrift(file.read(length)).value(STRUCT)
    chunks = []
    for group in footer[4]:
        for described in (column[3] for column in group[1]):
            names = [name.decode() for name in described[3]]
            if names[0] in columns or ".".join(names) in columns:
                kind = TYPES[described[1]]
                chunks.append(Chunk(".".join(names), kind, described[2], max(0, described[5]), max(0, described[6])))
    return chunks


class Thrift:
    """A reader of Thrift's compact protocol; a struct becomes a dictionary by field number."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def bytes(self, count: int) -> bytes:
        """Return the next ``count`` bytes. Raises ValueError past the end."""
        if count > len(self.data) - self.at:
            raise ValueError("its description is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def whole(self) -> int:
        """Return the next number of variable length."""
        number = shift = 0
        while True:
            (byte,) = self.bytes(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return number

    def signed(self) -> int:
        """Return the next zigzag-encoded number, whose last bit is the sign."""
        number = self.whole()
        return number >> 1 ^ -(number & 1)

    def value(self, kind: int) -> Any:
        """Return the next value, of Thrift type ``kind``."""
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.bytes(1)[0]
            case 4 | 5 | 6:
                return self.signed()
            case 7:
                return self.bytes(8)
            case 8:
                return self.bytes(self.whole())
            case 9 | 10:
                (head,) = self.bytes(1)
                count = self.whole() if head >> 4 == 15 else head >> 4
                inner = head & 15
                return [self.bytes(1) if inner <= 2 else self.value(inner) for _ in range(count)]
            case 12:
                fields: dict[int, Any] = {}
                number = 0
                while head := self.bytes(1)[0]:
                    number = number + (head >> 4) if head >> 4 else self.signed()
                    fields[number] = self.value(head & 15)
                return fields
        raise ValueError(f"its description has a part of type {kind}")
