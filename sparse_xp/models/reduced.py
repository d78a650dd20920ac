"""Load a model from which heads, neurons or layers were removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE
from sparse_xp.functional.structured.loading import reduced_class
from sparse_xp.models.config_files import read_config
from sparse_xp.models.embedding_model import add_sentence_head, embedding_class
from sparse_xp.models.sentence_modules import read_sentence_head
from sparse_xp.models.weights import load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_reduced_model(
    directory: str | Path, removed_layers: Sequence[str] = (), embeds: bool = True
) -> PreTrainedModel:
    """Return a saved model in eval mode, also one from which heads, neurons, layers or embedding sizes were removed.

    Stock ``from_pretrained`` loads full shapes only. ``embeds``: let the outputs have ``sentence_embedding`` where
    ``modules.json`` of sentence-transformers stands beside an encoder.

    Raises UserError for a directory without a model, or with a damaged one.
    """
    import transformers

    if not (Path(directory) / "config.json").exists():
        raise UserError(f"{directory} is no model directory: it has no config.json. Name one that has.")
    config = read_config(str(directory), None)
    name = (config.architectures or ["AutoModel"])[0]
    cls = getattr(transformers, name, None)
    if cls is transformers.AutoModel:
        cls = cls._model_mapping.get(type(config), None)
    if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
        raise UserError(
            f"{directory}/config.json is damaged: no model of the library is called {name[:80]!r}. {CHECKPOINT_ADVICE}"
        )
    if cls.config_class is not type(config):
        raise UserError(
            f"{directory}/config.json is damaged: its model_type is {config.model_type}, and {name} is of another. "
            f"{CHECKPOINT_ADVICE}"
        )
    encoder: object = transformers.AutoModel._model_mapping.get(type(config), None)
    head = read_sentence_head(str(directory), None) if embeds and cls is encoder else None
    built = reduced_class(cls, config)
    if head:
        built = embedding_class(built)
    model, info = load_weights(built, str(directory), config, {}, removed_layers)
    if head:
        add_sentence_head(model, head, str(directory))
    new = [*info["missing_keys"], *(weight for weight, *_ in info["mismatched_keys"])]
    missing = sorted(weight for weight in new if "pooler." not in weight)
    if missing:
        raise UserError(
            f"{directory} is damaged: config.json describes a {name}, whose {missing[0]} is not among the weights, or "
            f"has another shape there. {CHECKPOINT_ADVICE}"
        )
    if not config.architectures and info["unexpected_keys"]:
        raise UserError(
            f"{directory}/config.json is damaged: it has no architectures, and the weights have those of a head "
            f"({min(info['unexpected_keys'])}). {CHECKPOINT_ADVICE}"
        )
    model.eval()
    return model
