"""Tables and reports: pure functions of the files that runs leave. ``python -m sparse_xp.report outputs``."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

from sparse_xp.cli import Parser
from sparse_xp.errors import short_errors, wants_traceback
from sparse_xp.files import (
    claim,
    digest_of,
    is_signed,
    is_unchanged,
    put_aside,
    replace_signed,
    sha256,
    signed,
    write_text,
)
from sparse_xp.result import Result
from sparse_xp.sweep.manifest import MANIFEST, read_manifest
from sparse_xp.sweep.published import locate_published, read_published


def row(result: Result) -> dict[str, str]:
    """The cells of one run, by the heading of their column."""
    deployed, trained = result.deployment, result.training
    return {
        "task": result.task,
        "model": result.model,
        "recipe": result.recipe,
        "quantization": result.quantization or "none",
        "teacher": "yes" if result.teacher else "no",
        "seed": str(result.seed),
        "score": "  ".join(f"{name} {value:.2f}" for name, value in deployed.metrics.items())
        + (f"  [on {part}]" if (part := rows_used(trained.eval_rows, trained.eval_rows_of, some_only=True)) else ""),
        "sparsity (prunable / encoder / model)": " / ".join(
            f"{part:.1%}" for part in (result.sparsity.prunable, result.sparsity.encoder, result.sparsity.model)
        )
        + (f"  [{result.sparsity.removed.share:.1%} of the encoder removed]" if result.sparsity.removed else ""),
        "ONNX MB": f"{deployed.bytes / 1e6:.2f}",
        "zstd MB": f"{deployed.compressed_bytes / 1e6:.2f}{' (gzip)' if deployed.compression == 'gzip' else ''}",
        "train rows": rows_used(trained.train_rows, trained.train_rows_of),
        "epochs": f"{result.training.epochs:g}",
    }


def rows_used(used: int, there: int, some_only: bool = False) -> str:
    """``3,000 of 11,877``, or ``11,877`` if these are all (with ``some_only`` nothing then)."""
    if used < there:
        return f"{used:,} of {there:,}"
    return "" if some_only else f"{there:,}"


def markdown(rows: list[dict[str, str]]) -> str:
    """Rows with the same columns as a Markdown table, aligned for reading as text."""
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(r[c]) for r in rows)) for c in columns}

    def line(cells: dict[str, str]) -> str:
        return "| " + " | ".join(cells[c].ljust(widths[c]) for c in columns) + " |"

    rule = "|" + "|".join("-" * (widths[c] + 2) for c in columns) + "|"
    return "\n".join([line({c: c for c in columns}), rule, *map(line, rows)])


def table(found: list[tuple[Path, Result]]) -> str:
    """All runs, one row each, the columns in which every row is equal moved into a line above.

    Where rows differ in what no column tells (``sparsity=obert``), the names of the directories are a column too.
    """
    found = sorted(found, key=lambda pair: told(pair[1]))
    rows = [row(result) for _, result in found]
    if len({told(result) for _, result in found}) < len(found):
        places = [place.resolve() for place, _ in found]
        top = os.path.commonpath([place.parent for place in places])
        rows = [{"run": os.path.relpath(place, top)} | each for place, each in zip(places, rows, strict=True)]
    might = ("task", "model", "quantization", "seed", "train rows", "epochs")
    same = [c for c in might if len({r[c] for r in rows}) == 1]
    head = ", ".join(f"{c} {rows[0][c]}" for c in same if (c, rows[0][c]) != ("quantization", "none"))
    return f"{head}\n\n" * bool(head) + markdown([{c: v for c, v in r.items() if c not in same} for r in rows])


def told(result: Result) -> tuple[Any, ...]:
    """What the columns of the table tell of how a run was made, in the order of its rows."""
    made = result.training
    return (
        *(result.task, result.model, result.recipe, not result.teacher, result.seed),
        *(result.quantization or "", made.train_rows, made.epochs),
    )


def find_with_places(places: list[Path]) -> list[tuple[Path, Result]]:
    """The results in the given run directories, or anywhere below the given ones, each with its directory.

    Raises UserError for a file of another version.
    """
    paths = {
        p
        for place in places
        for p in ([place / "result.json"] if (place / "result.json").exists() else place.rglob("result.json"))
    }
    found = []
    for path in sorted(paths):
        found.append((path.parent, Result.read(path)))
    return found


def write_report(directory: Path, result: Result, history: list[dict[str, Any]]) -> None:
    """``report.md``: the run as a person would want to read it."""
    replace_signed(directory / "report.md", report(result, history) + "\n")


def report(result: Result, history: list[dict[str, Any]]) -> str:
    """The text of ``report.md``."""
    trained, deployed, zeros, origin = result.training, result.deployment, result.sparsity, result.provenance
    scores = "  ".join(f"**{name} {value:.2f}**" for name, value in deployed.metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    layers = markdown([{"weight": name, "zeros": f"{share:.2%}"} for name, share in zeros.layers.items()])
    integers = f"\n- in 8-bit integers: quantization={result.quantization}" if result.quantization else ""
    if deployed.portable is not None and deployed.integers:
        integers += (
            "\n- computes the same in every session on every x86 CPU"
            if deployed.portable
            else "\n- can answer differently on x86 CPUs without VNNI: the card has the line that a session needs there"
        )
    return f"""# {result.recipe} on {result.task}, {result.model}, seed {result.seed}

