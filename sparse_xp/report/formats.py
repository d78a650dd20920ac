"""Write the rows of a table as Markdown, CSV and LaTeX. The HTML page is in ``page.py``."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Literal

from sparse_xp.functional.measured import Compression
from sparse_xp.report.compare import ComparedRow
from sparse_xp.text import markdown

#: columns that are left out where no row has a value
OPTIONAL_COLUMNS = (
    *("published", "difference", "verdict", "recovery"),
    *("compression (encoder / model)", "latency ratio"),
)
COMPRESSION_NOTE = (
    "Compression: the dense model in fp32 over the nonzero weights at their bits: of the matrices of the encoder's "
    "layers, and of all parameters. Positions of the nonzero weights do not count, but for the ratio with a bit mask."
)
CSV_COLUMNS = (
    "task cell model recipe profile metric mean std n published published_std difference tolerance verdict "
    "recovery sparsity_prunable sparsity_encoder sparsity_model quantization compression_encoder compression_model "
    "compression_arithmetic bytes compressed_bytes latency_ms latency_ratio missing marks source commands"
).split()


def to_columns(row: ComparedRow) -> dict[str, str]:
    """Return the row as text, by the headings of its columns."""
    return {
        "task": row.task,
        "cell": row.cell + (" *" if row.caveats else ""),
        "model": row.model,
        "metric": row.metric,
        "score": score_text(row),
        "n": str(row.n) + (f" of {row.n + len(row.missing)}" if row.missing else ""),
        "published": published_text(row),
        "difference": "" if row.difference is None else f"{row.difference:+.2f}",
        "verdict": row.verdict,
        "recovery": "" if row.recovery is None else f"{row.recovery:.1f} %",
        "zeros (prunable / encoder / model)": sparsity_text(row),
        "quantization": row.quantization,
        "compression (encoder / model)": compression_text(row),
        "ONNX MB": megabytes(row.mean_of(lambda result: result.deployment.bytes)),
        "zstd MB": compressed_text(row),
        "latency ratio": latency_text(row),
    }


def score_text(row: ComparedRow) -> str:
    """Return mean and standard deviation, or the states of the seeds if none is finished."""
    if row.mean is None:
        return ", ".join(sorted({status for status, _ in row.missing}))
    return f"{row.mean:.2f}" + (f" ± {row.std:.2f}" if row.std is not None else "")


def published_text(row: ComparedRow) -> str:
    """Return the published number with its standard deviation, if it has one."""
    if row.published is None:
        return ""
    return f"{row.published.published:g}" + (f" ± {row.published.std:.2f}" if row.published.std is not None else "")


def sparsity_text(row: ComparedRow) -> str:
    """Return the three fractions of zeros, and what structured pruning has removed."""
    if not row.results:
        return ""
    fractions = (
        row.mean_of(lambda result: result.sparsity.prunable),
        row.mean_of(lambda result: result.sparsity.encoder),
        row.mean_of(lambda result: result.sparsity.model),
    )
    text = " / ".join(f"{fraction or 0:.1%}" for fraction in fractions)
    removed = [result.sparsity.removed.share for result in row.results if result.sparsity.removed]
    return text + (f"  [{statistics.fmean(removed):.1%} of the encoder removed]" if removed else "")


def compressions(row: ComparedRow) -> list[Compression]:
    """Return the compression of each finished seed; results of earlier versions have none."""
    return [result.compression for result in row.results if result.compression]


def mean_compression(row: ComparedRow, part: Literal["encoder", "model"]) -> float | None:
    """Return the mean compression ratio of a part over the seeds, None without results that have one."""
    ratios = [getattr(each, part).ratio for each in compressions(row)]
    return statistics.fmean(ratios) if ratios else None


def compression_text(row: ComparedRow) -> str:
    """Return the compression ratios of the encoder and of the whole model; empty without results that have them."""
    encoder, model = mean_compression(row, "encoder"), mean_compression(row, "model")
    return "" if encoder is None or model is None else f"{encoder:.1f} / {model:.1f}"


def compressed_text(row: ComparedRow) -> str:
    """Return the compressed size; results of earlier versions were compressed by gzip."""
    gzipped = any(result.deployment.compression == "gzip" for result in row.results)
    return megabytes(row.mean_of(lambda result: result.deployment.compressed_bytes)) + (" (gzip)" if gzipped else "")


def latency_text(row: ComparedRow) -> str:
    """Return how many times as fast as its reference the file is, and whether that is a difference."""
    if row.latency is None:
        return ""
    return f"{row.latency.ratio:.2f}" + " (no difference measured)" * (not row.latency.differs)


def megabytes(size: float | None) -> str:
    """Return a number of bytes as MB, nothing for None."""
    return "" if size is None else f"{size / 1e6:.2f}"


def to_rows(rows: Sequence[ComparedRow]) -> list[dict[str, str]]:
    """Return the rows as text, without the optional columns that are empty in all of them."""
    texts = [to_columns(row) for row in rows]
    empty = {name for name in OPTIONAL_COLUMNS if not any(text[name] for text in texts)}
    return [{name: value for name, value in text.items() if name not in empty} for text in texts]


def notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the sentences below a table, each once.

    Caveats (they begin with ``*``), failures, sources, compressions, latencies.
    """
    sentences = [
        *(*caveat_notes(rows), *failure_notes(rows), *source_notes(rows)),
        *(*compression_notes(rows), *latency_notes(rows)),
    ]
    return list(dict.fromkeys(sentences))


