"""The table of a sweep as one HTML file that needs nothing else: no script, no font, no picture beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from sparse_xp.report.compare import ComparedRow
from sparse_xp.report.formats import notes, row_name, to_rows
from sparse_xp.report.rows import Key

STYLE = """
:root { --ink: #1f2933; --soft: #616e7c; --rule: #d9e0e7; --good: #1b7f4b; --bad: #b42318; --mark: #8a5a00; }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); max-width: 1320px; margin: 2rem auto;
       padding: 0 1.5rem; background: #fff }
h1 { font-size: 1.6rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem }
p.soft, figcaption { color: var(--soft); margin: .2rem 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; white-space: nowrap }
th { text-align: left; vertical-align: bottom; white-space: normal; font-weight: 600;
     border-bottom: 2px solid var(--ink); padding: .35rem .7rem .35rem 0 }
td { border-bottom: 1px solid var(--rule); padding: .35rem .7rem .35rem 0 }
td:nth-child(2) { white-space: normal; min-width: 8rem; overflow-wrap: anywhere }
tr.marked td:nth-child(2) { color: var(--mark) } tr.group td { border-top: 1px solid var(--soft) }
td.pass { color: var(--good); font-weight: 600 } td.fail, td.failed { color: var(--bad); font-weight: 600 }
ul { padding-left: 1.2rem; font-size: .88rem } li.mark { color: var(--mark) } li.bad { color: var(--bad) }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 1rem }
figure { margin: 0 } figure svg { width: 100%; height: auto } .wide svg { max-width: 900px }
code, pre { font: .78rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; margin: .3rem 0 }
"""


def html_report(title: str, rows: Sequence[ComparedRow], curves: list[Path] | None = None) -> str:
    """Return the whole page. ``curves``: the runs whose curves are drawn, by default the first seed of each row."""
    cells = unique_cells(rows)
    runs = sum(row.n for row in cells)
    failed = sum(status == "failed" for row in cells for status, _ in row.missing)
    counts = f"{len(cells)} cells, {runs} finished runs" + (f", {failed} failed" if failed else "")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="soft">{counts}. Scores are per cent, of the exported file: mean ± standard deviation over n seeds.</p>
<div class="wide">{html_table(rows)}</div>
{html_notes(rows)}
{html_plots(cells, curves)}
<h2>Commands</h2>
{html_commands(cells)}
</body></html>
"""


def unique_cells(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """Return the rows without those that repeat a cell in another metric."""
    first: dict[Key, ComparedRow] = {}
    for row in rows:
        first.setdefault(row.key, row)
    return list(first.values())


def html_table(rows: Sequence[ComparedRow]) -> str:
    """Return the table, with a line between tasks and a mark on rows with caveats."""
    texts = to_rows(rows)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in texts[0])
    body, task_above = [], ""
    for row, text in zip(rows, texts, strict=True):
        classes = ["marked"] * bool(row.caveats) + ["group"] * (bool(task_above) and task_above != row.task)
        cells = "".join(
            f'<td class="{html.escape(cell_class(name, value))}">{html.escape(value)}</td>'
            for name, value in text.items()
        )
        body.append(f'<tr class="{" ".join(classes)}">{cells}</tr>')
        task_above = row.task
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def cell_class(column: str, value: str) -> str:
    """Return the CSS class of a cell of the table, empty for most."""
    coloured = (("verdict", "pass"), ("verdict", "fail"), ("score", "failed"))
    return value if (column, value) in coloured else ""


def html_notes(rows: Sequence[ComparedRow]) -> str:
    """Return the notes as a list: caveats first, then failures, then sources."""
    items = "".join(f'<li class="{note_class(note)}">{html.escape(note)}</li>' for note in notes(rows))
    return f"<ul>{items}</ul>" if items else ""


def note_class(note: str) -> str:
    """Return the CSS class of a note: caveats begin with ``*``."""
    if note.startswith("*"):
        return "mark"
    return "bad" if re.match(r"[^:]*: failed", note) else ""


def html_commands(cells: Sequence[ComparedRow]) -> str:
    """Return the commands of each cell."""
    return "".join(
        f"<p class=soft>{html.escape(row_name(row))}</p><pre>{html.escape(chr(10).join(row.commands))}</pre>"
        for row in cells
    )


def html_plots(cells: Sequence[ComparedRow], curves: list[Path] | None) -> str:
    """Return the plots, or how to get them."""
    # matplotlib is an extra (``plot``): without it the page has everything but the plots
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "<p class=soft>Plots need matplotlib: pip install 'sparse-xp[plot]'.</p>"
    from sparse_xp.report import plots

    finished = [row for row in cells if row.results]
    if curves is None:
        histories = [(row_name(row), row.directories[0]) for row in finished]
    else:
        histories = [(directory.name, directory) for directory in curves]
    results = [(row_name(row), row.results[0]) for row in finished]
    sections = [
        html_section("Score against zeros", plots.scatter_plots(finished, "zeros"), "plots"),
        html_section("Score against size", plots.scatter_plots(finished, "size"), "plots"),
        html_section("Score against latency", plots.scatter_plots(finished, "latency"), "plots"),
        html_section("Course", plots.training_curves(histories[: plots.MAX_RUNS]), "plots"),
        html_section("Zeros by weight", plots.sparsity_maps(results[: plots.MAX_RUNS]), "wide"),
    ]
    return "\n".join(filter(None, sections))


def html_section(heading: str, figures: Sequence[tuple[str, str]], css_class: str) -> str:
    """Return a heading with its figures, (caption, SVG) each; nothing if there are none."""
    if not figures:
        return ""
    elements = "".join(
        f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>" for caption, svg in figures
    )
    return f"<h2>{heading}</h2><div class={css_class}>{elements}</div>"
