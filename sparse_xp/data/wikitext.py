"""Put the articles of WikiText together again: its rows are lines, its text is split into tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HEADING = re.compile(r"= [^=].*[^=] =|= [^=\s] =")
#: patterns that undo the tokenizer of WikiText, in the order in which they are applied
DETOKENIZATION = [
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" N "), " 1 "),
    (re.compile(r" ['\u2019]s\b"), "'s"),
    (re.compile(r" ([.,:;!?%)\]}])"), r"\1"),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
    (re.compile(r"= (?==)"), "="),
    (re.compile(r"\s+"), " "),
]


def wikitext_documents(lines: Iterable[str]) -> Iterator[str]:
    """Yield the articles of WikiText, whose rows are lines. ``= Title =`` begins an article; tokens are joined again.

    Lines before the first title are an article of their own.
    """
    article: list[str] = []
    for line in lines:
        text = line.strip()
        if HEADING.fullmatch(text) and article:
            yield detokenize(" ".join(article))
            article = []
        if text:
            article.append(text)
    if article:
        yield detokenize(" ".join(article))


def detokenize(text: str) -> str:
    """Return running text for a text of WikiText's tokens."""
    for pattern, replacement in DETOKENIZATION:
        text = pattern.sub(replacement, text)
    return text.strip()
