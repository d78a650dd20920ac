"""Load the weights of a checkpoint and check that they are those of the encoder, all of them and no others."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.console import say
from sparse_xp.data.hub import explain_loading_errors
from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_safetensors_header, weight_files
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.models.config_files import count_encoder_weights
from sparse_xp.models.source import from_pretrained_options
from sparse_xp.models.weight_names import (
    find_prefixes,
    is_pooler,
    layer_numbers,
    left_over_in_encoder,
    prefix_mapping,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


#: SparseML saved the matrices of a quantized model inside wrappers: ``query.module.weight`` for ``query.weight``
SPARSEML_NAMES = {r"\.module\.(weight|bias)$": r".\1"}
#: types that weights may have, in safetensors and in torch; 8-bit floats need scales that are stored elsewhere
FLOAT_TYPES = ("F16", "BF16", "F32", "F64", "torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
CONFIG_ADVICE = "Copy or download config.json and weights of the same checkpoint, or choose another."


def load_weights(
    cls: Any, checkpoint: str, config: PreTrainedConfig, options: dict[str, Any], removed_layers: Sequence[str] = ()
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a model of ``cls`` and the loading info of ``from_pretrained`` (missing, unexpected, mismatched keys).

    Only weights of a head or pooler may be new or left over. Names that differ from those of the model by a prefix are
    mended, and a line says so. Raises UserError if weights of the encoder are missing, left over, of another shape or
    no numbers.
    """
    files = [path.name for path in check_weight_files(checkpoint, config)]
    where = str(Path(checkpoint) / files[0]) if files else checkpoint
    model, info = _from_pretrained(cls, checkpoint, files, options)
    missing = _missing_in_encoder(model, info)
    inside = _prefix_of(model)
    encoder = {f"{inside}{name}" for name, _ in model.base_model.named_parameters() if not is_pooler(name)}
    prefixes = find_prefixes(missing, info["unexpected_keys"], inside) if encoder == set(missing) else []
    if prefixes:
        found = _choose_prefix(where, prefixes, model, config)
        mapping = {**options.get("key_mapping", {}), **prefix_mapping(found, inside)}
        model, info = _from_pretrained(cls, checkpoint, files, options | {"key_mapping": mapping})
        say(f"{where}: the names of its weights begin with {found!r}, read as {inside!r}")
    _check_encoder(where, model, info, removed_layers)
    _check_numbers(where, model, info)
    return model, info


