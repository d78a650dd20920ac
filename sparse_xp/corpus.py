"""Documents out of files and streams, kept as Arrow on the disk: a corpus need not fit into memory."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sparse_xp.console import count
from sparse_xp.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

#: documents of a parquet file that are in memory together
BATCH = 1000


def read_corpus(path: Path, column: str, cache: Path) -> Dataset:
    """The documents of a .txt or .parquet file, or of all such below a directory in the order of their names.

    In a .txt file a blank line ends a document; of a .parquet file each row is one, in ``column``. They are written
    once to ``cache``, by a fingerprint of the files, and read from there. Raises UserError.
    """
    paths = files_of(path)
    prints = hashlib.sha256("".join([column, *map(fingerprint, paths)]).encode()).hexdigest()[:16]
    documents = (document for each in paths for document in documents_of(each, column))
    return kept(({column: text} for text in documents), cache / "corpora" / f"{path.stem}-{prints}.arrow", path.name)


def files_of(path: Path) -> list[Path]:
    """The .txt and .parquet files that ``path`` is or holds."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"No file or directory {path}.")
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in (".txt", ".parquet"))
    if not found:
        raise UserError(f"{path} holds no .txt and no .parquet file.")
    return found


def documents_of(path: Path, column: str) -> Iterator[str]:
    """The texts of one file, a few in memory at a time."""
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            file = pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowInvalid as error:
            raise UserError(f"{path} is not a parquet file ({str(error).splitlines()[0]}).") from error
        if column not in file.schema_arrow.names:
            raise UserError(
                f"{path} has no column '{column}', but {', '.join(file.schema_arrow.names)}; task.text= names it."
            )
        for batch in file.iter_batches(BATCH, columns=[column]):
            yield from (text or "" for text in batch.column(0).to_pylist())
        return
    lines: list[str] = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    lines.append(line.strip())
                elif lines:
                    yield "\n".join(lines)
                    lines = []
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
    if lines:
        yield "\n".join(lines)


def keep_stream(stream: IterableDataset, rows: int, seed: int, path: Path) -> Dataset:
    """The first ``rows`` of a stream, its shards and pools of 10,000 rows shuffled, written to ``path`` once."""
    shuffled = stream.shuffle(seed=seed, buffer_size=10_000)
    return kept(islice(shuffled, rows), path, path.stem, stream.features)


def kept(rows: Iterable[dict[str, Any]], path: Path, what: str, features: Any = None) -> Dataset:
    """The rows, written to ``path`` whole or not at all if they are not there yet, and mapped into memory."""
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            draft, source = path.with_suffix(".tmp"), iter(rows)
            first = next(source, None)
            if first is None:
                raise UserError(f"{what} has no rows.")
            try:
                with ArrowWriter(path=str(draft), features=features, writer_batch_size=BATCH) as writer:
                    for row in count(chain([first], source), f"read {what}"):
                        writer.write(row)
                    writer.finalize()
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
    return Dataset.from_file(str(path))


def fingerprint(path: Path) -> str:
    """``sha256:`` and the digits, of a file or of all files of a corpus."""
    if path.is_dir():
        whole = hashlib.sha256("".join(map(fingerprint, files_of(path))).encode())
        return f"sha256:{whole.hexdigest()}"
    with path.open("rb") as file:
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
