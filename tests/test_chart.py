"""The chart is well-formed and as long as its numbers."""

from __future__ import annotations

from xml.etree import ElementTree

from sparse_xp.chart import LEFT, WIDTH, Bar, bar_chart

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values():
    text = bar_chart("a < b", [Bar("one & all", 2.0, "2 ms", "x"), Bar("other", 0.5, "5 ms", "y")], 1.0, "1.0")
    root = ElementTree.fromstring(text)
    _, *bars = root.iter(f"{SVG}rect")
    assert [float(bar.get("width")) for bar in bars] == [WIDTH, WIDTH / 4]
    assert len({bar.get("fill") for bar in bars}) == 2
    assert float(next(root.iter(f"{SVG}line")).get("x1")) == LEFT + WIDTH / 2
    assert [each.text for each in root.iter(f"{SVG}text")] == ["a < b", "one & all", "2 ms", "other", "5 ms", "1.0"]
