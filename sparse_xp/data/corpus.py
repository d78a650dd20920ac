"""Documents out of files and streams, kept as Arrow on the disk: a corpus need not fit into memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.cache import cached
from sparse_xp.console import count
from sparse_xp.data.batches import read_arrow
from sparse_xp.data.parquet import LIMITS, Limits, Meter, batches_of, check_file, parquet_schema
from sparse_xp.errors import UserError
from sparse_xp.files import marked, reading

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

#: documents that are written together
BATCH = 1000


def read_corpus(path: Path, column: str, cache: Path, limits: Limits = LIMITS) -> Dataset:
    """The documents of a .txt or .parquet file, or of all such below a directory in the order of their names.

    In a .txt file a blank line ends a document; of a .parquet file each row is one, in ``column``. They are written
    once to ``cache``, by a fingerprint of the files, and read from there. ``limits``: of all files together.
    Raises UserError.
    """
    paths = files_of(path)
    prints = hashlib.sha256("".join([column, *map(fingerprint, paths)]).encode()).hexdigest()[:16]
    meter = Meter(limits)
    documents = (document for each in paths for document in documents_of(each, column, meter))
    return kept(({column: text} for text in documents), cache / "corpora" / f"{path.stem}-{prints}", path.name)


def files_of(path: Path) -> list[Path]:
    """The .txt and .parquet files that ``path`` is or holds."""
    with reading(path):
        if not path.is_dir():
            check_file(path)
            return [path]
        there = (each for each in path.rglob("*") if each.suffix.lower() in (".txt", ".parquet"))
        found = sorted(each for each in there if not each.is_dir() and not is_product(each))
    if not found:
        raise UserError(f"{path} holds no .txt and no .parquet file.")
    for each in found:
        check_file(each)
    return found


def is_product(path: Path) -> bool:
    """Whether a text is a list of checksums or a log of sparse_xp's, whose cache or runs may lie below a corpus."""
    kind = marked(path.parent)
    return path.name in ("log.txt", "error.txt") if kind == "run" else kind is not None


def documents_of(path: Path, column: str, meter: Meter) -> Iterator[str]:
    """The texts of one file, a few in memory at a time. Raises UserError for damage, and past the meter's limits."""
    if path.suffix.lower() == ".parquet":
        yield from _texts(path, column, meter)
        return
    check_file(path)
    lines: list[str] = []
    with reading(path):
        meter.foresee(path, 0, path.stat().st_size)
        try:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if "\0" in line:
                        raise UserError(
                            f"{path}, line {number}: a NUL byte; it is damaged, or not UTF-8. Save it as UTF-8."
                        )
                    if line.strip():
                        lines.append(line.strip())
                    elif lines:
                        yield _counted("\n".join(lines), path, meter)
                        lines = []
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {_bad_line(path)}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
    if lines:
        yield _counted("\n".join(lines), path, meter)


def _bad_line(path: Path) -> int:
    """The first line that is not UTF-8; text is decoded in larger parts than lines."""
    with path.open("rb") as file:
        return next(number for number, line in enumerate(file, 1) if not is_utf8(line))


def is_utf8(data: bytes) -> bool:
    """Whether bytes are text."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _counted(document: str, path: Path, meter: Meter) -> str:
    meter.add(path, 1, len(document))
    return document


def _texts(path: Path, column: str, meter: Meter) -> Iterator[str]:
    """The texts of a column of a parquet file; an empty one where there is none."""
    import pyarrow

    schema = parquet_schema(path)
    if column not in schema.names:
        raise UserError(f"{path} has no column '{column}', but {', '.join(schema.names)}; task.text= names it.")
    kind = schema.field(column).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not any(
        getattr(pyarrow.types, f"is_{name}")(kind) for name in ("string", "large_string", "string_view", "null")
    ):
        raise UserError(f"{path}: column '{column}' has values of type {kind}, want texts; task.text= names another.")
    for batch in batches_of(path, meter, [column]):
        yield from (text or "" for text in batch.column(0).to_pylist())


def keep_stream(stream: IterableDataset, rows: int, seed: int, path: Path) -> Dataset:
    """The first ``rows`` of a stream, its shards and pools of 10,000 rows shuffled, written to ``path`` once."""
    shuffled = stream.shuffle(seed=seed, buffer_size=10_000)
    return kept(islice(shuffled, rows), path, path.stem, stream.features)


def kept(rows: Iterable[dict[str, Any]], path: Path, what: str, features: Any = None) -> Dataset:
    """The rows, written to the directory ``path`` of a cache if they are not there yet, and mapped into memory."""
    from datasets.arrow_writer import ArrowWriter

    def make(draft: Path) -> None:
        source = iter(rows)
        first = next(source, None)
        if first is None:
            raise UserError(f"{what} has no rows.")
        with ArrowWriter(path=str(draft / "rows.arrow"), features=features, writer_batch_size=BATCH) as writer:
            for row in count(chain([first], source), f"read {what}"):
                writer.write(row)
            writer.finalize()

    cached(path, make)
    return read_arrow(path)


def fingerprint(path: Path) -> str:
    """``sha256:`` and the digits, of a file or of all files of a corpus."""
    if path.is_dir():
        whole = hashlib.sha256("".join(map(fingerprint, files_of(path))).encode())
        return f"sha256:{whole.hexdigest()}"
    with reading(path), path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


HEADING = re.compile(r"= [^=].*[^=] =|= [^=\s] =")
#: what WikiText's tokenizer took apart, in the order in which it is put together again
JOINTS = [
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" N "), " 1 "),
    (re.compile(r" ['\u2019]s\b"), "'s"),
    (re.compile(r" ([.,:;!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
    (re.compile(r"= (?==)"), "="),
    (re.compile(r"\s+"), " "),
]


def wikitext_documents(lines: Iterable[str]) -> Iterator[str]:
    """The articles of WikiText, of which each line is a row: ``= Title =`` begins one; its tokens are joined again.

    Lines before the first title are an article of their own.
    """
    article: list[str] = []
    for line in lines:
        text = line.strip()
        if HEADING.fullmatch(text) and article:
            yield detokenized(" ".join(article))
            article = []
        if text:
            article.append(text)
    if article:
        yield detokenized(" ".join(article))


def detokenized(text: str) -> str:
    """Running text out of WikiText's tokens."""
    for pattern, replacement in JOINTS:
        text = pattern.sub(replacement, text)
    return text.strip()
