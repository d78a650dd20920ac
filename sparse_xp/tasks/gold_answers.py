"""The gold answers of a question, from each layout that files have them in. Pure functions.

    {"text": ["Ada"], "answer_start": [7]}      as in the data sets of the hub
    [{"text": "Ada", "answer_start": 7}]        as in SQuAD's own files
    {"text": "Ada", "answer_start": 7}          a single answer
    "Ada", ["Ada", "Ada Lovelace"]              texts alone, perhaps with a column ``answer_start``

Each may be printed into a cell of CSV. Without ``answer_start`` a text must occur once in the context.
"""

from __future__ import annotations

import re
from typing import Any

from sparse_xp.data.printed_objects import parse_printed_object
from sparse_xp.tasks.answers import brief

#: what values of a column ``is_impossible`` say, in lower case
FLAGS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("false", "0", "0.0", "no"), False),
    **dict.fromkeys(("", "none", "nan", "null"), None),
}
#: a UTF-16 surrogate, which stands for no character, in a printed text
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def gold_answers(value: object, start: object, impossible: bool | None, context: str) -> dict[str, list[Any]]:
    """Return the answers as ``{"text": [...], "answer_start": [...]}``; two empty lists if the question has none.

    ``start``: a value of a column ``answer_start`` beside the answers. ``impossible``: whether the row says that the
    question has no answer, None if it says nothing. A position that is given is not compared with the context here.
    Raises ValueError, as the end of a sentence that begins with the row, for answers that cannot be read.
    """
    pairs = _pairs(value, start, context)
    texts = [_text(text) for text, _ in pairs]
    filled = [i for i, text in enumerate(texts) if text.strip()]
    if filled and len(filled) < len(texts):
        raise ValueError("an empty text beside an answer. Leave the empty one out")
    if impossible and filled:
        raise ValueError(f"the answer {texts[0][:50]!r}, and is_impossible says that there is none")
    if impossible is False and not filled:
        raise ValueError("no answer, and is_impossible says that there is one")
    starts = [_position(pairs[i][1], texts[i], context) for i in filled]
    return {"text": [texts[i] for i in filled], "answer_start": starts}


def says_impossible(value: object) -> bool | None:
    """Return what a value of the column ``is_impossible`` says, None for no value. Raises ValueError for others."""
    word = str(value).strip().lower()
    if word not in FLAGS:
        raise ValueError(f"{brief(value)}, expected true or false")
    return FLAGS[word]


def _pairs(value: object, start: object, context: str) -> list[tuple[object, object]]:
    """Return the texts with their positions, as the file has them."""
    if value is None:
        return []
    if isinstance(value, str):
        printed = _printed(value, context)
        return [(value, _single(start))] if printed is None else _pairs(printed, start, context)
    if isinstance(value, dict):
        return _pairs_of_object(value)
    if not isinstance(value, list):
        return [(value, _single(start))]
    if all(isinstance(each, dict) for each in value):
        return [pair for each in value for pair in _pairs_of_object(each)]
    return _joined(value, _printed_list(start))


def _printed(text: str, context: str) -> object:
    """Return the object or list that was printed into a cell; None for a text that is an answer itself."""
    if text.strip()[:1] not in ("{", "[") or text in context:
        return None
    try:
        return parse_printed_object(text)
    except ValueError as error:
        raise ValueError(f"{brief(text)}, an object or a list that cannot be read") from error


def _printed_list(start: object) -> object:
    """Return the positions that were printed into a cell as a list; another value as it is."""
    if isinstance(start, str) and start.strip().startswith("["):
        return parse_printed_object(start)
    return start


def _pairs_of_object(value: dict[Any, Any]) -> list[tuple[object, object]]:
    if value and "text" not in value:
        raise ValueError(f"an object without 'text', but {', '.join(map(str, value))}")
    text, start = value.get("text"), value.get("answer_start")
    if isinstance(text, list):
        return _joined(text, start)
    return [] if text is None else [(text, _single(start))]


def _joined(texts: list[Any], starts: object) -> list[tuple[object, object]]:
    """Return each text with its position; texts without any position with None."""
    if starts is None:
        return [(text, None) for text in texts]
    starts = starts if isinstance(starts, list) else [starts]
    if len(starts) != len(texts):
        raise ValueError(f"not as many of answer_start as of text ({len(starts)} and {len(texts)})")
    return list(zip(texts, starts, strict=True))


def _single(start: object) -> object:
    """Return the position of a single text, which may be in a list of its own."""
    start = _printed_list(start)
    if not isinstance(start, list):
        return start
    if len(start) > 1:
        raise ValueError(f"one text and {len(start)} of answer_start")
    return start[0] if start else None


def _text(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a year, say, which a reader took for a number
    if not isinstance(value, str):
        raise ValueError(f"{brief(value)} for an answer, expected a text")
    if HALF_CHARACTER.search(value):
        raise ValueError(f"the answer {value[:50]!r} with half of a character. Write the text as UTF-8")
    return value


def _position(start: object, text: str, context: str) -> int:
    """Return the position of an answer as a number; without one, where its text is in the context."""
    if isinstance(start, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.0*)?\s*", start):
        start = int(start.strip().partition(".")[0])
    elif isinstance(start, float) and start.is_integer() and abs(start) < 1 << 53:
        start = int(start)
    if start is None or start != start or (isinstance(start, str) and start.strip().lower() in ("", "nan", "none")):
        return _only_occurrence(text, context)
    if isinstance(start, bool) or not isinstance(start, int) or abs(start) >= 1 << 63:
        raise ValueError(f"answer_start={brief(start)}, expected a whole number: the characters before the answer")
    return start if start >= 0 else _only_occurrence(text, context)


def _only_occurrence(text: str, context: str) -> int:
    first = context.find(text)
    if first < 0:
        raise ValueError(f"the answer {text[:50]!r} without answer_start, and the context does not hold it")
    if (second := context.find(text, first + 1)) >= 0:
        raise ValueError(
            f"the answer {text[:50]!r} without answer_start, and the context holds it more than once, at {first} and "
            f"{second}"
        )
    return first
