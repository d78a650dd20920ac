"""``python -m sparse_xp.report``: tables of finished runs."""

import sys
from pathlib import Path

from sparse_xp.cli import Parser
from sparse_xp.errors import short_errors, wants_traceback
from sparse_xp.files import claim, digest_of, is_signed, is_unchanged, put_aside, sha256, signed, write_text
from sparse_xp.report.run_report import find_with_places, table
from sparse_xp.result import Result
from sparse_xp.sweep.manifest import MANIFEST, read_manifest
from sparse_xp.sweep.published import locate_published, read_published


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
    asked = parser.parse_args(arguments)
    with short_errors(wants_traceback()):
        swept = [place for place in asked.places if (place / MANIFEST).exists()]
        if not (swept or asked.sweep or asked.out):
            found = find_with_places(asked.places)
            if not found:
                sys.exit("No finished run there: nothing holds a result.json.")
            print(table(found))
            return
        write_tables(asked.places, asked.sweep, asked.out or (swept or asked.places)[0], asked.curves)


def write_tables(places: list[Path], sweep: str | None, out: Path, curves: list[Path] | None) -> None:
    """Print the table of sweeps, and write it in four formats."""
    from sparse_xp.report import page, table

    plans = [read_manifest(place) for place in places if (place / MANIFEST).exists()]
    published = (
        read_published(locate_published(sweep)) if sweep else [line for plan in plans for line in plan.published]
    )
    cells = [(plan.place / cell.directory, cell) for plan in plans for cell in plan.cells]
    found, others = beside_cells(find_with_places(places), places, [plan.place for plan in plans])
    made = table.lines(found, cells, published)
    if not made:
        sys.exit("No finished run there: nothing holds a result.json.")
    title = ", ".join(plan.name for plan in plans) or sweep or out.resolve().name
    text, numbers = table.markdown_table(title, made), table.csv_table(made)
    texts = {
        "table.md": signed(f"{text}\n<!-- table.csv: sha256 {digest_of(numbers)} -->\n"),
        "table.csv": numbers,
        "table.tex": signed(table.latex_table(title, made), "% ", ""),
        "report.html": signed(page.page(title, made, curves) + "\n"),
    }
    files = {name: claim(out / name, is_table, "Name another directory with --out.") for name in texts}
    edited = [place for place in files.values() if place.exists() and not is_as_written(place)]
    out.mkdir(parents=True, exist_ok=True)
    for place in edited:
        put_aside(place)
    for name, place in files.items():
        write_text(place, texts[name])
    print(text.partition("\n## Commands")[0])
    print(f"{out}/table.md, table.csv, table.tex, report.html")
    if others:
        print(f"Not in it: the runs further below, in {', '.join(others)}.")


def is_table(path: Path) -> bool:
    """Whether ``write_tables`` wrote this file; a CSV has no room to say so but its header."""
    from sparse_xp.report import table

    if path.suffix != ".csv":
        return is_signed(path)
    try:
        return path.is_file() and path.read_text(encoding="utf-8").startswith(table.csv_table([]))
    except (OSError, ValueError):
        return False


def is_as_written(path: Path) -> bool:
    """Whether nobody has edited a table since it was written; what a CSV was stands in ``table.md`` beside it."""
    if path.suffix != ".csv":
        return is_unchanged(path)
    beside = path.with_suffix(".md")
    return beside.is_file() and sha256(path) in beside.read_text(encoding="utf-8", errors="replace")


def beside_cells(
    found: list[tuple[Path, Result]], places: list[Path], swept: list[Path]
) -> tuple[list[tuple[Path, Result]], list[str]]:
    """The runs that were named or stand beside the cells of a sweep, and the directories of those further below.

    A sweep into ``outputs`` has other sweeps below it, whose runs are of other tables.
    """
    named, above = {place.resolve() for place in places}, [place.resolve() for place in swept]

    def further_below(place: Path) -> bool:
        place = place.resolve()
        return not named & {place, place.parent} and any(top in place.parents for top in above)

    near = [(place, result) for place, result in found if not further_below(place)]
    return near, sorted({str(place.parent) for place, _ in found if further_below(place)})
