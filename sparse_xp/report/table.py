"""The table of a sweep: runs that differ only in their seed make a line, beside the published number.

Pure functions of the files that runs leave. ``lines`` makes them; ``markdown_table``, ``csv_table`` and ``latex_table``
write them, ``page.py`` the HTML.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparse_xp.files import reading
from sparse_xp.result import Result, told_command
from sparse_xp.sweep.cells import Cell
from sparse_xp.sweep.published import Published
from sparse_xp.sweep.state import ERROR, last_line, state
from sparse_xp.text import markdown, rows_used

#: the mark of a run that trained on nothing real
EMBEDDED = "embedded profile: generated data, a tiny model"


@dataclass
class Latency:
    """Of one row at a time, of the greatest length measured: milliseconds, and how often as fast as its reference."""

    engine: str
    tokens: int
    ms: float
    ratio: float
    machine: str


@dataclass
class Line:
    """One cell on one task in one metric, over its seeds. Scores are per cent, of the exported file."""

    task: str
    cell: str
    model: str
    recipe: str
    profile: str
    metric: str
    places: list[Path] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    #: cells without a result: ``failed``, ``interrupted`` or ``to do``, with what went wrong
    missing: list[tuple[str, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    #: why it must not be taken for the cell that was published
    marks: list[str] = field(default_factory=list)
    published: Published | None = None
    dense: float | None = None
    latency: Latency | None = None

    @property
    def scores(self) -> list[float]:
        """One for each seed."""
        return [
            result.deployment.metrics[self.metric]
            for result in self.results
            if self.metric in result.deployment.metrics
        ]

    @property
    def n(self) -> int:
        """Finished seeds."""
        return len(self.scores)

    @property
    def mean(self) -> float | None:
        """Over the seeds."""
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.scores) if self.n > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours less the published one."""
        return None if self.published is None or self.mean is None else self.mean - self.published.published

    @property
    def recovery(self) -> float | None:
        """Per cent of the dense score of the same table."""
        return None if not self.dense or self.mean is None else 100 * self.mean / self.dense

    @property
    def verdict(self) -> str:
        """``pass`` or ``fail`` by the tolerance of the published number; ``not comparable`` for a line with marks."""
        if self.published is None or self.difference is None:
            return ""
        if self.marks:
            return "not comparable"
        return "pass" if self.difference >= -self.published.tolerance else "fail"

    @property
    def quantization(self) -> str:
        """``none``, or the option that the integers are of."""
        return self.results[0].quantization or "none" if self.results else ""

    def average(self, what: str) -> float | None:
        """The mean over the seeds of a number of sparsity (a fraction) or of deployment (bytes)."""
        values = [
            getattr(r.sparsity, what) if hasattr(r.sparsity, what) else getattr(r.deployment, what)
            for r in self.results
        ]
        return statistics.fmean(values) if values else None


def lines(
    runs: Sequence[tuple[Path, Result]], cells: Sequence[tuple[Path, Cell]], published: Sequence[Published]
) -> list[Line]:
    """The lines of a table, task by task: of cells in their order, then of runs that are no cell of a sweep.

    A published number stands at the line of its task and cell (of a run that is no cell: its recipe), in a line of its
    own where it is in another metric than the task's first.
    """
    made: dict[tuple[str, str], Line] = {}
    known = {place.resolve(): cell for place, cell in cells}
    found = {place.resolve(): result for place, result in runs}
    for place, cell in cells:
        result = found.get(place.resolve())
        line = made.setdefault(key_of(place), empty_line(cell))
        line.commands.append(told_command(result.provenance.command if result else cell.command, place))
        if result:
            add(line, place, result)
        else:
            status = state(place, cell.config_hash)
            line.missing.append((status, last_line(place / ERROR) if (place / ERROR).exists() else ""))
    for place, result in runs:
        if place.resolve() not in known:
            line = made.setdefault(
                key_of(place),
                Line(result.task, result.recipe, result.model, result.recipe, result.profile, result.metric),
            )
            line.commands.append(told_command(result.provenance.command, place))
            add(line, place, result)
    name_apart(made, {key_of(place) for place, _ in cells})
    tasks = list(dict.fromkeys(line.task for line in made.values()))
    all_lines = sorted(made.values(), key=lambda line: tasks.index(line.task))
    for line in all_lines:
        line.metric = line.results[0].metric if line.results else line.metric
    set_dense(all_lines)
    return [each for line in all_lines for each in with_published(line, published)]


def key_of(place: Path) -> tuple[str, str]:
    """What runs that differ only in their seed have in common."""
    return str(place.parent), re.sub(r",seed=\d+$", "", place.name)


def name_apart(made: dict[tuple[str, str], Line], swept: set[tuple[str, str]]) -> None:
    """Lines of one name are named after their directories, but for the cell of a sweep with the fewest words."""
    for rename in (lambda place, name: name, lambda place, name: f"{Path(place).name}/{name}"):
        alike: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        for key, line in made.items():
            alike.setdefault((line.task, line.model, line.cell), []).append(key)
        for keys in alike.values():
            keeps = min((key for key in keys if key in swept), key=lambda key: len(key[1]), default=None)
            for place, name in keys if len(keys) > 1 else []:
                line = made[place, name]
                if (place, name) != keeps:
                    line.cell = rename(place, name.removeprefix(f"{line.task},{line.model},").replace(",", ", "))


def empty_line(cell: Cell) -> Line:
    """The line of a cell before any result."""
    marks = [EMBEDDED] if cell.profile == "embedded" else []
    changed = [word for word in cell.changed if not (cell.profile == "embedded" and word.startswith("profile="))]
    marks += [f"changed: {' '.join(changed)}"] if changed else []
    return Line(cell.task, cell.name, cell.model, cell.recipe, cell.profile, "", marks=marks)


def add(line: Line, place: Path, result: Result) -> None:
    """One more seed."""
    line.places.append(place)
    line.results.append(result)
    trained = result.training
    marks = []
    if result.profile == "embedded":
        marks.append(EMBEDDED)
    if trained.train_rows < trained.train_rows_of:
        marks.append(f"trained on {rows_used(trained.train_rows, trained.train_rows_of)} rows")
    if trained.eval_rows < trained.eval_rows_of:
        marks.append(f"scored on {rows_used(trained.eval_rows, trained.eval_rows_of)} rows")
    line.marks += [mark for mark in marks if mark not in line.marks]
    line.latency = line.latency or read_latency(place)


def set_dense(all_lines: list[Line]) -> None:
    """Fill in the dense score that each line is measured by: its teacher's, else that of its model, else the task's."""
    for line in all_lines:
        candidates = [
            other
            for other in all_lines
            if (other.task, other.profile, other.recipe) == (line.task, line.profile, "dense")
            and other is not line
            and other.results
            and other.quantization == "none"
        ]
        if not candidates or (line.recipe == "dense" and line.quantization == "none"):
            continue
        teachers = {Path(result.teacher).name for result in line.results if result.teacher}
        best = max(
            candidates,
            key=lambda other: (bool(teachers & {place.name for place in other.places}), other.model == line.model),
        )
        best.metric = best.results[0].metric
        line.dense = best.mean


def with_published(line: Line, published: Sequence[Published]) -> list[Line]:
    """The line with its number; and one more for every other metric that has one."""
    mine = [number for number in published if (number.task, number.cell) == (line.task, line.cell)]
    models = {number.model for number in mine}
    if line.model in models or len(models) > 1:  # of several other models none is beside this line
        mine = [number for number in mine if number.model == (line.model if line.model in models else None)]
    line.metric = line.metric or (mine[0].metric if mine else "")
    line.published = next((number for number in mine if number.metric == line.metric), None)
    wanted = next((number.model for number in mine if number.model), None)
    if wanted and line.profile == "full" and line.model != wanted:
        line.marks.append(f"{line.model} instead of {wanted}")
    others = [number for number in mine if number is not line.published]
    return [line, *(Line(**{**vars(line), "metric": each.metric, "published": each, "dense": None}) for each in others)]


def read_latency(place: Path) -> Latency | None:
    """From ``benchmark/benchmark.json`` of a run, if it was made: onnxruntime where there are several."""
    path = place / "benchmark" / "benchmark.json"
    if not os.path.lexists(path):
        return None
    with reading(path, "Make it anew with python -m sparse_xp.benchmark, or move it away."):
        told = json.loads(path.read_text(encoding="utf-8"))
        best = max(
            told["cells"],
            key=lambda each: (each["engine"] == "onnxruntime", -each["batch"], -each["threads"], each["length"]),
        )
        found = Latency(best["engine"], best["length"], best["ms"], best["ratio"], told["machine"])
        kinds = {"engine": str, "tokens": int, "ms": int | float, "ratio": int | float, "machine": str}
        for name, kind in kinds.items():
            if not isinstance(getattr(found, name), kind):
                raise TypeError(f"{name} is {getattr(found, name)!r:.40}")
        return found


# Written


def cells_of(line: Line) -> dict[str, str]:
    """The line as text, by the heading of its column."""
    score = "" if line.mean is None else f"{line.mean:.2f}" + (f" ± {line.std:.2f}" if line.std is not None else "")
    number = line.published
    spread = "" if number is None or number.std is None else f" ± {number.std:.2f}"
    sparsity = (
        " / ".join(f"{line.average(part) or 0:.1%}" for part in ("prunable", "encoder", "model"))
        if line.results
        else ""
    )
    removed = [result.sparsity.removed.share for result in line.results if result.sparsity.removed]
    sparsity += f"  [{statistics.fmean(removed):.1%} of the encoder removed]" if removed else ""
    return {
        "task": line.task,
        "cell": line.cell + (" *" if line.marks else ""),
        "model": line.model,
        "metric": line.metric,
        "score": score or ", ".join(sorted({status for status, _ in line.missing})),
        "n": str(line.n) + (f" of {line.n + len(line.missing)}" if line.missing else ""),
        "published": "" if number is None else f"{number.published:g}{spread}",
        "difference": "" if line.difference is None else f"{line.difference:+.2f}",
        "verdict": line.verdict,
        "recovery": "" if line.recovery is None else f"{line.recovery:.1f} %",
        "zeros (prunable / encoder / model)": sparsity,
        "quantization": line.quantization,
        "ONNX MB": megabytes(line.average("bytes")),
        "zstd MB": megabytes(line.average("compressed_bytes"))
        + (" (gzip)" if any(result.deployment.compression == "gzip" for result in line.results) else ""),
        "latency ratio": "" if line.latency is None else f"{line.latency.ratio:.2f}",
    }


