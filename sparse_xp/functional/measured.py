"""Records of what was measured on a model: its sparsity, what structured pruning removed, compression. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sparse_xp.text import abbreviate_counts


@dataclass(frozen=True)
class Zeros:
    """Weights that are exactly 0 (``zeros``), among so many (``weights``)."""

    zeros: int
    weights: int

    @classmethod
    def total(cls, parts: Iterable[Zeros]) -> Zeros:
        """Return the sum of several."""
        listed = list(parts)
        return cls(sum(part.zeros for part in listed), sum(part.weights for part in listed))

    @property
    def fraction(self) -> float:
        """Zeros over weights, in [0, 1]; 0 if there are no weights."""
        return self.zeros / self.weights if self.weights else 0.0

    def __str__(self) -> str:
        return f"{self.zeros:,} of {self.weights:,} ({self.fraction:.2%})"


@dataclass
class Removed:
    """The parts of a model that structured pruning removed, and the remaining sizes.

    ``share``: the removed fraction of the weights of the encoder's matrices. ``heads``, ``neurons``: their number in
    each remaining layer. ``layers``: the layers removed as a whole, by their numbers in the full model, from 0.
    ``embeddings``: the remaining dimensions of factored word embeddings, None if they are one table.
    """

    share: float
    heads: list[int]
    neurons: list[int]
    layers: list[int] = field(default_factory=list)
    embeddings: int | None = None

    @property
    def description(self) -> str:
        """The numbers in a phrase: 50.0% of the encoder removed (heads 6 in 6 layers; neurons 768 in 6 layers)."""
        left = f"heads {abbreviate_counts(self.heads)}; neurons {abbreviate_counts(self.neurons)}"
        layers = f"; without layers {' '.join(map(str, self.layers))}" if self.layers else ""
        embeddings = f"; embeddings of {self.embeddings} dimensions" if self.embeddings else ""
        return f"{self.share:.1%} of the encoder removed ({left}{layers}{embeddings})"


@dataclass
class Sparsity:
    """Fractions of exact zeros among the weights that a model still has.

    ``prunable``: of the weights that the recipe may prune. ``encoder``: of all encoder layers. ``model``: of the whole
    model. ``layers``: of each prunable matrix, by its name. ``removed``: the weights that structured pruning removed,
    which these fractions do not count; None if it removed none.
    """

    prunable: float
    encoder: float
    model: float
    layers: dict[str, float]
    removed: Removed | None = None


#: bits of a weight of the dense model
DENSE_BITS = 32


class StoredWeights(NamedTuple):
    """One tensor of a model: its elements, those that are not zero, and the bits that the file has for each."""

    size: int
    nonzero: int
    bits: int


@dataclass
class CompressedPart:
    """How much smaller the nonzero weights of a part of a model are than the dense part in fp32.

    ``dense_weights``: in the unpruned model, removed ones included; ``dense_bytes``: 4 for each. ``nonzero``: weights
    that are not exactly 0; ``bits``: that the file has for each of them, the mean if they differ; ``nonzero_bytes``:
    of them. ``ratio``: dense bytes over nonzero bytes, as papers count it, without the positions of the nonzero
    weights. ``masked_bytes``, ``masked_ratio``: the same with positions, a bit for each weight that says whether it is
    zero; a tensor that is smaller with its zeros stored needs none. ``arithmetic``: how ``ratio`` is computed.
    """

    dense_weights: int
    dense_bytes: int
    nonzero: int
    bits: float
    nonzero_bytes: float
    ratio: float
    masked_bytes: float
    masked_ratio: float
    arithmetic: str


@dataclass
class Compression:
    """The compression of a model. ``encoder``: of the matrices of its encoder layers; ``model``: of all parameters."""

    encoder: CompressedPart
    model: CompressedPart

    @property
    def ratios(self) -> str:
        """Both ratios, encoder first: ``40.0 / 13.3``."""
        return f"{self.encoder.ratio:.1f} / {self.model.ratio:.1f}"

    @property
    def description(self) -> str:
        """Both ratios with their arithmetic, and with the positions of the nonzero weights, as one sentence."""
        parts = (("encoder", self.encoder), ("whole model", self.model))
        return "; ".join(f"{name} {part.arithmetic} ({part.masked_ratio:.1f} with a bit mask)" for name, part in parts)


def compressed_part(dense_weights: int, tensors: Sequence[StoredWeights]) -> CompressedPart:
    """Return the compression of a part with ``dense_weights`` in the unpruned model, of which ``tensors`` are left."""
    nonzero, stored, masked = sum(each.nonzero for each in tensors), 0, 0
    counts: Counter[int] = Counter()
    for size, left, bits in tensors:
        counts[bits] += left
        stored += left * bits
        masked += min(size * bits, left * bits + size)
    dense = dense_weights * DENSE_BITS
    ratio = divide(dense, stored)
    terms = " + ".join(f"{count:,} nonzero x {bits} bits" for bits, count in sorted(counts.items()) if count)
    return CompressedPart(
        dense_weights=dense_weights,
        dense_bytes=dense // 8,
        nonzero=nonzero,
        bits=divide(stored, nonzero),
        nonzero_bytes=stored / 8,
        ratio=ratio,
        masked_bytes=masked / 8,
        masked_ratio=divide(dense, masked),
        arithmetic=f"{dense_weights:,} weights x {DENSE_BITS} bits / ({terms or '0 nonzero'}) = {ratio:.1f}",
    )


def divide(dividend: float, divisor: float) -> float:
    """Return the quotient; of something by nothing infinity, of nothing by nothing NaN."""
    return dividend / divisor if divisor else math.inf if dividend else math.nan


@dataclass(frozen=True)
class WeightCount:
    """The zeros of a model and what they are counted among, each tied tensor once.

    ``prunable``: the weights that are usually pruned; ``prunable_weights`` says in words which these are. ``encoder``:
    all parameters of the encoder layers; None for a model without such layers. ``model``: all parameters. ``layers``:
    of each prunable matrix, by its name. ``integers``: how many modules compute in 8 bits. ``removed``: what structured
    pruning removed, which is not among the weights that are counted. ``compression``: of the encoder and the whole
    model against dense fp32. Both are None for a model without encoder layers, ``removed`` also where nothing is gone.
    """

    prunable: Zeros
    prunable_weights: str
    encoder: Zeros | None
    model: Zeros
    layers: dict[str, Zeros]
    integers: int
    removed: Removed | None
    compression: Compression | None

    def __str__(self) -> str:
        lines = [f"zeros of the prunable weights: {self.prunable}: {self.prunable_weights}"]
        lines += [f"zeros of the encoder layers: {self.encoder}"] if self.encoder else []
        lines += [f"zeros of the whole model: {self.model}"]
        lines += [self.removed.description] if self.removed else []
        lines += [f"modules in 8 bits: {self.integers}"] if self.integers else []
        lines += [f"compression: {self.compression.description}"] if self.compression else []
        return "\n".join(lines)
