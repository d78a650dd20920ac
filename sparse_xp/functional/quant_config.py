"""What quantized modules share: their configuration, and switches that a training run turns.

No torch is imported: the modifier that owns these objects is made while a configuration is composed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QuantConfig:
    """Bits and granularity of quantization, the same for all modules of a model.

    ``per_channel``: one scale for each output row of a matrix instead of one for all. ``dynamic``: activation ranges
    are computed per batch, in training and in the engine. ``reduce_range``: matrices that are multiplied use at most 7
    bits, -63 to 63 (see ``saturation``); tables that are looked up keep ``weight_bits``.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    dynamic: bool = False
    reduce_range: bool = False

    @property
    def matrix_bits(self) -> int:
        """Bits of a matrix that is multiplied."""
        return min(self.weight_bits, 7) if self.reduce_range else self.weight_bits


@dataclass
class QuantMode:
    """Switches that all quantized modules of a model read; the only part that changes during a run.

    ``active``: the modules compute with rounded values; until then they are plain floating point. ``observing``:
    training batches update the ranges of activations. ``calibrating``: evaluation-mode batches update them too, as in
    post-training quantization. The names of the first two are keys of checkpoints. ``step``: grows whenever a training
    step has changed weights or is about to; 0 where nobody counts, and then no rounded weight is kept.
    """

    active: bool = False
    observing: bool = True
    calibrating: bool = False
    step: int = 0