{scores} on the exported file, {rows_used(trained.eval_rows, trained.eval_rows_of)} rows.

- zeros: {zeros.prunable:.2%} of the prunable weights, {zeros.encoder:.2%} of the encoder,
  {zeros.model:.2%} of the model{f"; {zeros.removed.told()}" if zeros.removed else ""}
- `deployment/model.onnx`: {deployed.bytes / 1e6:.2f} MB, {deployed.compressed_bytes / 1e6:.2f} MB under \
{deployed.compression};
  largest difference of a logit to PyTorch {deployed.max_abs_diff:.1e}
- trained on {rows_used(trained.train_rows, trained.train_rows_of)} rows for {trained.epochs:g} epochs:
  {trained.steps} steps, {trained.seconds:.0f} s,
  {trained.samples_per_second:.1f} features/s on {trained.device} in {trained.precision}
- teacher: {result.teacher or "none"}{integers}
- unstructured zeros make a file smaller once it is compressed; onnxruntime does not compute faster with them

## Course

{course([line for line in history if "loss" in line])}

## Evaluations

{evaluations([line for line in history if "metrics" in line], trained.best_step)}

## Again

    {origin.command}

git {origin.git or "unknown"}, config {origin.config_hash}, data {origin.data_fingerprint}, {versions}

## Zeros by weight

{layers}
"""


def spark(values: list[float], width: int = 60) -> str:
    """A curve drawn with block characters: the means of ``width`` stretches between the smallest and the largest."""
    size = max(1, len(values) / width)
    means = []
    for i in range(min(width, len(values))):
        stretch = values[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))]
        means.append(sum(stretch) / len(stretch))
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = high - low or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span)] if math.isfinite(mean) else "?" for mean in means)


def course(steps: list[dict[str, Any]]) -> str:
    """The curves of the run, and ten of the logged steps as a table."""
    picked = [steps[round(i * (len(steps) - 1) / 9)] for i in range(10)] if len(steps) > 10 else steps
    known = ("loss", "loss_task", "loss_distillation", "lr", "sparsity", "removed", "speedup", "quantized", "grad_norm")
    names = [name for name in known if any(name in step for step in steps)]
    curves = [(name, [step[name] for step in steps if name in step]) for name in names]
    drawn = "\n".join(f"    {name:<18} {spark(v)}  {v[0]:.3g} to {v[-1]:.3g}" for name, v in curves)
    return f"{drawn}\n\n" + markdown(
        [
            {"epoch": f"{s['epoch']:.2f}", "step": str(s["step"])} | {n: f"{s[n]:.4g}" if n in s else "" for n in names}
            for s in picked
        ]
    )


def evaluations(lines: list[dict[str, Any]], best_step: int) -> str:
    """Every evaluation as a row; the one that was kept is marked."""
    return markdown(
        [
            {"epoch": f"{line['epoch']:.2f}", "step": str(line["step"])}
            | {name: f"{value:.2f}" for name, value in line["metrics"].items()}
            | {"recipe complete": "yes" if line["valid"] else "no", "": "kept" if line["step"] == best_step else ""}
            for line in lines
        ]
    )


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


if __name__ == "__main__":
    main()
