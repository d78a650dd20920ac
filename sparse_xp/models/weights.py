"""Load the weights of a checkpoint and check that the encoder is complete."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.console import say
from sparse_xp.data.hub import explain_loading_errors
from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_safetensors_header, weight_files
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.functional.architectures import IN_ANY_LAYER
from sparse_xp.models.config_files import count_encoder_weights
from sparse_xp.models.source import from_pretrained_options

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


#: SparseML saved the matrices of a quantized model inside wrappers: ``query.module.weight`` for ``query.weight``
SPARSEML_NAMES = {r"\.module\.(weight|bias)$": r".\1"}


def load_weights(
    cls: Any, checkpoint: str, config: PreTrainedConfig, options: dict[str, Any], removed_layers: Sequence[str] = ()
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a model of ``cls`` and the loading info of ``from_pretrained`` (missing, unexpected, mismatched keys).

    Only weights of a head or pooler may be new. Layers beyond those that ``config`` counts are left out, and
    a line says so. Raises UserError if weights of the encoder are missing or have another shape.
    """
    files = [path.name for path in check_weight_files(checkpoint, config)]
    with explain_loading_errors(f"model {checkpoint}", checkpoint, *files[:1], *(["config.json"] if files else [])):
        model, info = cls.from_pretrained(
            checkpoint,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **from_pretrained_options(checkpoint),
            **options,
        )
    where = str(Path(checkpoint) / files[0]) if files else checkpoint
    inside = "" if model.base_model is model else f"{model.base_model_prefix}."
    if broken := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(inside)):
        raise UserError(
            f"{where} is damaged: {broken[0]} has another shape than its config.json says. {CHECKPOINT_ADVICE}"
        )
    absent = [name for name in info["missing_keys"] if name.startswith(inside) and ".pooler." not in f".{name}"]
    removed = _compile_layer_patterns(removed_layers)
    if missing := sorted(name for name in absent if not any(layer.match(name) for layer in removed)):
        raise UserError(
            f"{where} is damaged: {missing[0]} is missing ({len(missing):,} of the encoder's weights are), and "
            f"config.json says that it is there. {CHECKPOINT_ADVICE}"
        )
    if extra := sorted(_layer_numbers(info["unexpected_keys"]) - _layer_numbers(model.state_dict()), key=int):
        say(f"{where}: config.json counts fewer layers than it has: {', '.join(extra)} left out")
    return model, info


def _layer_numbers(names: Iterable[str]) -> set[str]:
    """Return the numbers of the encoder layers in names of weights."""
    return {match["number"] for name in names for match in IN_ANY_LAYER.finditer(name)}


def _compile_layer_patterns(names: Sequence[str]) -> list[re.Pattern[str]]:
    """Compile names or ``re:`` patterns of layers into patterns that match the names of their weights."""
    patterns = []
    for name in names:
        # An invalid expression matches nothing here; the run that has it in its recipe reports it.
        with suppress(re.error, OverflowError, RecursionError):
            patterns.append(re.compile(name[3:] if name.startswith("re:") else re.escape(name) + r"\."))
    return patterns


def check_weight_files(checkpoint: str, config: PreTrainedConfig) -> Collection[Path]:
    """Return the weight files of a directory; none for a hub id.

    Raises UserError if they are damaged, or too short for the encoder that ``config`` describes. Loading them would
    allocate that encoder in memory, however large, and fill it with random values.
    """
    if not os.path.isdir(checkpoint):
        return []
    files = weight_files(Path(checkpoint))
    for path in files:
        for name, entry in read_safetensors_header(path).items() if path.suffix == ".safetensors" else ():
            if name.endswith((".weight", ".bias")) and "F" not in entry["dtype"]:
                raise UserError(
                    f"{path} is damaged: {name} is of type {entry['dtype']}, and weights are floating-point numbers. "
                    f"{CHECKPOINT_ADVICE}"
                )
    with explain_read_errors(files[0], CHECKPOINT_ADVICE):
        size = sum(os.path.getsize(path) for path in files)
    expected = count_encoder_weights(config)
    if expected > size:  # a weight takes at least a byte
        raise UserError(
            f"{files[0]} is damaged: it has {size:,} bytes, and by config.json the encoder has {expected:,} weights. "
            f"{CHECKPOINT_ADVICE}"
        )
    return files
