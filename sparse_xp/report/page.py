"""The table of a sweep as one HTML file that needs nothing else: no script, no font, no picture beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from sparse_xp.report.table import Line, notes, shown

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


def page(title: str, made: Sequence[Line], curves: list[Path] | None = None) -> str:
    """The whole page. ``curves``: the runs whose course is drawn, by default the first seed of each line."""
    runs = sum(line.n for line in unique(made))
    failed = sum(status == "failed" for line in unique(made) for status, _ in line.missing)
    told = f"{len(unique(made))} cells, {runs} finished runs" + (f", {failed} failed" if failed else "")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p class="soft">{told}. Scores are per cent, of the exported file: mean ± standard deviation over n seeds.</p>
<div class="wide">{html_table(made)}</div>
{html_notes(made)}
{html_plots(made, curves)}
<h2>Commands</h2>
{html_commands(made)}
</body></html>
"""


def unique(made: Sequence[Line]) -> list[Line]:
    """Without the lines that repeat a cell in another metric."""
    kept: dict[int, Line] = {}
    for line in made:
        kept.setdefault(id(line.commands), line)
    return list(kept.values())


def html_table(made: Sequence[Line]) -> str:
    """The table."""
    rows = shown(made)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body, before = [], ""
    for line, row in zip(made, rows, strict=True):
        kinds = ["marked"] * bool(line.marks) + ["group"] * (bool(before) and before != line.task)
        cells = "".join(
            f'<td class="{html.escape(kind_of(name, value))}">{html.escape(value)}</td>' for name, value in row.items()
        )
        body.append(f'<tr class="{" ".join(kinds)}">{cells}</tr>')
        before = line.task
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def kind_of(name: str, value: str) -> str:
    """The class of a cell of the table."""
    return value if (name, value) in (("verdict", "pass"), ("verdict", "fail"), ("score", "failed")) else ""


def html_notes(made: Sequence[Line]) -> str:
    """Marks first, then failures, then sources."""

    def kind(note: str) -> str:
        return "mark" if note.startswith("*") else "bad" if re.match(r"[^:]*: failed", note) else ""

    items = "".join(f'<li class="{kind(note)}">{html.escape(note)}</li>' for note in notes(made))
    return f"<ul>{items}</ul>" if items else ""


def html_commands(made: Sequence[Line]) -> str:
    """The commands by cell."""
    return "".join(
        f"<p class=soft>{html.escape(name_of(line))}</p><pre>{html.escape(chr(10).join(line.commands))}</pre>"
        for line in unique(made)
    )


def html_plots(made: Sequence[Line], curves: list[Path] | None) -> str:
    """The plots, or how to get them."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "<p class=soft>Plots need matplotlib: pip install 'sparse-xp[plot]'.</p>"
    from sparse_xp.report import plots

    lines = [line for line in unique(made) if line.results]
    chosen = (
        [(name_of(line), line.places[0]) for line in lines]
        if curves is None
        else [(place.name, place) for place in curves]
    )
    parts = []
    for heading, drawn, kind in (
        ("Score against zeros", plots.against(lines, "zeros"), "plots"),
        ("Score against size", plots.against(lines, "size"), "plots"),
        ("Score against latency", plots.against(lines, "latency"), "plots"),
        ("Course", plots.courses(chosen[: plots.MOST]), "plots"),
        ("Zeros by weight", plots.layers([(name_of(line), line.results[0]) for line in lines][: plots.MOST]), "wide"),
    ):
        if drawn:
            figures = "".join(
                f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>" for caption, svg in drawn
            )
            parts.append(f"<h2>{heading}</h2><div class={kind}>{figures}</div>")
    return "\n".join(parts)


def name_of(line: Line) -> str:
    """A line in a legend."""
    return f"{line.task} {line.cell}"
