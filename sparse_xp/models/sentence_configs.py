"""Read the JSON files of sentence-transformers: its modules, and the settings of each.

sentence-transformers imports the classes that the files name. Here they are looked up in fixed lists, and nothing is
imported. What is not supported is one message that names the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparse_xp.errors import UserError, shortened
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_json_object
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.untrusted_json import json_type, parse_json_list
from sparse_xp.functional.architectures import ARCHITECTURES

#: the poolings that are read and written, each with its key in the files of versions before 6
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
#: the other poolings of sentence-transformers, with the same keys
OTHER_POOLINGS = {
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
#: activations of a dense layer, each with its class in torch.nn; all of them act on each number alone
ACTIVATIONS = {
    **{"identity": "Identity", "tanh": "Tanh", "relu": "ReLU", "gelu": "GELU", "sigmoid": "Sigmoid", "silu": "SiLU"},
}
#: the similarities that sentence-transformers knows
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
#: names of the encoder's settings, in the order in which sentence-transformers looks for them
ENCODER_SETTINGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
SUPPORTED = "Supported: an encoder, a pooling (mean, cls or max), any number of dense layers, a normalisation."
#: the largest number of an embedding's dimensions, or of a text's tokens, that is believed
MAX_SIZE = 1_000_000


def read_modules(path: Path) -> dict[str, list[str]]:
    """Return the folders of ``modules.json`` by kind: one Transformer and Pooling, any number of Dense and Normalize.

    Raises UserError for another kind or order of modules, and for a folder that is not in the directory of ``path``.
    """
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        kinds, folders = [], {kind: list[str]() for kind in ("Transformer", "Pooling", "Dense", "Normalize")}
        for entry in parse_json_list(path.read_bytes()):
            if not isinstance(entry, dict) or not isinstance(entry["type"], str) or not isinstance(entry["path"], str):
                raise ValueError("expected an object with texts 'type' and 'path' for each module")
            package, _, kind = entry["type"].rpartition(".")
            if package.partition(".")[0] != "sentence_transformers":
                raise UserError(
                    f"{path}: the module {shortened(entry['type'], 100)} is code of its own, which is never run. "
                    f"{SUPPORTED}"
                )
            if kind not in (*folders, "Dropout"):
                raise UserError(f"{path}: a module {shortened(kind, 100)} is not supported. {SUPPORTED}")
            folder = entry["path"]
            if folder and (Path(folder).name != folder or "\\" in folder or folder == ".."):
                raise ValueError(f"the path {shortened(repr(folder), 100)} is no folder beside it")
            if kind != "Dropout":  # which does nothing once a model is trained
                kinds.append(kind)
                folders[kind].append(folder)
    expected = [
        "Transformer",
        "Pooling",
        *["Dense"] * len(folders["Dense"]),
        *["Normalize"] * bool(folders["Normalize"]),
    ]
    if kinds != expected:
        raise UserError(
            f"{path}: the modules {', '.join(kinds) or 'none'} are not supported in this order. {SUPPORTED}"
        )
    return folders


def read_pooling(path: Path) -> tuple[str, int]:
    """Return the pooling that ``1_Pooling/config.json`` describes, and the size of the embeddings that it takes."""
    stored = read_json_object(path)
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        size = _size(stored, "embedding_dimension" if "embedding_dimension" in stored else "word_embedding_dimension")
        modes = stored.get("pooling_mode")
        if modes is None:
            keys = POOLINGS | OTHER_POOLINGS
            modes = [mode for mode, key in keys.items() if _flag(stored, key)] or "mean"
        modes = [modes] if isinstance(modes, str) else modes
        if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
            raise ValueError("pooling_mode: expected a text, or a list of texts")
        include_prompt = _flag(stored, "include_prompt", default=True)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        shown = shortened(" and ".join(modes), 100)
        raise UserError(f"{path}: the pooling {shown} is not supported, only one of {', '.join(POOLINGS)}.")
    if not include_prompt:
        raise UserError(f"{path}: include_prompt=false, a pooling without the tokens of the prompt, is not supported.")
    return modes[0], size


def check_hidden_size(config: Path, size: int, pooling: Path) -> None:
    """Raise UserError unless the encoder makes embeddings of the ``size`` that the file ``pooling`` states."""
    stored = read_json_object(config)
    found = [stored[key] for key in {row.hidden_key for row in ARCHITECTURES} if key in stored]
    if found and size not in found:
        raise UserError(
            f"{pooling} does not fit {config}: it takes embeddings of {size}, and the encoder makes some of "
            f"{shortened(str(found[0]), 40)}. {CHECKPOINT_ADVICE}"
        )


def read_dense_config(path: Path, width: int) -> dict[str, Any]:
    """Return the fields of a ``DenseLayer`` from its file. ``width``: the size of the embeddings before it."""
    stored = read_json_object(path)
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        inputs, outputs, bias = _size(stored, "in_features"), _size(stored, "out_features"), _flag(stored, "bias", True)
        dotted = stored.get("activation_function", "torch.nn.modules.activation.Tanh")
        if not isinstance(dotted, str):
            raise ValueError(f"activation_function is {json_type(dotted)}, expected a text")
        if inputs != width:
            raise ValueError(f"in_features is {inputs}, and the embeddings before it are of {width}")
        names = [stored.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")]
        residual = _flag(stored, "use_residual")
    package, _, cls = dotted.rpartition(".")
    names_by_class = {value: name for name, value in ACTIVATIONS.items()}
    if not package.startswith("torch.nn") or cls not in names_by_class:
        raise UserError(
            f"{path}: the activation {shortened(dotted, 100)} is not supported, only torch.nn's "
            f"{', '.join(ACTIVATIONS.values())}."
        )
    if residual or names != ["sentence_embedding"] * 2:
        raise UserError(f"{path}: a dense layer with a residual, or of other features, is not supported. {SUPPORTED}")
    return {"inputs": inputs, "outputs": outputs, "bias": bias, "activation": names_by_class[cls]}


def read_encoder_settings(encoder: Path) -> dict[str, Any]:
    """Return ``max_length`` and ``lower_case`` of the settings in the folder of an encoder, if it has some."""
    path = next((encoder / name for name in ENCODER_SETTINGS if os.path.lexists(encoder / name)), None)
    if path is None:
        return {}
    stored = read_json_object(path)
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        known = stored.get("max_seq_length") is not None
        found = {
            "max_length": _size(stored, "max_seq_length") if known else None,
            "lower_case": _flag(stored, "do_lower_case"),
        }
        modality = stored.get("modality_config") or {}
        if not isinstance(modality, dict) or not isinstance(text := modality.get("text") or {}, dict):
            raise ValueError("modality_config: expected an object of objects")
    plain = (
        stored.get("transformer_task", "feature-extraction") == "feature-extraction"
        and text.get("method_output_name", "last_hidden_state") == "last_hidden_state"
        and stored.get("module_output_name", "token_embeddings") == "token_embeddings"
        and not stored.get("query_expansion")
    )
    if not plain:
        raise UserError(f"{path}: the encoder gives something else than an embedding of each token. {SUPPORTED}")
    return found


def read_options(path: Path, width: int) -> dict[str, Any]:
    """Return prompts, similarity and cut of ``config_sentence_transformers.json``. ``width``: of whole embeddings."""
    if not os.path.lexists(path):
        return {"dimensions": None}
    stored = read_json_object(path)
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        model_type = stored.get("model_type", "SentenceTransformer")
        prompts, default = stored.get("prompts") or {}, stored.get("default_prompt_name")
        if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
            raise ValueError("prompts: expected an object of texts")
        if default is not None and (not isinstance(default, str) or default not in prompts):
            raise ValueError("default_prompt_name: expected the name of one of the prompts")
        similarity = stored.get("similarity_fn_name") or "cosine"
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity_fn_name: expected one of {', '.join(SIMILARITIES)}")
        cut = _size(stored, "truncate_dim") if stored.get("truncate_dim") is not None else width
    if model_type != "SentenceTransformer":
        raise UserError(f"{path}: a {shortened(str(model_type), 100)} is not supported, only a SentenceTransformer.")
    return {
        "prompts": {name: text or "" for name, text in prompts.items()} or None,
        "default_prompt": default,
        "similarity": similarity,
        "dimensions": cut if cut < width else None,
    }


def _size(stored: dict[str, Any], key: str) -> int:
    """Return a number of dimensions or tokens. Raises KeyError or ValueError."""
    value = stored[key]
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        raise ValueError(f"{key}: expected a whole number from 1 to {MAX_SIZE:,}")
    return value


def _flag(stored: dict[str, Any], key: str, default: bool = False) -> bool:
    """Return true or false of a JSON object. Raises ValueError for anything else."""
    value = stored.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {json_type(value)}, expected true or false")
    return value