def _from_pretrained(
    cls: type[PreTrainedModel], checkpoint: str, files: Sequence[str], options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the model and the loading info of ``from_pretrained``. Raises UserError for any error of the library."""
    with explain_loading_errors(f"model {checkpoint}", checkpoint, *files[:1], *(["config.json"] if files else [])):
        loaded: Any = cls.from_pretrained(
            checkpoint,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **from_pretrained_options(checkpoint),
            **options,
        )
    model, info = loaded
    # save_pretrained would otherwise rename the weights back to the names of the file that they came from.
    vars(model).pop("_weight_conversions", None)
    return model, info


def _prefix_of(model: PreTrainedModel) -> str:
    """Return the prefix of the encoder's weights inside the model: "bert."; empty for a bare encoder."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def _missing_in_encoder(model: PreTrainedModel, info: dict[str, Any]) -> list[str]:
    """Return the names of the encoder's weights that the checkpoint lacks, without those of a pooler."""
    inside = _prefix_of(model)
    return sorted(name for name in info["missing_keys"] if name.startswith(inside) and not is_pooler(name))


def _choose_prefix(where: str, prefixes: list[str], model: PreTrainedModel, config: PreTrainedConfig) -> str:
    """Return the only one of ``prefixes``. Raises UserError for several, and for one of another family of models."""
    from transformers import CONFIG_MAPPING

    if len(prefixes) > 1:
        raise UserError(
            f"{where} holds {len(prefixes)} encoders, under {', '.join(map(repr, prefixes))}: expected one. Save it "
            "alone with save_pretrained, and name its directory."
        )
    own = {model.base_model_prefix, config.model_type}
    others = {name.replace("-", "_") for name in CONFIG_MAPPING} - {name.replace("-", "_") for name in own}
    if other := next((part for part in prefixes[0].split(".") if part.replace("-", "_") in others), None):
        raise UserError(
            f"{where} has the weights of another kind of model than its config.json says: their names begin with "
            f"{prefixes[0]!r}, the type {other!r}, and model_type is {config.model_type!r}. {CONFIG_ADVICE}"
        )
    return prefixes[0]


def _check_encoder(where: str, model: PreTrainedModel, info: dict[str, Any], removed_layers: Sequence[str]) -> None:
    """Raise UserError if weights of the encoder are missing, left over, or of another shape.

    ``removed_layers``: names, or ``re:`` patterns, of layers that may be missing.
    """
    inside = _prefix_of(model)
    if broken := sorted(key for key in info["mismatched_keys"] if key[0].startswith(inside) and not is_pooler(key[0])):
        name, theirs, ours = broken[0]
        raise UserError(
            f"{where} is damaged: {name} has another shape than its config.json says ({list(theirs)} in the file, "
            f"{list(ours)} by config.json). {CHECKPOINT_ADVICE}"
        )
    removed = _compile_layer_patterns(removed_layers)
    absent = [name for name in _missing_in_encoder(model, info) if not any(layer.match(name) for layer in removed)]
    parts = {name.partition(".")[0] for name, _ in model.base_model.named_parameters()}
    left_over = left_over_in_encoder(info["unexpected_keys"], inside, parts)
    extra = sorted(layer_numbers(left_over) - layer_numbers(model.state_dict()), key=int)
    if absent:
        others = left_over or sorted(info["unexpected_keys"])
        instead = f" The file has {others[0]}, which such a model has not." if others else ""
        raise UserError(
            f"{where} is damaged: {absent[0]} is missing ({len(absent):,} of the encoder's weights are), and "
            f"config.json says that it is there.{instead} {CHECKPOINT_ADVICE}"
        )
    if extra:
        raise UserError(
            f"{where} has more layers than its config.json says: {', '.join(extra)} would be left out. {CONFIG_ADVICE} "
            "To leave layers out, correct their number in config.json and remove their weights from the file."
        )
    if left_over:
        raise UserError(
            f"{where} has weights that the encoder of its config.json has not: {left_over[0]} ({len(left_over):,} in "
            f"all) would be left out, and the answers be others. {CONFIG_ADVICE}"
        )


def _check_numbers(where: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Raise UserError if a weight that was read from the checkpoint holds NaN or an infinity."""
    import torch

    new = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    for name, weight in model.named_parameters():
        # The sum of finite float32 numbers is finite in float64; unlike isfinite() it needs no memory per weight.
        if name not in new and not weight.detach().sum(dtype=torch.float64).isfinite():
            raise UserError(f"{where} is damaged: {name} holds NaN or infinite numbers. {CHECKPOINT_ADVICE}")


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
        for name, dtype in _read_dtypes(path).items():
            if name.endswith((".weight", ".bias")) and dtype not in FLOAT_TYPES:
                raise UserError(
                    f"{path} is damaged: {name} is of type {dtype}, and weights are floating-point numbers of 16 bits "
                    f"or more. {CHECKPOINT_ADVICE}"
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


def _read_dtypes(path: Path) -> dict[str, str]:
    """Return the types of the weights in a file by name; none for an index and for a file that holds no dictionary."""
    import torch

    if path.suffix == ".safetensors":
        return {name: entry["dtype"] for name, entry in read_safetensors_header(path).items()}
    if path.suffix != ".bin":
        return {}
    with explain_loading_errors("", str(path.parent), path.name):
        # Only the earlier format, which is no zip archive, has to be read whole.
        found = torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))
    tensors = found.items() if isinstance(found, dict) else ()
    return {str(name): str(value.dtype) for name, value in tensors if isinstance(value, torch.Tensor)}
