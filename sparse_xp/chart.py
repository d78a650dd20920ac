"""A bar chart as SVG text: no library, opens in any browser."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from sparse_xp.files.signed import SIGNATURE

#: pixels: of the labels on the left, the longest bar, the notes on the right, a bar, and the title above
LEFT, WIDTH, RIGHT, HEIGHT, TOP = 300, 400, 200, 26, 60


@dataclass
class Bar:
    """One bar. ``note``: the text behind it. ``group``: bars of one group have one colour."""

    label: str
    value: float
    note: str
    group: str


COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")


def bar_chart(title: str, bars: list[Bar], mark: float, mark_label: str) -> str:
    """Return horizontal bars from 0 as an SVG file, with a dashed line at the value ``mark``."""
    scale = WIDTH / max(mark, *(bar.value for bar in bars))
    groups = list(dict.fromkeys(bar.group for bar in bars))
    bottom, at = TOP + HEIGHT * len(bars), LEFT + mark * scale
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{bottom + 16}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="16">{escape(title)}</text>',
    ]
    for i, bar in enumerate(bars):
        y, long = TOP + i * HEIGHT, bar.value * scale
        colour = COLOURS[groups.index(bar.group) % len(COLOURS)]
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{long:.1f}" height="{HEIGHT - 8}" fill="{colour}"/>',
            f'<text x="{LEFT + long + 6:.1f}" y="{y + 16}">{escape(bar.note)}</text>',
        ]
    parts += [
        f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{bottom}" stroke="#333" stroke-dasharray="4 3"/>',
        f'<text x="{at:.1f}" y="{TOP - 10}" text-anchor="middle">{escape(mark_label)}</text>',
        f"<!-- {SIGNATURE} -->",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
