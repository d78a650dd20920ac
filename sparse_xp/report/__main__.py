"""``python -m sparse_xp.report``: tables of finished runs.

A plain list of runs goes through ``results_table.py`` to the screen. The table of a sweep takes its cells and published
numbers from ``sweep.json``, goes through ``rows.py`` and ``compare.py``, and is written by ``formats.py`` and
``page.py``.
"""

import sys
from pathlib import Path

from sparse_xp.cli import Parser, run_command
from sparse_xp.files.checksums import file_sha256, text_digest
from sparse_xp.files.ownership import check_replaceable
from sparse_xp.files.signed import has_valid_signature, is_signed, move_aside, sign_text
from sparse_xp.files.writing import write_text
from sparse_xp.report.compare import compare
from sparse_xp.report.formats import csv_table, latex_table, markdown_table
from sparse_xp.report.page import html_report
from sparse_xp.report.results_table import results_table
from sparse_xp.report.rows import collect
from sparse_xp.result import Result, find_results
from sparse_xp.sweep.manifest import MANIFEST, read_manifest
from sparse_xp.sweep.published import locate_published, read_published

NO_RUNS = "No finished run there: nothing holds a result.json."


def main(arguments: list[str] | None = None) -> None:
    """Print the table of all runs below the given directories.

    Of a sweep the runs that differ only in their seed are one line, beside the published number, and the table is
    written too: table.md, table.csv, table.tex and report.html, in the directory of the sweep or --out.
    """
    parser = Parser(prog="python -m sparse_xp.report", description=main.__doc__)
    parser.add_argument(
        "places",
        nargs="*",
        type=Path,
        default=[Path("outputs")],
        help="run directories, or directories of them (outputs)",
    )
    parser.add_argument("--sweep", help="published numbers of sweeps/SWEEP.csv (or of the file of that path)")
    parser.add_argument("--out", type=Path, help="write table.md, table.csv, table.tex and report.html here")
    parser.add_argument(
        "--curves", nargs="*", type=Path, help="runs whose curves the page shows (the first seed of each line)"
    )
    options = parser.parse_args(arguments)
    directories: list[Path] = options.places
    sweeps = [directory for directory in directories if (directory / MANIFEST).exists()]
    if sweeps or options.sweep or options.out:
        out = options.out or (sweeps or directories)[0]
        write_sweep_tables(directories, options.sweep, out, options.curves)
        return
    runs = find_results(directories)
    if not runs:
        sys.exit(NO_RUNS)
    print(results_table(runs))


def write_sweep_tables(directories: list[Path], sweep: str | None, out: Path, curves: list[Path] | None) -> None:
    """Print the table of sweeps and write it in four formats.

    ``directories``: of sweeps and of runs. ``sweep``: the published numbers, by default those of the sweeps.
    ``curves``: see ``html_report``.
    """
    plans = [read_manifest(directory) for directory in directories if (directory / MANIFEST).exists()]
    cells = [(plan.directory / cell.directory, cell) for plan in plans for cell in plan.cells]
    if sweep:
        published = read_published(locate_published(sweep))
    else:
        published = [number for plan in plans for number in plan.published]
    runs, others = split_nested(find_results(directories), directories, [plan.directory for plan in plans])
    rows = compare(collect(runs, cells), published)
    if not rows:
        sys.exit(NO_RUNS)
    title = ", ".join(plan.name for plan in plans) or sweep or out.resolve().name
    text, numbers = markdown_table(title, rows), csv_table(rows)
    texts = {
        "table.md": sign_text(f"{text}\n<!-- table.csv: sha256 {text_digest(numbers)} -->\n"),
        "table.csv": numbers,
        "table.tex": sign_text(latex_table(title, rows), "% ", ""),
        "report.html": sign_text(html_report(title, rows, curves) + "\n"),
    }
    write_all(out, texts)
    print(text.partition("\n## Commands")[0])
    print(f"{out}/{', '.join(texts)}")
    if others:
        print(f"Not in it: the runs further below, in {', '.join(others)}.")


def write_all(out: Path, texts: dict[str, str]) -> None:
    """Write the tables by name; files that somebody has edited since are moved aside.

    Raises UserError, before anything is written, for a file that is no table of ours.
    """
    paths = {name: check_replaceable(out / name, is_own_table, "Name another directory with --out.") for name in texts}
    edited = [path for path in paths.values() if path.exists() and not is_as_written(path)]
    out.mkdir(parents=True, exist_ok=True)
    for path in edited:
        move_aside(path)
    for name, path in paths.items():
        write_text(path, texts[name])


def is_own_table(path: Path) -> bool:
    """Return whether ``write_all`` wrote this file. A CSV has no comments to sign: its header is looked at."""
    if path.suffix != ".csv":
        return is_signed(path)
    try:
        return path.is_file() and path.read_text(encoding="utf-8").startswith(csv_table([]))
    except (OSError, ValueError):
        return False


def is_as_written(path: Path) -> bool:
    """Return whether a table is unedited since it was written. The checksum of a CSV is in ``table.md`` beside it."""
    if path.suffix != ".csv":
        return has_valid_signature(path)
    beside = path.with_suffix(".md")
    return beside.is_file() and file_sha256(path) in beside.read_text(encoding="utf-8", errors="replace")


def split_nested(
    runs: list[tuple[Path, Result]], named: list[Path], sweeps: list[Path]
) -> tuple[list[tuple[Path, Result]], list[str]]:
    """Return the runs that belong into the table, and the directories that hold the others.

    A sweep into ``outputs`` may have other sweeps below it, whose runs belong into their own tables: of the runs below
    one of ``sweeps`` only its direct children count, and those in a directory that was ``named``.
    """
    named_directories = {directory.resolve() for directory in named}
    tops = [directory.resolve() for directory in sweeps]

    def is_nested(directory: Path) -> bool:
        directory = directory.resolve()
        if named_directories & {directory, directory.parent}:
            return False
        return any(top in directory.parents for top in tops)

    own = [(directory, result) for directory, result in runs if not is_nested(directory)]
    return own, sorted({str(directory.parent) for directory, _ in runs if is_nested(directory)})


if __name__ == "__main__":
    run_command(main)
