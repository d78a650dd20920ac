"""Read parquet files within limits. Damage is a UserError; the size in memory is estimated before unpacking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.data.limits import Limits, Meter
from sparse_xp.data.parquet_footer import Chunk, chunks_of
from sparse_xp.data.plain_types import with_plain_types, with_python_values
from sparse_xp.errors import UserError, first_line
from sparse_xp.files.reading import check_file, explain_read_errors

if TYPE_CHECKING:
    import pyarrow

#: rows of a parquet file that are unpacked together: if their size is unknown, if it is known (at most), and while
#: texts are read as numbers of a dictionary
FEW, MANY, NUMBERED = 64, 4096, 65536
#: bytes of unpacked rows that are joined into one piece of a table
PIECE = 1 << 26
#: advice about a damaged file
DATA_FILE_ADVICE = "Fetch or write it again."


@contextmanager
def explain_arrow_errors(path: Path) -> Iterator[None]:
    """Turn an error of Arrow about the contents of ``path`` into a UserError."""
    import pyarrow

    with explain_read_errors(path, DATA_FILE_ADVICE):
        try:
            yield
        except UserError:
            raise
        except (pyarrow.ArrowException, MemoryError, OverflowError) as error:
            raise UserError(f"{path} is damaged ({first_line(error)}). {DATA_FILE_ADVICE}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise UserError(f"{path} is damaged ({first_line(error)}). {DATA_FILE_ADVICE}") from error


def read_table(path: Path, limits: Limits) -> pyarrow.Table:
    """Return the rows of a parquet file in memory. Raises UserError for damage, and past the limits.

    Their types are those of ``plain_types``.
    """
    import pyarrow

    check_file(path)
    pieces: list[pyarrow.Table] = []
    part: list[pyarrow.RecordBatch] = []
    size = 0
    for batch in map(with_plain_types, batches_of(path, Meter(limits))):
        part.append(batch)
        size += batch.nbytes
        if size > PIECE:
            pieces.append(pyarrow.Table.from_batches(part).combine_chunks())
            part, size = [], 0
    with explain_arrow_errors(path):
        if part:
            pieces.append(pyarrow.Table.from_batches(part).combine_chunks())
        if not pieces:
            return with_plain_types(parquet_schema(path).empty_table())
        return with_python_values(pyarrow.concat_tables(pieces))


def parquet_schema(path: Path) -> pyarrow.Schema:
    """Return the schema of a parquet file. Raises UserError for another format, and for two columns of one name."""
    import pyarrow
    import pyarrow.parquet

    check_file(path)
    with explain_arrow_errors(path):
        try:
            schema = pyarrow.parquet.ParquetFile(path).schema_arrow
        except pyarrow.ArrowInvalid as error:
            raise UserError(f"{path} is not a parquet file ({first_line(error)}). {DATA_FILE_ADVICE}") from error
        if len(set(schema.names)) < len(schema.names):
            raise UserError(f"{path}: two columns have the same name: {', '.join(schema.names)}.")
        return schema


def batches_of(path: Path, meter: Meter, columns: list[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of a parquet file in batches, validated and counted. Raises UserError for damage."""
    import pyarrow
    import pyarrow.parquet

    names = parquet_schema(path).names if columns is None else columns
    with explain_arrow_errors(path):
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        expected = file.metadata.num_rows
        chunks = chunks_of(path, names)
        meter.foresee(path, expected, sum(chunk.least for chunk in chunks))
        size = _unpacked_size(path, chunks, meter)
        batch_rows = FEW if size is None else max(1, min(MANY, PIECE * expected // max(1, size)))
        seen = 0
        for batch in file.iter_batches(batch_rows, columns=columns):
            meter.add(path, batch.num_rows, batch.nbytes)
            try:
                batch.validate(full=True)
            except pyarrow.ArrowInvalid as error:
                raise UserError(f"{path}, {_bad_text(batch, seen)}: {first_line(error)}. {DATA_FILE_ADVICE}") from error
            seen += batch.num_rows
            yield batch
        if seen != expected:
            raise UserError(
                f"{path} is damaged (it says that it has {expected:,} rows, and has {seen:,}). {DATA_FILE_ADVICE}"
            )


#: the encodings of texts that Arrow does not read as numbers of a dictionary
DELTAS = {6, 7}


def _unpacked_size(path: Path, chunks: list[Chunk], meter: Meter) -> int | None:
    """Return the bytes that the columns take in memory; None if that is unknown without unpacking them.

    Texts are often dictionary-encoded: 40,000 rows may share a text of a megabyte, which the file stores once. This
    function reads the indices and adds up the lengths of their texts. Raises UserError past the limit.
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
        for group in range(numbered.num_row_groups):  # each row group has its own dictionaries
            for batch in numbered.iter_batches(NUMBERED, row_groups=[group], columns=names):
                size += sum(map(_length_of_texts, batch.columns))
                meter.foresee(path, 0, size)
    except (pyarrow.ArrowException, OSError, KeyError):  # Arrow cannot read all it writes in this way
        return None
    return size


def _length_of_texts(array: pyarrow.Array) -> int:
    """Return the bytes of all dictionary-encoded texts in an array, at any depth."""
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
    """Return where a batch is invalid, as ``row N, column NAME``, or else the range of its rows."""
    import pyarrow

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row in range(len(column)):
            try:
                column.slice(row, 1).validate(full=True)
            except pyarrow.ArrowInvalid:
                return f"row {first + row}, column '{name}'"
    return f"rows {first} to {first + batch.num_rows - 1}"
