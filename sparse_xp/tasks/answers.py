"""Types shared by all kinds of task for answering rows with a deployed model, without torch and transformers.

``Pipeline`` looks up the texts of a row (``NamedText``), the kind makes the model's input of them (``encode_row``, an
``EncodedRow``), onnxruntime computes ``Outputs``, and the kind makes an ``Answer`` of these (``decode``). The tokens
are the same as in the kind's ``features``, and the answers those that its ``score`` compares with the gold ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sparse_xp.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Encoding, Tokenizer

#: by output name, for each encoding of a row: [tokens], [tokens, classes] or [classes], without padding
Outputs = dict[str, list["np.ndarray"]]
#: as it is written to JSON; of embeddings an array [size]
Answer: TypeAlias = "dict[str, Any] | list[dict[str, Any]] | np.ndarray"


class NamedText(NamedTuple):
    """A value of a row, under the name that the row gives it."""

    name: str
    value: Any


@dataclass
class EncodedRow:
    """A row as the model sees it: ``text``, its ``encodings`` (several for windows over a long text).

    ``truncated``: whether tokens of the text were cut off. ``word_spans``: of a task on words the characters
    [from, to) of each word in ``text``.
    """

    text: str
    encodings: list[Encoding]
    truncated: bool = False
    word_spans: list[tuple[int, int]] = field(default_factory=list)


def encode_texts(texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
    """Return the tokens of one text, or of a pair of texts, cut to ``max_length`` tokens."""
    first, *second = [checked_text(*text) for text in texts]
    tokenizer.enable_truncation(max_length)
    encoding = tokenizer.encode(first, second[0] if second else None)
    return EncodedRow(first, [encoding], truncated=bool(encoding.overflowing))


def checked_text(name: str, value: object) -> str:
    """Return ``value`` if it is a text that a tokenizer takes. Raises UserError for another value."""
    if not isinstance(value, str):
        raise UserError(f"{name}={brief(value)}: expected a text.")
    check_characters(value, name)
    return value


def check_characters(text: str, where: str) -> None:
    """Raise UserError for a text that cannot be written as UTF-8, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} is U+{ord(text[error.start]):04X}, half of a UTF-16 pair and not a "
            "character. Write the pair as the one character that it stands for, or leave it out."
        ) from error


def brief(value: object) -> str:
    """Return a short form of a wrong value for an error message."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return repr(value)
    if isinstance(value, str):
        return repr(value[:50])
    if isinstance(value, list | dict):
        return "[...]" if isinstance(value, list) else "{...}"
    return f"<{type(value).__name__}>"


def probability(logit: float) -> float:
    """Return the sigmoid of a logit, in float64: in float32 all large ones are 1."""
    import numpy as np

    return float(np.exp(-np.logaddexp(0.0, -float(logit))))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last dimension."""
    import numpy as np

    powers: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities
