"""Load a model from which heads, neurons or layers were removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.data.hub import AGAIN
from sparse_xp.errors import UserError
from sparse_xp.functional.structured import fitting
from sparse_xp.models.loading import load_weights, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(directory: str | Path, removed_layers: Sequence[str] = ()) -> PreTrainedModel:
    """A saved model, whatever was removed from it, in eval mode: what stock ``from_pretrained`` does for full shapes.

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
        raise UserError(f"{directory}/config.json is damaged: no model of the library is called {name[:80]!r}. {AGAIN}")
    if cls.config_class is not type(config):
        raise UserError(
            f"{directory}/config.json is damaged: its model_type is {config.model_type}, and {name} is of another. "
            f"{AGAIN}"
        )
    model, info = load_weights(fitting(cls, config), str(directory), config, {}, removed_layers)
    new = [*info["missing_keys"], *(weight for weight, *_ in info["mismatched_keys"])]
    lost = sorted(weight for weight in new if "pooler." not in weight)
    if lost:
        raise UserError(
            f"{directory} is damaged: config.json tells of a {name}, whose {lost[0]} is not among the weights, or has "
            f"another shape there. {AGAIN}"
        )
    if not config.architectures and info["unexpected_keys"]:
        raise UserError(
            f"{directory}/config.json is damaged: it has no architectures, and the weights have those of a head "
            f"({min(info['unexpected_keys'])}). {AGAIN}"
        )
    return model.eval()
