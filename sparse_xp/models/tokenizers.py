"""Load the tokenizer of a checkpoint and check its files."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sparse_xp.data.hub import check_hub_id, explain_loading_errors
from sparse_xp.data.tokenizer_settings import preserve_settings
from sparse_xp.errors import UserError
from sparse_xp.files.model_directory import CHECKPOINT_ADVICE, read_json_object, read_lines
from sparse_xp.files.reading import explain_read_errors
from sparse_xp.files.untrusted_json import json_type
from sparse_xp.models.config_files import check_config
from sparse_xp.models.source import from_pretrained_options

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


#: files that hold the vocabulary of a tokenizer; the first one that exists is read
VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
#: the least share of the rows of an embedding that must have a token; tables are padded to round numbers
MIN_VOCABULARY_SHARE = 0.9
#: so many rows more may be without a token in any table
PADDING_ROWS = 128


def load_tokenizer(checkpoint: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a checkpoint.

    Raises UserError if it cannot be loaded, its files are damaged, or it does not fit the config.json beside it.
    """
    from transformers import AutoTokenizer

    if not os.path.isdir(checkpoint):
        check_hub_id(checkpoint)
    files = check_tokenizer_files(Path(checkpoint)) if os.path.isdir(checkpoint) else []
    with explain_loading_errors(f"tokenizer of {checkpoint}", checkpoint, *files):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision, **from_pretrained_options(checkpoint))
        # Use it once: some damage shows only then.
        with preserve_settings(tokenizer):
            padding = "max_length" if tokenizer.pad_token else False
            tokenizer(["a", "A b!"], truncation=True, max_length=8, padding=padding)
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of {checkpoint} is a slow one ({type(tokenizer).__name__}), which does not tell where in a "
            "text a token stands. Add its tokenizer.json, or choose another with model.tokenizer=."
        )
    config = Path(checkpoint) / "config.json"
    if config.is_file():
        check_vocabulary(tokenizer, str(Path(checkpoint) / files[-1]), read_json_object(config).get("vocab_size"), "it")
    return tokenizer


def add_lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a fast tokenizer lower-case texts first, as sentence-transformers does where ``do_lower_case`` is true."""
    from tokenizers.normalizers import Lowercase, Normalizer, Sequence

    backend = cast(Any, tokenizer).backend_tokenizer
    own: list[Normalizer] = [] if backend.normalizer is None else [backend.normalizer]
    if not any("Lowercase" in repr(each) for each in own):
        backend.normalizer = Sequence([Lowercase(), *own])


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, whose: str, rows: object, model: str) -> None:
    """Raise UserError if a tokenizer has more tokens than its model has embeddings, or far fewer.

    ``whose``: the tokenizer, ``model``: the model, both for the message. ``rows``: ``vocab_size`` of the model's
    config.json; nothing is compared unless it is a number.
    """
    if type(rows) is not int:
        return
    vocabulary = tokenizer.get_vocab()
    token, number = max(vocabulary.items(), key=lambda item: item[1], default=("", -1))
    if number >= rows:
        raise UserError(
            f"{whose} does not fit {model}: the token {token!r} is number {number}, and by config.json the model has "
            f"embeddings for {rows:,} tokens, from number 0. Embeddings are not added by a run: call "
            "resize_token_embeddings of transformers and save model and tokenizer together, or take the tokenizer "
            f"that the model was trained with. {CHECKPOINT_ADVICE}"
        )
    if len(vocabulary) < MIN_VOCABULARY_SHARE * rows - PADDING_ROWS:
        raise UserError(
            f"{whose} does not fit {model}: it has {len(vocabulary):,} tokens, and by config.json the model has "
            f"embeddings for {rows:,}. Take the tokenizer that the model was trained with. {CHECKPOINT_ADVICE}"
        )


def padding_remark(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> str:
    """Return what to know if a model takes another token for padding than its tokenizer; empty otherwise.

    Models that count positions by the padding (RoBERTa and its relatives, MPNet) give that token no position.
    """
    theirs = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    if theirs is None or tokenizer.pad_token_id in (None, theirs):
        return ""
    return (
        f"the tokenizer pads with token {tokenizer.pad_token_id} and the model takes token {theirs} "
        f"({tokenizer.convert_ids_to_tokens(theirs)!r}) for padding: they may not belong together"
    )


def drop_token_types(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Let ``tokenizer`` make no token types for a model that does not tell two texts apart.

    Such a model has one row for token types or none, and no place for the number 1 of a second text.
    """
    if getattr(config, "type_vocab_size", 2) < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]


