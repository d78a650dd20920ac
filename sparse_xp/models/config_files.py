"""Read and check the config.json of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.hub import explain_loading_errors
from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_json_object
from sparse_xp.files.untrusted_json import json_type
from sparse_xp.functional.architectures import ARCHITECTURES
from sparse_xp.models.source import from_pretrained_options

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


#: keys of config.json with their smallest and largest value; larger ones would build modules for hours
SIZE_RANGES = {
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "embedding_size"), (1, 10_000_000)),
    **dict.fromkeys((row.hidden_key for row in ARCHITECTURES), (1, 10_000_000)),
    "type_vocab_size": (0, 10_000_000),
    **dict.fromkeys((row.neurons_key for row in ARCHITECTURES), (0, 10_000_000)),
    **dict.fromkeys((row.heads_key for row in ARCHITECTURES), (1, 10_000)),
    **dict.fromkeys((row.layers_key for row in ARCHITECTURES), (1, 1000)),
    "num_labels": (0, 100_000),
}


def read_config(checkpoint: str, revision: str | None, what: str = "model") -> PreTrainedConfig:
    """Return the configuration of a checkpoint. ``what``: "model" or "teacher", for messages.

    Raises UserError if it cannot be loaded, or if no model can be built from it.
    """
    # transformers is imported late, here and in the whole wing: composing a configuration must not load it
    from transformers import AutoConfig

    if os.path.isdir(checkpoint):
        check_config(Path(checkpoint) / "config.json")
    with explain_loading_errors(f"{what} {checkpoint}", checkpoint, "config.json"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            checkpoint, revision=revision, **from_pretrained_options(checkpoint)
        )
        # Both fail on a damaged file, and then within this block.
        label_names_of(config)
        if os.path.isdir(checkpoint):
            count_encoder_weights(config)
    return config


def check_config(path: Path) -> None:
    """Raise UserError for a config.json with values that no model has, even if the libraries accept them silently."""
    stored = read_json_object(path)
    errors = []
    for name, (least, most) in SIZE_RANGES.items():
        value = stored.get(name)
        if value is not None and (type(value) is not int or not least <= value <= most):
            shown = str(value) if type(value) in (int, float) else json_type(value)
            errors.append(f"{name} is {shown:.40}, expected a whole number from {least} to {most:,}")
    for name, expected in (
        ("id2label", dict),
        ("label2id", dict),
        ("architectures", list),
        ("quantization_config", dict),
    ):
        if not isinstance(stored.get(name), expected | None):
            errors.append(f"{name} is {json_type(stored[name])}, expected {json_type(expected())}")
    names = stored.get("architectures")
    if isinstance(names, list) and not all(isinstance(name, str) for name in names):
        errors.append("architectures is not a list of names")
    # A value of the form OWNER/NAME is code on the hub, which transformers would fetch and run.
    if any("/" in str(stored.get(name) or "") for name in ("attn_implementation", "_attn_implementation")):
        errors.append("attn_implementation is code from the hub, which is never run")
    if errors:
        raise UserError(f"{path} is damaged: {errors[0]}. {CHECKPOINT_ADVICE}")


def count_encoder_weights(config: PreTrainedConfig) -> int:
    """Return the number of weights of the encoder that ``config`` describes, without a pooler; 0 if unknown."""
    import torch
    import transformers

    from sparse_xp.functional.structured.loading import reduced_class

    mapped: Any = transformers.AutoModel._model_mapping.get(type(config), None)
    if mapped is None or isinstance(mapped, tuple):  # a tuple: several classes have this configuration
        return 0
    cls: type[PreTrainedModel] = mapped
    with torch.device("meta"):  # shapes without memory
        model = reduced_class(cls, config)(config)
    return sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith("pooler."))


def label_names_of(config: PreTrainedConfig) -> list[str]:
    """Return the names of a checkpoint's labels in the order of its outputs."""
    labels: dict[Any, str] = dict(config.id2label or {})
    return [str(labels[i]) for i in sorted(labels)]
