"""What the generators share: drawing by a seed, and keeping training and validation apart."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "validation")


def check_split(split: str) -> None:
    """Raise ValueError for a split that is not generated."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; expected one of {', '.join(SPLITS)}")


def split_of(text: str) -> str:
    """Return the split that a text belongs to, whatever the seed: a quarter of all texts are for validation.

    Generators throw away what they draw for the other split, so no text is in both.
    """
    return "validation" if zlib.crc32(text.encode()) % 4 == 0 else "train"


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Return one of ``items``, by ``random()`` alone: the only method whose sequence Python promises to keep."""
    return items[int(rng.random() * len(items))]


def shuffled(rng: random.Random, items: Iterable[T]) -> list[T]:
    """Return the items in random order, by ``random()`` alone."""
    return sorted(items, key=lambda _: rng.random())