def megabytes(size: float | None) -> str:
    """Bytes as MB."""
    return "" if size is None else f"{size / 1e6:.2f}"


def shown(made: Sequence[Line]) -> list[dict[str, str]]:
    """The lines as text, without columns that would be empty."""
    rows = [cells_of(line) for line in made]
    empty = {
        name
        for name in ("published", "difference", "verdict", "recovery", "latency ratio")
        if not any(row[name] for row in rows)
    }
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def notes(made: Sequence[Line]) -> list[str]:
    """What the marks mean, what failed, and where the numbers come from; a sentence each."""
    found: list[str] = []
    marked: dict[str, list[str]] = {}
    for line in made:
        if line.marks:
            marked.setdefault("; ".join(line.marks), []).append(f"{line.task} {line.cell}")
    everything = len({f"{line.task} {line.cell}" for line in made})
    for mark, names in marked.items():
        those = list(dict.fromkeys(names))
        found.append(f"* {'all lines' if 1 < len(those) == everything else ', '.join(those)}: {mark}.")
    for line in made:
        found += [
            f"{line.task} {line.cell}: {status}{f': {why}' if why else ''}"
            for status, why in line.missing
            if status != "to do"
        ]
    cited: dict[str, list[str]] = {}
    for line in made:
        if number := line.published:
            source = number.source + (f" ({number.note})" if number.note else "")
            name = f"{number.task} {number.cell}" + (f" of {number.model}" if number.model else "")
            cited.setdefault(source, []).append(f"{name} {number.metric} {number.published:g}")
    found += [f"Published: {', '.join(dict.fromkeys(numbers))}: {source}." for source, numbers in cited.items()]
    measured = {(each.tokens, each.engine, each.machine) for line in made if (each := line.latency)}
    found += [
        f"Latency ratio: one row of {tokens} tokens, {engine} on {machine}, against the reference of benchmark.json."
        for tokens, engine, machine in sorted(measured)
    ]
    return list(dict.fromkeys(found))


def markdown_table(title: str, made: Sequence[Line]) -> str:
    """The table, its notes, and the command of every run."""
    said = "\n".join(f"- {note}" for note in notes(made))
    commands = "\n".join(f"    {command}" for command in dict.fromkeys(c for line in made for c in line.commands))
    return f"# {title}\n\n{markdown(shown(made))}\n\n{said}\n\n## Commands\n\n{commands}\n"


def csv_table(made: Sequence[Line]) -> str:
    """One row a line, numbers in full, for other programs."""
    text = io.StringIO()
    names = (
        "task cell model recipe profile metric mean std n published published_std difference tolerance verdict "
        "recovery sparsity_prunable sparsity_encoder sparsity_model quantization bytes compressed_bytes latency_ms "
        "latency_ratio missing marks source commands"
    ).split()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for line in made:
        number, latency = line.published, line.latency
        writer.writerow(
            {
                "task": line.task, "cell": line.cell, "model": line.model, "recipe": line.recipe,
                "profile": line.profile, "metric": line.metric, "mean": line.mean, "std": line.std, "n": line.n,
                "published": number and number.published, "published_std": number and number.std,
                "difference": line.difference, "tolerance": number and number.tolerance, "verdict": line.verdict,
                "recovery": line.recovery, "sparsity_prunable": line.average("prunable"),
                "sparsity_encoder": line.average("encoder"), "sparsity_model": line.average("model"),
                "quantization": line.quantization, "bytes": line.average("bytes"),
                "compressed_bytes": line.average("compressed_bytes"), "latency_ms": latency and latency.ms,
                "latency_ratio": latency and latency.ratio, "missing": "; ".join(s for s, _ in line.missing),
                "marks": "; ".join(line.marks), "source": number and number.source,
                "commands": "\n".join(line.commands),
            }
        )  # fmt: skip
    return text.getvalue()


LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
)  # fmt: skip


def latex_table(title: str, made: Sequence[Line]) -> str:
    """A ``tabular`` of package booktabs, with the marks below it."""
    rows = shown(made)
    body = "\n".join(" & ".join(value.translate(LATEX) for value in row.values()) + r" \\" for row in rows)
    head = " & ".join(name.translate(LATEX) for name in rows[0]) + r" \\"
    marks = "\n".join(rf"\par {note.translate(LATEX)}" for note in notes(made) if note.startswith("*"))
    return (
        f"% {title}; \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{'l' * len(rows[0])}}}\n\\toprule\n{head}\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n{marks}\n"
    )
