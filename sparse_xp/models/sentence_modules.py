"""Read and write the files of sentence-transformers beside an encoder: pooling, dense layers, normalisation.

``modules.json`` lists the modules in their order, each with its class and its folder: the encoder (in the directory
itself, or in ``0_Transformer``), ``1_Pooling``, any number of ``2_Dense``, ``3_Normalize``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_xp.data.hub import explain_loading_errors
from sparse_xp.errors import shortened
from sparse_xp.files.json_text import to_json
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_safetensors_header
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.writing import write_bytes, write_text
from sparse_xp.models.sentence_configs import (
    ACTIVATIONS,
    POOLINGS,
    check_hidden_size,
    read_dense_config,
    read_encoder_settings,
    read_modules,
    read_options,
    read_pooling,
)

if TYPE_CHECKING:
    from torch import Tensor

#: how the folder of a dense layer is called that only keeps the first numbers of an embedding
TRUNCATE = "Truncate"
#: what is downloaded of a model of the hub
HUB_FILES = ("modules.json", "config.json", "sentence_*_config.json", "config_sentence_transformers.json", "[0-9]_*/*")


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer behind the pooling. ``activation``: a name of ``ACTIVATIONS``."""

    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class SentenceHead:
    """How the embedding of a text is made of those of its tokens: pooled, through ``dense``, cut, normalised.

    ``dimensions``: the number of leading dimensions that are kept, None for all. ``max_length``: tokens of a text.
    ``prompts``: texts that are put in front of a text, by name; ``default_prompt``: the name of the one that is used
    where none is named. ``lower_case``: whether texts are lower-cased before the tokenizer reads them.
    """

    pooling: str = "mean"
    normalize: bool = True
    dense: tuple[DenseLayer, ...] = ()
    dimensions: int | None = None
    max_length: int | None = None
    prompts: dict[str, str] | None = None
    similarity: str = "cosine"
    default_prompt: str | None = None
    lower_case: bool = False


def read_sentence_head(checkpoint: str, revision: str | None) -> SentenceHead | None:
    """Return the head that the files of sentence-transformers describe; None where there is no ``modules.json``.

    ``checkpoint``: a directory, of the model or of its encoder, or a hub id. Raises UserError for a damaged file, and
    for a module that is not supported.
    """
    directory = sentence_directory(checkpoint, revision)
    if directory is None:
        return None
    folders = read_modules(directory / "modules.json")
    encoder, pooling = directory / folders["Transformer"][0], directory / folders["Pooling"][0] / "config.json"
    mode, width = read_pooling(pooling)
    check_hidden_size(encoder / "config.json", width, pooling)
    dense = []
    for folder in folders["Dense"]:
        dense.append(DenseLayer(**read_dense_config(directory / folder / "config.json", width)))
        width = dense[-1].outputs
    found: dict[str, Any] = {"pooling": mode, "normalize": bool(folders["Normalize"])}
    found |= read_encoder_settings(encoder) | read_options(directory / "config_sentence_transformers.json", width)
    if dense and _is_truncation(directory / folders["Dense"][-1], dense[-1]):
        cut = dense.pop().outputs
        found["dimensions"] = found.get("dimensions") or cut
    return SentenceHead(dense=tuple(dense), **found)


def sentence_directory(checkpoint: str, revision: str | None = None) -> Path | None:
    """Return the directory whose ``modules.json`` a checkpoint belongs to; None if there is none.

    It is that of the checkpoint, or the one above it if the checkpoint is its encoder. Of a model of the hub, the files
    beside the encoder are downloaded.
    """
    path = Path(checkpoint).absolute() if os.path.isdir(checkpoint) else _download(checkpoint, revision)
    if os.path.lexists(path / "modules.json"):
        return path
    above = path.parent / "modules.json"
    return path.parent if os.path.lexists(above) and read_modules(above)["Transformer"] == [path.name] else None


def _download(checkpoint: str, revision: str | None) -> Path:
    """Return the directory in the cache of the hub with the files of a model that are read here."""
    from huggingface_hub import snapshot_download

    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    with explain_loading_errors(f"model {checkpoint}", checkpoint):
        return Path(
            snapshot_download(checkpoint, revision=revision, allow_patterns=list(HUB_FILES), local_files_only=offline)
        )


def read_dense_weights(checkpoint: str, head: SentenceHead, revision: str | None) -> list[dict[str, Tensor]]:
    """Return ``weight`` [outputs, inputs] and ``bias`` [outputs] of each dense layer of a ``head`` read from there.

    The weights are float32. Raises UserError for a file that is damaged or has other weights.
    """
    directory = sentence_directory(checkpoint, revision) if head.dense else None
    if directory is None:
        return []
    folders = read_modules(directory / "modules.json")["Dense"]
    return [_read_linear(directory / folder, layer) for folder, layer in zip(folders, head.dense, strict=False)]


