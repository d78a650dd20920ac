"""Embeddings of texts by an exported file, with nothing but onnxruntime, tokenizers and numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from sparse_xp.tasks.embedding_scores import unit_vectors

#: texts of a call, which have about the same length. Dynamic int8 takes the range of activations over the call, so its
#: scores depend on this number a little
ROWS = 16
#: longer texts are cut
MAX_TOKENS = 256


def embed(folder: Path, texts: list[str], workers: int = 2, max_tokens: int = MAX_TOKENS) -> np.ndarray:
    """Return the embeddings of texts, of length 1; float32 [texts, dimensions].

    The session is onnxruntime's default but for its threads: each of ``workers`` computes calls of its own on one core.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    rows = tokenize(folder / "tokenizer.json", texts, max_tokens)
    batches = list(batches_of_like_length([len(row) for row in rows]))

    def compute(numbers: np.ndarray) -> np.ndarray:
        arrays = pad([rows[number] for number in numbers])
        values = session.run(["sentence_embedding"], {name: arrays[name] for name in names})[0]
        return unit_vectors(values)

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(compute, batches))
    embeddings = np.empty((len(texts), parts[0].shape[1]), np.float32)
    embeddings[np.concatenate(batches)] = np.concatenate(parts)
    return embeddings


def tokenize(path: Path, texts: list[str], max_tokens: int) -> list[list[int]]:
    """Return the token ids of each text, at most ``max_tokens`` with the special ones, without padding."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def batches_of_like_length(lengths: list[int]) -> Iterator[np.ndarray]:
    """Yield the numbers of up to ``ROWS`` texts each, the longest texts first."""
    order = np.argsort(-np.array(lengths), kind="stable")
    for begin in range(0, len(order), ROWS):
        yield order[begin : begin + ROWS]


def pad(rows: list[list[int]]) -> dict[str, np.ndarray]:
    """Return the inputs of the graph: int64 [rows, tokens] by name."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def embed_once(folder: Path, texts: list[str], cache: Path, workers: int = 2) -> np.ndarray:
    """Return ``embed``'s result; it is kept in ``cache`` under the content of the files, the texts and the batches."""
    key = hashlib.sha256()
    for name in ("model.onnx", "tokenizer.json"):
        key.update((folder / name).read_bytes())
    key.update("\n".join([f"{ROWS} {MAX_TOKENS}", *texts]).encode())
    path = cache / f"{key.hexdigest()[:32]}.npy"
    if path.exists():
        stored: np.ndarray = np.load(path)
        return stored
    embeddings = embed(folder, texts, workers)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, embeddings)
    return embeddings
