"""What sentence-transformers opens of ours gives our embeddings, and what it saves loads here with its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORDS, make_tokenizer
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from sparse_xp import structured
from sparse_xp.errors import UserError
from sparse_xp.files.reading import resolve_model_dir
from sparse_xp.functional.structured.config import STRUCTURE_KEY
from sparse_xp.functional.structured.loading import reduced_class
from sparse_xp.models.embedding_model import add_sentence_head, embedding_class
from sparse_xp.models.loading import load_model
from sparse_xp.models.sentence_modules import DenseLayer, SentenceHead
from sparse_xp.preparation import resolve_student
from sparse_xp.tasks import SentenceEmbedding
from tests.runs import configure

pytest.importorskip("sentence_transformers", reason="sentence-transformers is an extra")
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

TASK = SentenceEmbedding(name="texts", dataset=None, max_length=16)
TEXTS = ["The dog sat.", "red", "", "what cat sat on the red mat in the hat ? who where the dogs the dogs the dogs red"]
CONFIG = BertConfig(
    vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=32,
)  # fmt: skip


def embed(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int = 16) -> np.ndarray:
    """The embeddings of a model of ours."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch)["sentence_embedding"].numpy()


def save(directory: Path, head: SentenceHead, config: BertConfig = CONFIG) -> np.ndarray:
    """Save a random model with this head, and return its embeddings of ``TEXTS``."""
    torch.manual_seed(0)
    model, tokenizer = embedding_class(reduced_class(BertModel, config))(config), make_tokenizer()
    add_sentence_head(model, head)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    before = f"{head.prompts[head.default_prompt]}" if head.prompts and head.default_prompt else ""
    return embed(model, tokenizer, [before + text for text in TEXTS], head.max_length or 16)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(
    "head",
    [
        *(SentenceHead(pooling, max_length=16) for pooling in ("mean", "cls", "max")),
        SentenceHead(max_length=8),
        SentenceHead(dimensions=3, max_length=16),
        SentenceHead(
            "cls", dense=(DenseLayer(8, 12, True, "tanh"), DenseLayer(12, 6, False, "identity")), max_length=16
        ),
        SentenceHead("max", dense=(DenseLayer(8, 6, True, "gelu"),), dimensions=4, max_length=16),
        SentenceHead(prompts={"query": "who sat ", "document": ""}, default_prompt="query", max_length=16),
    ],
)
def test_a_saved_model_opens_with_the_same_embeddings(tmp_path: Path, head: SentenceHead, normalized: bool):
    expected = save(tmp_path, replace(head, normalize=normalized))

    opened = SentenceTransformer(str(tmp_path), device="cpu")
    found = opened.encode(TEXTS)

    assert np.abs(found - expected).max() < 1e-5
    assert opened.max_seq_length == head.max_length
    assert opened.prompts == {"query": "", "document": "", **(head.prompts or {})}
    if normalized:
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("further", ["", "normalize", "dense", "bin"])
def test_a_model_that_it_saves_loads_with_the_same_embeddings(tmp_path: Path, pooling: str, further: str):
    torch.manual_seed(0)
    BertModel(CONFIG).save_pretrained(tmp_path / "encoder")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "encoder")
    modules: list[nn.Module] = [Transformer(str(tmp_path / "encoder"), max_seq_length=16), Pooling(8, pooling)]
    if further in ("dense", "bin"):
        modules += [Dense(8, 6, activation_function=nn.Tanh()), Dense(6, 4, activation_function=nn.Identity())]
    if further != "":
        modules.append(Normalize())
    theirs = SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path / "model"), safe_serialization=further != "bin")
    expected = theirs.encode(TEXTS)

    model, _ = load_model(TASK, str(tmp_path / "model"))

    assert np.abs(embed(model, tokenizer, TEXTS) - expected).max() < 1e-5


def test_texts_are_lower_cased_where_the_files_say_so(tmp_path: Path):
    cased = make_tokenizer()
    cased.backend_tokenizer.normalizer = None
    save(tmp_path, SentenceHead(lower_case=True, max_length=16))
    cased.save_pretrained(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)

    _, tokenizer = resolve_student(configure("task=custom_embedding", f"model.checkpoint={tmp_path}"))
    model, _ = load_model(TASK, str(tmp_path))

    assert np.abs(embed(model, tokenizer, TEXTS) - theirs).max() < 1e-5
    assert np.abs(embed(model, cased, TEXTS) - theirs).max() > 1e-3


def test_an_encoder_in_a_folder_of_its_own_loads(tmp_path: Path):
    expected = save(tmp_path, SentenceHead("max", max_length=16))
    (tmp_path / "0_Transformer").mkdir()
    for file in [path for name in ("*token*", "config.json", "model*", "sentence*") for path in tmp_path.glob(name)]:
        file.rename(tmp_path / "0_Transformer" / file.name)
    modules = (tmp_path / "modules.json").read_text().replace('"path": ""', '"path": "0_Transformer"')
    (tmp_path / "modules.json").write_text(modules)

    model, _ = load_model(TASK, resolve_model_dir(str(tmp_path)))

    assert np.abs(embed(model, make_tokenizer(), TEXTS) - expected).max() < 1e-5
    assert np.abs(SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS) - expected).max() < 1e-5


def test_a_model_with_removed_heads_and_neurons_opens_through_structured(tmp_path: Path):
    config = BertConfig(**{**CONFIG.to_dict(), STRUCTURE_KEY: {"heads": [1, 2], "neurons": [5, 7], "full": [2, 16]}})
    head = SentenceHead("max", dense=(DenseLayer(8, 6, True, "tanh"),), dimensions=4, max_length=16)
    expected = save(tmp_path, head, config)

    theirs, ours = structured.sentence_transformer(tmp_path), structured.load(tmp_path)

    assert isinstance(theirs, SentenceTransformer)
    assert theirs[0].auto_model.encoder.layer[0].intermediate.dense.out_features == 5
    assert np.abs(theirs.encode(TEXTS) - expected).max() < 1e-5
    assert np.abs(embed(ours, make_tokenizer(), TEXTS) - expected).max() < 1e-5


def test_a_model_without_modules_is_no_embedding_model(tmp_path: Path):
    BertModel(CONFIG).save_pretrained(tmp_path)

    with pytest.raises(UserError, match=r"is no embedding model: it has no modules.json"):
        structured.sentence_transformer(tmp_path)
