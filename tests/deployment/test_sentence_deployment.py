"""The folder of an embedding model outside this package: ten lines of onnxruntime, and sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import WORDS, make_tokenizer
from transformers import BertConfig, BertModel

import sparse_xp
from sparse_xp.models.embedding_model import add_sentence_head, embedding_class
from sparse_xp.models.sentence_modules import DenseLayer, SentenceHead
from sparse_xp.tasks import SentenceEmbedding

TEXTS = ["The dog sat.", "red", "what cat sat on the red mat in the hat ? who where the dogs the dogs the dogs red"]
HEADS = {
    "cut": SentenceHead("cls", dimensions=3),
    "dense": SentenceHead("max", dense=(DenseLayer(8, 12, True, "tanh"), DenseLayer(12, 6, False, "identity"))),
}


@pytest.fixture(scope="module", params=HEADS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model, one for each head."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    model = embedding_class(BertModel)(config)
    add_sentence_head(model, HEADS[request.param])
    folder = tmp_path_factory.mktemp("folder") / "deployment"
    task = SentenceEmbedding(name="texts", dataset=None, max_length=16)
    sparse_xp.export(model, make_tokenizer(), folder, task=task, rows=[{"text": text} for text in TEXTS])
    return folder


def test_ten_lines_of_onnxruntime_give_the_embeddings_of_the_pipeline(exported: Path):
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    tokenizer, session = Tokenizer.from_file(f"{exported}/tokenizer.json"), InferenceSession(f"{exported}/model.onnx")
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(TEXTS)
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    inputs = {
        node.name: np.array([getattr(each, columns[node.name]) for each in encodings]) for node in session.get_inputs()
    }
    [embeddings] = session.run(["sentence_embedding"], inputs)

    assert np.abs(embeddings - sparse_xp.Pipeline(exported)(TEXTS)).max() < 1e-5


def test_the_first_output_is_the_embedding_and_the_second_that_of_each_token(exported: Path):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    inputs = {node.name: np.ones((2, 5), dtype=np.int64) for node in session.get_inputs()}

    embeddings, tokens = session.run(None, inputs)

    assert [node.name for node in session.get_outputs()] == ["sentence_embedding", "last_hidden_state"]
    assert embeddings.ndim == 2
    assert tokens.shape == (2, 5, 8)


class Exported(torch.nn.Module):
    """What optimum makes of the file for the backend ``onnx``: it reads the output ``last_hidden_state`` alone."""

    def __init__(self, folder: Path, config: BertConfig):
        super().__init__()
        self.config = config
        self.session = onnxruntime.InferenceSession(folder / "model.onnx")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor, **_: Any):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        [found] = self.session.run(["last_hidden_state"], {name: each.numpy() for name, each in inputs.items()})
        return {"last_hidden_state": torch.from_numpy(found)}


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """``SentenceTransformer(DIR, backend="onnx")``; without optimum, with ``Exported`` in the place of its model."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is an extra")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import transformer

    def load(model_name_or_path: str, config: BertConfig, **_: Any) -> Exported:
        return Exported(Path(model_name_or_path), config)

    if find_spec("optimum") is None:
        monkeypatch.setattr(transformer, "load_onnx_model", load)
    return lambda folder: SentenceTransformer(str(folder), backend="onnx", device="cpu")


def test_sentence_transformers_opens_the_folder_with_the_embeddings_of_the_pipeline(
    exported: Path, open_folder: Callable[[Path], Any]
):
    found = open_folder(exported).encode(TEXTS)

    assert np.abs(found - sparse_xp.Pipeline(exported)(TEXTS)).max() < 1e-5
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_run_writes_its_prompts_into_the_folder(folder: Callable[[str], Path], open_folder: Callable[[Path], Any]):
    place = folder("embedding")
    opened, pipeline = open_folder(place), sparse_xp.Pipeline(place)
    texts = ["a film", "the plot"]

    assert np.abs(opened.encode(texts) - pipeline(texts)).max() < 1e-5
    documents = pipeline([{"document": text} for text in texts])
    assert np.abs(opened.encode_document(texts) - documents).max() < 1e-5
    assert np.abs(documents - pipeline(texts)).max() > 1e-3
