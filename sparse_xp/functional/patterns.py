"""Mask patterns: single weights, tiles, or N of every M inputs. No torch: composing a configuration checks them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pattern:
    """Single elements, tiles of ``rows`` x ``cols`` (``pad``: the last may be narrower), or n kept of m inputs."""

    kind: Literal["unstructured", "block", "n_m"] = "unstructured"
    rows: int = 1
    cols: int = 1
    n: int = 0
    m: int = 0
    pad: bool = False


def parse_mask_type(mask_type: str | Sequence[int]) -> Pattern:
    """Read ``unstructured``, ``block4``, a tile ``[out, in]`` (also ``'[1,4]'``, ``'1x4'``), or ``'N:M'``.

    ``[1, 4]`` is four consecutive inputs of one output, ``2:4`` keeps two of every four consecutive inputs.
    Raises ValueError for anything else.
    """
    if mask_type == "unstructured":
        return Pattern()
    if mask_type == "block4":
        return Pattern(kind="block", rows=1, cols=4, pad=True)
    text = re.sub(r"\s", "", str(mask_type))
    if (match := re.fullmatch(r"(\d+):(\d+)", text)) and 0 < int(match[1]) < int(match[2]):
        return Pattern(kind="n_m", n=int(match[1]), m=int(match[2]))
    match = re.fullmatch(r"[\[(](\d+),(\d+)[\])]", text) or re.fullmatch(r"(\d+)x(\d+)", text)
    if match and int(match[1]) > 0 and int(match[2]) > 0:
        return Pattern(kind="block", rows=int(match[1]), cols=int(match[2]))
    raise ValueError(
        f"mask_type={mask_type!r}; expected 'unstructured', 'block4', a tile [out, in] such as [1, 4] or [4, 1], "
        "or 'N:M' with 0 < N < M such as '2:4' (keep 2 of 4 inputs), or 'N:4' (as many as the sparsity says). "
        "'channel' and 'filter' are structured pruning, not mask types."
    )


def with_n(mask_type: str | Sequence[int], sparsity: float) -> str | Sequence[int]:
    """Return ``mask_type``, and for ``'N:4'`` the pattern N:4 that has this ``sparsity``: ``'1:4'`` for 0.75.

    Raises ValueError, with the nearest possible numbers, for a sparsity that no N has within 0.01.
    """
    match = re.fullmatch(r"[Nn]:(\d+)", re.sub(r"\s", "", str(mask_type)))
    if not match or int(match[1]) < 2:
        return mask_type
    m = int(match[1])
    if (kept := _nearest(sparsity, m)) is not None:
        return f"{kept}:{m}"
    exact = (1 - sparsity) * m
    around = sorted({n for n in (math.ceil(exact), math.floor(exact)) if 0 < n < m}, reverse=True)
    numbers = " or ".join(f"{1 - n / m:g} ({n}:{m})" for n in around)
    larger = next((each for each in (8, 16, 32) if each > m and _nearest(sparsity, each) is not None), None)
    raise ValueError(
        f"mask_type={mask_type} keeps a whole number of every {m} inputs: a sparsity of {sparsity:g} is not possible. "
        f"Write recipe.sparsity={numbers}{f', or mask_type=N:{larger}' if larger else ''}."
    )


def _nearest(sparsity: float, m: int) -> int | None:
    """Return the N of N:``m`` with this sparsity within 0.01; None if there is none."""
    kept = min(max(round((1 - sparsity) * m), 1), m - 1)
    return kept if abs(1 - kept / m - sparsity) <= 0.01 + 1e-9 else None


def check_n_m(pattern: Pattern, final_sparsity: float) -> None:
    """Raise ValueError unless ``final_sparsity`` is 1 - N/M within 0.01; other patterns allow any value."""
    if pattern.kind != "n_m":
        return
    implied = 1 - pattern.n / pattern.m
    if abs(final_sparsity - implied) > 0.01 + 1e-9:
        raise ValueError(
            f"mask_type '{pattern.n}:{pattern.m}' keeps {pattern.n} of every {pattern.m} inputs, "
            f"so the sparsity must be {implied:.4g}, not {final_sparsity}"
        )
