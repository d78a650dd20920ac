"""Read the documents of text and parquet files into the cache. A corpus need not fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.data.arrow_files import write_rows
from sparse_xp.data.limits import DEFAULT_LIMITS, Limits, Meter
from sparse_xp.data.parquet import batches_of, parquet_schema
from sparse_xp.data.text_files import read_lines_lazily
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import file_sha256, files_stamp
from sparse_xp.files.ownership import read_marker
from sparse_xp.files.reading import check_file, explain_read_errors
from sparse_xp.files.text_format import RECOGNISED, TextFormat

if TYPE_CHECKING:
    from datasets import Dataset


def read_corpus(
    path: Path, column: str, cache: Path, limits: Limits = DEFAULT_LIMITS, text_format: TextFormat = RECOGNISED
) -> Dataset:
    """Return the documents of a .txt or .parquet file, or of all such files below a directory, in order of their names.

    In a .txt file a blank line ends a document; in a .parquet file each row is a document, in ``column``. They are
    written once to ``cache``, by a fingerprint of the files, and read from there. ``limits``: of all files together.

    Raises UserError for damage, and past the limits.
    """
    paths = corpus_files(path)
    if unused := sorted(text_format.given.keys() - {"encoding"}):
        raise UserError(
            f"{text_format.prefix}{unused[0]}= means nothing for {path}, which has no columns. Leave it out."
        )
    key = [column, *text_format.given.values(), *map(files_fingerprint, paths)]
    digest = hashlib.sha256("".join(key).encode()).hexdigest()[:16]
    meter = Meter(limits)
    documents = (document for file in paths for document in _documents(file, column, meter, text_format))
    return write_rows(({column: text} for text in documents), cache / "corpora" / f"{path.stem}-{digest}", path.name)


def corpus_files(path: Path) -> list[Path]:
    """Return the .txt and .parquet files that ``path`` is or contains, sorted."""
    with explain_read_errors(path):
        if not path.is_dir():
            check_file(path)
            return [path]
        candidates = (file for file in path.rglob("*") if file.suffix.lower() in (".txt", ".parquet"))
        files = sorted(file for file in candidates if not file.is_dir() and not _is_output(file))
    if not files:
        raise UserError(f"{path} holds no .txt and no .parquet file.")
    for file in files:
        check_file(file)
    return files


def _is_output(path: Path) -> bool:
    """Return whether a text is an output of sparse_xp: its cache and runs may lie below the directory of a corpus."""
    kind = read_marker(path.parent)
    return path.name in ("log.txt", "error.txt") if kind == "run" else kind is not None


def _documents(path: Path, column: str, meter: Meter, text_format: TextFormat = RECOGNISED) -> Iterator[str]:
    """Yield the texts of one file, a few in memory at a time. Raises UserError for damage, and past the limits."""
    if path.suffix.lower() == ".parquet":
        yield from _texts(path, column, meter)
        return
    check_file(path)
    with explain_read_errors(path):
        meter.foresee(path, 0, path.stat().st_size)
    lines: list[str] = []
    for line in read_lines_lazily(path, text_format):
        if line.strip():
            lines.append(line.strip())
        elif lines:
            yield _count("\n".join(lines), path, meter)
            lines = []
    if lines:
        yield _count("\n".join(lines), path, meter)


def _count(document: str, path: Path, meter: Meter) -> str:
    meter.add(path, 1, len(document))
    return document


def _texts(path: Path, column: str, meter: Meter) -> Iterator[str]:
    """Yield the texts of a column of a parquet file, null as an empty text."""
    import pyarrow

    schema = parquet_schema(path)
    if column not in schema.names:
        raise UserError(f"{path} has no column '{column}', but {', '.join(schema.names)}; task.text= names it.")
    kind = schema.field(column).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not any(
        getattr(pyarrow.types, f"is_{name}")(kind) for name in ("string", "large_string", "string_view", "null")
    ):
        raise UserError(
            f"{path}: column '{column}' has values of type {kind}, expected texts; task.text= names another."
        )
    for batch in batches_of(path, meter, [column]):
        yield from (text or "" for text in batch.column(0).to_pylist())


def files_fingerprint(path: Path) -> str:
    """Return ``sha256:`` and the digest of a file, or of all files of a corpus."""
    if path.is_dir():
        whole = hashlib.sha256("".join(map(files_fingerprint, corpus_files(path))).encode())
        return f"sha256:{whole.hexdigest()}"
    with explain_read_errors(path):
        return _fingerprint(path, files_stamp([path]))


@cache
def _fingerprint(path: Path, stamp: str) -> str:
    """Return the fingerprint of a file, computed again only if its ``stamp`` is another."""
    return f"sha256:{file_sha256(path)}"
