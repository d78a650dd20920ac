"""Recognise files that are no rows of text, by their first bytes or by their names, and say what to do with them."""

from __future__ import annotations

from pathlib import Path

from sparse_xp.errors import UserError
from sparse_xp.files.reading import explain_read_errors

#: advice about a spreadsheet, a packed file, and rows in a format of another library
SAVE = "Save the table as CSV in UTF-8."
UNPACK = "Unpack it, and name the file in it."
CONVERT = "Write the rows as .jsonl or .parquet."
#: first bytes of a file, what it is, and what to do
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself", "Run git lfs pull."),
    (b"\x1f\x8b", "packed by gzip", UNPACK),
    (b"BZh", "packed by bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "packed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "packed by 7-Zip", UNPACK),
    (b"PAR1", "a parquet file", "Name it .parquet."),
    (b"ARROW1", "an Arrow file", CONVERT),
    (b"SQLite format 3\x00", "an SQLite database", CONVERT),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (b"\x93NUMPY", "a numpy file", CONVERT),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office program", SAVE),
    (b"%PDF-", "a PDF document", "Write its texts as CSV."),
)
#: first bytes of a web page, in lower case
WEB_PAGES = (b"<!doctype html", b"<html")
#: endings of names that are not read, and what to do with such a file
ENDINGS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), SAVE),
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar"), UNPACK),
    **dict.fromkeys((".psv", ".tab", ".dat", ".data", ".text"), "Name it .csv or .tsv if it has columns."),
    **dict.fromkeys((".iob2", ".iob1", ".bio2", ".conll03", ".conllu", ".conllx"), "Name it .conll."),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro", ".h5", ".npy", ".npz", ".pkl", ".pickle"), CONVERT),
    **dict.fromkeys((".db", ".sqlite", ".xml", ".yaml", ".yml"), CONVERT),
    **dict.fromkeys((".jsonlines", ".jl"), "Name it .jsonl."),
    ".pq": "Name it .parquet.",
}


def check_beginning(path: Path, start: bytes) -> None:
    """Raise UserError if the first bytes of a file are those of a packed file, a document or a web page."""
    for begin, what, advice in BEGINNINGS:
        if start.startswith(begin) and not (begin == b"PAR1" and path.suffix.lower() == ".parquet"):
            raise UserError(f"{path} is {what}. {advice}")
    if start.startswith(b"PK\x03\x04"):
        # The first entries of an Office document name its parts.
        is_office = any(part in start for part in (b"[Content_Types].xml", b"_rels/", b"mimetypeapplication/vnd"))
        raise UserError(f"{path} is {f'a spreadsheet. {SAVE}' if is_office else f'packed by zip. {UNPACK}'}")
    if start.lstrip().lower().startswith(WEB_PAGES):
        raise UserError(f"{path} is a web page, not the file itself. Fetch the file again.")


def check_start_of(path: Path) -> None:
    """Raise UserError as ``check_beginning`` does, for a file on a disk."""
    with explain_read_errors(path), path.open("rb") as file:
        check_beginning(path, file.read(4000))


def unknown_format(path: Path, known: list[str]) -> UserError:
    """Return the error for a file whose name ends in none of the ``known`` formats."""
    ending = path.suffix.lower()
    told = f"unknown format '{ending}'" if ending else "a name without an ending, which says what format it has"
    advice = ENDINGS.get(ending, "Name it by its format.")
    return UserError(f"{path}: {told}, expected one of {' '.join(known)}. {advice}")
