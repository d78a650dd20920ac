"""How much of a user's file is read, and the rows of a parquet file within that: damage is an error in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files import neighbours, reading

if TYPE_CHECKING:
    import pyarrow

#: rows of a parquet file that are unpacked together: if their size is unknown, if it is known (at most), and while
#: texts are read as numbers of a dictionary
FEW, MANY, NUMBERED = 64, 4096, 65536
#: bytes of unpacked rows that are joined into one piece of a table
PIECE = 1 << 26
#: what to do about a file that is not what was written
AGAIN = "Fetch or write it again."


@dataclass(frozen=True)
class Limits:
    """How much is read of a user's files: ``rows``, and ``bytes`` of a text file or of what parquet unpacks to.

    ``prefix``: what stands before the keys ``max_rows=`` and ``max_gigabytes=`` in messages.
    """

    rows: int = 100_000_000
    bytes: int = 16_000_000_000
    prefix: str = "data."

    def check(self, path: Path, rows: int, size: int) -> None:
        """Raise UserError if ``path`` brings ``rows`` or ``size`` past the limit."""
        if rows > self.rows:
            raise UserError(
                f"{path}: more than {self.rows:,} rows. Give {self.prefix}max_rows= a larger number if they are meant."
            )
        if size > self.bytes:
            raise UserError(
                f"{path}: more than {self.bytes / 1e9:g} GB of data. Give {self.prefix}max_gigabytes= a larger number "
                "if they are meant."
            )


#: where nobody says otherwise
LIMITS = Limits()


@dataclass
class Meter:
    """What was read so far of one file or of several, against their common limits."""

    limits: Limits
    rows: int = 0
    bytes: int = 0

    def add(self, path: Path, rows: int, size: int) -> None:
        """Count what was read of ``path``. Raises UserError past the limits."""
        self.rows += rows
        self.bytes += size
        self.limits.check(path, self.rows, self.bytes)

    def foresee(self, path: Path, rows: int, size: int) -> None:
        """Raise UserError if so much more would be past the limits."""
        self.limits.check(path, self.rows + rows, self.bytes + size)


def check_file(path: Path) -> None:
    """Raise UserError, with the nearest name, unless there is a file at ``path``."""
    with reading(path):
        if path.is_file():
            return
        if path.is_dir():
            raise UserError(f"{path} is a directory, and should be a file. Name one in it.")
        if path.exists():  # a pipe, say, which nothing may ever be written into
            raise UserError(f"{path} is no file on a disk. Write its contents into one.")
        raise UserError(f"No file {path}.{did_you_mean(path.name, neighbours(path))}")


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn an error of Arrow's about the contents of ``path`` into a UserError."""
    import pyarrow

    with reading(path, AGAIN):
        try:
            yield
        except UserError:
            raise
        except (pyarrow.ArrowException, MemoryError, OverflowError) as error:
            raise UserError(f"{path} is damaged ({first_line(error)}). {AGAIN}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise UserError(f"{path} is damaged ({first_line(error)}). {AGAIN}") from error


def first_line(error: BaseException) -> str:
    """What an error says, as a part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def read_table(path: Path, limits: Limits) -> pyarrow.Table:
    """The rows of a parquet file in memory. Raises UserError for damage, and past the limits."""
    import pyarrow

    check_file(path)
    pieces: list[pyarrow.Table] = []
    part: list[pyarrow.RecordBatch] = []
    size = 0
    for batch in batches_of(path, Meter(limits)):
        part.append(batch)
        size += batch.nbytes
        if size > PIECE:
            pieces.append(pyarrow.Table.from_batches(part).combine_chunks())
            part, size = [], 0
    with understood(path):
        if part:
            pieces.append(pyarrow.Table.from_batches(part).combine_chunks())
        return pyarrow.concat_tables(pieces) if pieces else parquet_schema(path).empty_table()


def parquet_schema(path: Path) -> pyarrow.Schema:
    """The columns of a parquet file. Raises UserError for one that is none, or names a column twice."""
    import pyarrow
    import pyarrow.parquet

    check_file(path)
    with understood(path):
        try:
            schema = pyarrow.parquet.ParquetFile(path).schema_arrow
        except pyarrow.ArrowInvalid as error:
            raise UserError(f"{path} is not a parquet file ({first_line(error)}). {AGAIN}") from error
        if len(set(schema.names)) < len(schema.names):
            raise UserError(f"{path}: two columns have the same name: {', '.join(schema.names)}.")
        return schema


def batches_of(path: Path, meter: Meter, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a parquet file, a few at a time, each checked and counted. Raises UserError for damage."""
    import pyarrow
    import pyarrow.parquet

    names = parquet_schema(path).names if columns is None else columns
    with understood(path):
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        wanted = file.metadata.num_rows
        chunks = chunks_of(path, names)
        meter.foresee(path, wanted, sum(chunk.least for chunk in chunks))
        size = _unpacked_size(path, chunks, meter)
        together = FEW if size is None else max(1, min(MANY, PIECE * wanted // max(1, size)))
        there = 0
        for batch in file.iter_batches(together, columns=columns):
            meter.add(path, batch.num_rows, batch.nbytes)
            try:
                batch.validate(full=True)
            except pyarrow.ArrowInvalid as error:
                raise UserError(f"{path}, {_bad_text(batch, there)}: {first_line(error)}. {AGAIN}") from error
            there += batch.num_rows
            yield batch
        if there != wanted:
            raise UserError(f"{path} is damaged (it says that it has {wanted:,} rows, and has {there:,}). {AGAIN}")


@dataclass
class Chunk:
    """What a file says of a part of a column: its place in the schema, how it is written, and how much is in it."""

    path: str
    kind: str
    encodings: list[int]
    values: int
    size: int

    @property
    def least(self) -> int:
        """The bytes that it takes in memory at least."""
        return max(self.size, self.values * WIDTHS.get(self.kind, 0))


def chunks_of(path: Path, columns: list[str]) -> list[Chunk]:
    """The parts of the columns, read from the end of the file: pyarrow's own reader of them aborts on damage.

    Raises an error of Python's for what is not of the format.
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


#: the types of parquet in the order of their numbers
TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
#: of those of them that have one, the bytes of a value in memory at least
WIDTHS = {"INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4, "FIXED_LEN_BYTE_ARRAY": 1}
#: the encodings of texts that Arrow does not read as numbers of a dictionary
DELTAS = {6, 7}
#: the type of Thrift that a file's description is
STRUCT = 12


class Thrift:
    """Thrift's compact protocol: a struct is a dictionary by the numbers of its fields."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def bytes(self, count: int) -> bytes:
        """The next bytes. Raises ValueError past the end."""
        if count > len(self.data) - self.at:
            raise ValueError("its description is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def whole(self) -> int:
        """A number of as many bytes as it needs."""
        found = shift = 0
        while True:
            (byte,) = self.bytes(1)
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return found

    def signed(self) -> int:
        """The same with its sign in the last bit."""
        found = self.whole()
        return found >> 1 ^ -(found & 1)

    def value(self, kind: int) -> Any:
        """A value of a type of Thrift."""
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


def _unpacked_size(path: Path, chunks: list[Chunk], meter: Meter) -> int | None:
    """What the columns take in memory, None where that cannot be told without unpacking them.

    Texts are often stored as numbers of a dictionary: 40,000 rows may share one of a megabyte, which the file counts
    once. They are read as such numbers here, and their lengths added up. Raises UserError if that is past the limit.
    """
    import pyarrow
    import pyarrow.parquet

    size = sum(chunk.least for chunk in chunks)
    texts = [chunk for chunk in chunks if chunk.kind == "BYTE_ARRAY"]
    if any(DELTAS & set(chunk.encodings) for chunk in texts):
        return None
    names = list(dict.fromkeys(chunk.path for chunk in texts))
    if not names:
        return size
    try:
        numbered = pyarrow.parquet.ParquetFile(path, read_dictionary=names)
        for group in range(numbered.num_row_groups):  # each has dictionaries of its own
            for batch in numbered.iter_batches(NUMBERED, row_groups=[group], columns=names):
                size += sum(map(_length_of_texts, batch.columns))
                meter.foresee(path, 0, size)
    except (pyarrow.ArrowException, OSError, KeyError):  # Arrow cannot read all it writes in this way
        return None
    return size


def _length_of_texts(array: pyarrow.Array) -> int:
    """The bytes of the texts that an array refers to by numbers, however deep inside it."""
    import pyarrow
    from pyarrow import compute

    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        lengths = compute.binary_length(array.dictionary)
        return int(compute.sum(lengths.take(array.indices)).as_py() or 0)
    if pyarrow.types.is_struct(kind):
        return sum(map(_length_of_texts, array.flatten()))
    if pyarrow.types.is_map(kind):
        return _length_of_texts(array.keys) + _length_of_texts(array.items)
    if pyarrow.types.is_nested(kind):
        return _length_of_texts(array.flatten())
    return 0


def _bad_text(batch: pyarrow.RecordBatch, first: int) -> str:
    """Where a batch is not valid: ``row N, column NAME``, as far as that can be told."""
    import pyarrow

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row in range(len(column)):
            try:
                column.slice(row, 1).validate(full=True)
            except pyarrow.ArrowInvalid:
                return f"row {first + row}, column '{name}'"
    return f"rows {first} to {first + batch.num_rows - 1}"