def check_tokenizer_files(directory: Path) -> list[str]:
    """Return the names of the tokenizer's files in ``directory``. Raises UserError for a damaged one."""
    with explain_read_errors(directory, CHECKPOINT_ADVICE):
        names = [name for name in os.listdir(directory) if os.path.lexists(directory / name)]
    main = next((name for name in VOCABULARY_FILES if name in names), None)
    if main is None:
        raise UserError(
            f"{directory} has no tokenizer: expected tokenizer.json, vocab.txt, or vocab.json. Copy the tokenizer's "
            "files into it. For the model of a run, model.tokenizer= may name another directory or a hub id instead."
        )
    if "config.json" in names:  # names the class of the tokenizer if tokenizer_config.json does not
        check_config(directory / "config.json")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if name in names:
            check_special_tokens(directory / name)
    added = len(read_json_object(directory / "added_tokens.json")) if "added_tokens.json" in names else 0
    if main in ("tokenizer.json", "vocab.json"):
        vocabulary = read_json_object(directory / main)
    if main == "tokenizer.json":
        from tokenizers import Tokenizer

        with explain_loading_errors("", str(directory), main):
            Tokenizer.from_file(str(directory / main))
    if main == "vocab.txt":
        check_vocabulary_size(directory / main, added + len(read_lines(directory / main)), directory / "config.json")
    if main == "vocab.json":
        _check_merges(directory, vocabulary, "merges.txt" in names)
    return [main, *(name for name in ("merges.txt", "tokenizer_config.json") if name in names)]


def _check_merges(directory: Path, vocabulary: Collection[str], exists: bool) -> None:
    """Raise UserError unless the merges of a byte-pair encoding ``exist`` and produce the ``vocabulary``."""
    if not exists:
        raise UserError(f"{directory}/merges.txt is missing. {CHECKPOINT_ADVICE}")
    merged = {line.replace(" ", "") for line in read_lines(directory / "merges.txt")}
    # Single characters and special tokens such as <s> are not merged from others.
    pieces = [token for token in vocabulary if len(token) > 1 and not re.fullmatch("<.*>", token)]
    if sum(token in merged for token in pieces) < MIN_VOCABULARY_SHARE * len(pieces):
        raise UserError(
            f"{directory}/merges.txt is damaged (it does not make the words of vocab.json). {CHECKPOINT_ADVICE}"
        )


def check_special_tokens(path: Path) -> None:
    """Raise UserError for special tokens or lengths that are wrong but accepted silently by ``from_pretrained``."""
    stored = read_json_object(path)
    for name, value in stored.items():
        text = value.get("content") if isinstance(value, dict) else value
        if re.fullmatch("[a-z]+_token", name) and value is not None and not isinstance(text, str):
            raise UserError(f"{path} is damaged: {name} is {json_type(value)}, expected a token. {CHECKPOINT_ADVICE}")
    longest = stored.get("model_max_length")
    if longest is not None and (type(longest) not in (int, float) or not longest >= 1):
        raise UserError(f"{path} is damaged: model_max_length is not a number above 0. {CHECKPOINT_ADVICE}")


def check_vocabulary_size(path: Path, entries: int, config: Path) -> None:
    """Raise UserError if a vocabulary is cut short: it has far fewer entries than the embedding has rows."""
    rows = read_json_object(config).get("vocab_size") if config.is_file() else None
    padding = PADDING_ROWS if type(rows) is int and rows % 64 == 0 else 0
    if type(rows) is int and entries < MIN_VOCABULARY_SHARE * rows - padding:
        raise UserError(
            f"{path} is damaged (it has {entries:,} words, and config.json says {rows:,}). {CHECKPOINT_ADVICE}"
        )