def _read_linear(folder: Path, layer: DenseLayer) -> dict[str, Tensor]:
    """Return the weights of a dense layer. Raises UserError for other names or shapes, and for no finite numbers."""
    # torch is imported late: the settings of a model are read without it
    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if os.path.lexists(path):
        read_safetensors_header(path)
        with explain_loading_errors("", str(folder), path.name):
            found = load_file(path)
    else:
        path = folder / "pytorch_model.bin"
        with explain_read_errors(path, CHECKPOINT_ADVICE):
            path.open("rb").close()
        with explain_loading_errors("", str(folder), path.name):
            found = torch.load(path, map_location="cpu", weights_only=True)
    with explain_read_errors(path, CHECKPOINT_ADVICE):
        expected = {"linear.weight": [layer.outputs, layer.inputs]}
        expected |= {"linear.bias": [layer.outputs]} if layer.bias else {}
        shapes = {name: list(value.shape) for name, value in found.items()}
        if shapes != expected:
            raise ValueError(f"it has {shortened(str(shapes), 200)}, and by config.json it should have {expected}")
        if not all(value.is_floating_point() and value.isfinite().all() for value in found.values()):
            raise ValueError("it holds NaN or infinite numbers, or whole ones")
    return {name.removeprefix("linear."): value.float() for name, value in found.items()}


def _is_truncation(folder: Path, layer: DenseLayer) -> bool:
    """Return whether a dense layer is one of ``write_sentence_modules`` that keeps the first numbers alone."""
    if not folder.name.endswith(TRUNCATE) or layer.bias or layer.activation != "identity":
        return False
    import torch

    return bool(torch.equal(_read_linear(folder, layer)["weight"], torch.eye(layer.outputs, layer.inputs)))


def write_sentence_modules(
    directory: str | Path, head: SentenceHead, dense_weights: Sequence[dict[str, Tensor]], hidden: int
) -> None:
    """Write the files beside an encoder with which sentence-transformers makes the same embeddings from it.

    sentence-transformers cuts an embedding after it has normalised it, and does not normalise again. ``dimensions`` is
    therefore written as a dense layer in front of the normalisation, whose weights are ones and zeros.

    ``dense_weights``: ``weight`` and ``bias`` of each dense layer of the head. ``hidden``: hidden size of the encoder.
    """
    # torch is imported late: the settings of a model are read without it
    import torch

    directory = Path(directory)
    layers = [(layer, weights, "Dense") for layer, weights in zip(head.dense, dense_weights, strict=True)]
    width = head.dense[-1].outputs if head.dense else hidden
    if head.dimensions is not None and head.dimensions < width:
        cut = DenseLayer(width, head.dimensions, bias=False, activation="identity")
        layers.append((cut, {"weight": torch.eye(head.dimensions, width)}, TRUNCATE))
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    _write_pooling(directory / "1_Pooling", head.pooling, hidden)
    for number, (layer, weights, name) in enumerate(layers, start=2):
        modules.append(("Dense", f"{number}_{name}"))
        _write_dense(directory / modules[-1][1], layer, weights)
    if head.normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
        (directory / modules[-1][1]).mkdir(exist_ok=True)
        _write_json(directory / modules[-1][1] / "config.json", {})
    _write_json(
        directory / "sentence_bert_config.json", {"max_seq_length": head.max_length, "do_lower_case": head.lower_case}
    )
    options = {
        "model_type": "SentenceTransformer",
        "prompts": head.prompts or {},
        "default_prompt_name": head.default_prompt,
        "similarity_fn_name": head.similarity,
    }
    _write_json(directory / "config_sentence_transformers.json", options)
    entries = [
        {"idx": number, "name": str(number), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, folder) in enumerate(modules)
    ]
    _write_json(directory / "modules.json", entries)


def _write_pooling(folder: Path, pooling: str, hidden: int) -> None:
    """Write the folder of a pooling, with the keys that every version reads."""
    folder.mkdir(exist_ok=True)
    modes = {key: mode == pooling for mode, key in POOLINGS.items()}
    _write_json(folder / "config.json", {"word_embedding_dimension": hidden, **modes})


def _write_dense(folder: Path, layer: DenseLayer, weights: dict[str, Tensor]) -> None:
    """Write the folder of a dense layer. ``weights``: ``weight``, and ``bias`` if it has one."""
    from safetensors.torch import save

    folder.mkdir(exist_ok=True)
    package = "linear" if layer.activation == "identity" else "activation"
    config = {
        "in_features": layer.inputs,
        "out_features": layer.outputs,
        "bias": layer.bias,
        "activation_function": f"torch.nn.modules.{package}.{ACTIVATIONS[layer.activation]}",
    }
    _write_json(folder / "config.json", config)
    tensors = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in weights.items()}
    write_bytes(folder / "model.safetensors", save(tensors))


def _write_json(path: Path, content: object) -> None:
    write_text(path, to_json(content, indent=2) + "\n")
