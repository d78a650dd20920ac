"""A tokenizer is there, is a fast one, and has the tokens of the model."""

from __future__ import annotations

import json

import pytest
import transformers

from sparse_xp.errors import UserError
from sparse_xp.models.tokenizers import check_vocabulary, drop_token_types, load_tokenizer, padding_remark
from tests.families import build_checkpoint
from tests.models.test_weights import build
from tests.tiny import WORDS, make_bert, make_tokenizer


@pytest.fixture
def place(tmp_path):
    make_bert().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def test_more_tokens_than_embeddings_are_refused(place):
    tokenizer = load_tokenizer(str(place))
    tokenizer.add_tokens(["newword"])
    tokenizer.save_pretrained(place)
    with pytest.raises(
        UserError, match=r"'newword' is number 20, .* embeddings for 20 tokens.*resize_token_embeddings"
    ):
        load_tokenizer(str(place))


def test_a_tokenizer_of_far_fewer_tokens_is_refused(place):
    config = place / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 30_522}))
    with pytest.raises(UserError, match=r"has 20 tokens, and by config\.json the model has embeddings for 30,522"):
        load_tokenizer(str(place))


@pytest.mark.parametrize("rows", [len(WORDS), 128, None, "many"])
def test_tables_are_padded_to_round_numbers(rows):
    check_vocabulary(make_tokenizer(), "the tokenizer", rows, "the model")


def test_a_tokenizer_that_is_not_there_says_what_to_do(tmp_path):
    make_bert().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no tokenizer: .*Copy the tokenizer's files into it.*model\.tokenizer="):
        load_tokenizer(str(tmp_path))


def test_a_directory_of_a_tokenizer_that_is_not_there_is_called_that():
    with pytest.raises(UserError, match=r"^No directory \./nowhere"):
        load_tokenizer("./nowhere")


@pytest.mark.parametrize(("kind", "remark"), [("Bert", ""), ("Roberta", "pads with token 0"), ("MPNet", "token 1")])
def test_another_token_for_padding_is_told_where_positions_depend_on_it(kind, remark):
    said = padding_remark(make_tokenizer(), build(kind, "Model"))
    assert remark in said
    assert bool(said) == bool(remark)


def test_a_model_with_one_token_type_gets_none(tmp_path):
    """RoBERTa with BERT's tokenizer: the second text of a pair has type 1, for which there is no row."""
    build_checkpoint("bert", tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    drop_token_types(tokenizer, transformers.BertConfig(type_vocab_size=2))
    assert "token_type_ids" in tokenizer("a", "b")
    drop_token_types(tokenizer, transformers.RobertaConfig(type_vocab_size=1))
    assert list(tokenizer("a", "b")) == ["input_ids", "attention_mask"]