def row_name(row: ComparedRow) -> str:
    """Return the name of a row in notes and legends."""
    return f"{row.task} {row.cell}"


def caveat_notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return a sentence for each set of caveats, with the rows that have it."""
    names_of: dict[str, list[str]] = {}
    for row in rows:
        if row.caveats:
            names_of.setdefault("; ".join(row.caveats), []).append(row_name(row))
    total = len({row_name(row) for row in rows})
    sentences = []
    for caveats, repeated in names_of.items():
        names = list(dict.fromkeys(repeated))
        sentences.append(f"* {'all lines' if 1 < len(names) == total else ', '.join(names)}: {caveats}.")
    return sentences


def failure_notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return a line for each seed that was begun and is not finished."""
    return [
        f"{row_name(row)}: {status}{f': {error}' if error else ''}"
        for row in rows
        for status, error in row.missing
        if status != "to do"
    ]


def source_notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return a sentence for each source, with all numbers that it published."""
    numbers_of: dict[str, list[str]] = {}
    for row in rows:
        if number := row.published:
            source = number.source + (f" ({number.note})" if number.note else "")
            name = f"{number.task} {number.cell}" + (f" of {number.model}" if number.model else "")
            numbers_of.setdefault(source, []).append(f"{name} {number.metric} {number.published:g}")
    return [f"Published: {', '.join(dict.fromkeys(numbers))}: {source}." for source, numbers in numbers_of.items()]


def compression_notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return what compression counts, and the arithmetic of each row, of its first seed."""
    lines = [f"{row_name(row)}: {found[0].description}." for row in rows if (found := compressions(row))]
    return [COMPRESSION_NOTE, *lines] if lines else []


def latency_notes(rows: Sequence[ComparedRow]) -> list[str]:
    """Return a sentence for each way in which latencies of the table were measured."""
    ways = {(latency.tokens, latency.engine, latency.machine) for row in rows if (latency := row.latency)}
    return [
        f"Latency ratio: one row of {tokens} tokens, {engine} on {machine}, against the reference of benchmark.json."
        for tokens, engine, machine in sorted(ways)
    ]


def markdown_table(title: str, rows: Sequence[ComparedRow]) -> str:
    """Return the table with its notes and the command of every run."""
    listed = "\n".join(f"- {note}" for note in notes(rows))
    commands = dict.fromkeys(command for row in rows for command in row.commands)
    block = "\n".join(f"    {command}" for command in commands)
    return f"# {title}\n\n{markdown(to_rows(rows))}\n\n{listed}\n\n## Commands\n\n{block}\n"


def csv_table(rows: Sequence[ComparedRow]) -> str:
    """Return the table with its numbers in full, for other programs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(csv_values(row))
    return text.getvalue()


def csv_values(row: ComparedRow) -> dict[str, object]:
    """Return the values of a row by ``CSV_COLUMNS``; None is an empty cell."""
    number, latency = row.published, row.latency
    return {
        "task": row.task,
        "cell": row.cell,
        "model": row.model,
        "recipe": row.recipe,
        "profile": row.profile,
        "metric": row.metric,
        "mean": row.mean,
        "std": row.std,
        "n": row.n,
        "published": number and number.published,
        "published_std": number and number.std,
        "difference": row.difference,
        "tolerance": number and number.tolerance,
        "verdict": row.verdict,
        "recovery": row.recovery,
        "sparsity_prunable": row.mean_of(lambda result: result.sparsity.prunable),
        "sparsity_encoder": row.mean_of(lambda result: result.sparsity.encoder),
        "sparsity_model": row.mean_of(lambda result: result.sparsity.model),
        "quantization": row.quantization,
        "compression_encoder": mean_compression(row, "encoder"),
        "compression_model": mean_compression(row, "model"),
        "compression_arithmetic": "; ".join(each.description for each in compressions(row)[:1]),
        "bytes": row.mean_of(lambda result: result.deployment.bytes),
        "compressed_bytes": row.mean_of(lambda result: result.deployment.compressed_bytes),
        "latency_ms": latency and latency.ms,
        "latency_ratio": latency and latency.ratio,
        "missing": "; ".join(status for status, _ in row.missing),
        "marks": "; ".join(row.caveats),
        "source": number and number.source,
        "commands": "\n".join(row.commands),
    }


LATEX = str.maketrans(
    {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
     "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"}
)  # fmt: skip


def latex_table(title: str, rows: Sequence[ComparedRow]) -> str:
    """Return a ``tabular`` for package booktabs, with the caveats below it."""
    texts = to_rows(rows)
    body = "\n".join(" & ".join(value.translate(LATEX) for value in text.values()) + r" \\" for text in texts)
    head = " & ".join(name.translate(LATEX) for name in texts[0]) + r" \\"
    caveats = "\n".join(rf"\par {note.translate(LATEX)}" for note in notes(rows) if note.startswith("*"))
    return (
        f"% {title}; \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{'l' * len(texts[0])}}}\n\\toprule\n{head}\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n{caveats}\n"
    )
