"""Tiny checkpoints of every family of encoders, with random weights and a tokenizer of the family's own kind."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from sparse_xp.functional.masks import magnitude_scores, mask_from_scores
from sparse_xp.functional.patterns import Pattern
from sparse_xp.functional.selection import select_parameters
from sparse_xp.synthetic.model import tokenizer_of, vocabulary
from sparse_xp.tasks import all_generated_words

POSITIONS = 130
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.05,
}


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint.

    ``model``: the beginning of its class names in transformers. ``tokenizer``: wordpiece, bytes (byte-level BPE) or
    unigram (SentencePiece, with blanks as a part of tokens). ``config``: what its configuration has besides SHAPE.
    ``positions``: tokens of the longest text, None for any number. ``shares_layers``: no layer can be smaller.
    """

    model: str
    tokenizer: str
    config: dict[str, Any] = field(default_factory=dict)
    positions: int | None = POSITIONS
    shares_layers: bool = False


FAMILIES = {
    "bert": Family("Bert", "wordpiece"),
    "roberta": Family("Roberta", "bytes", {"pad_token_id": 1, "type_vocab_size": 1}, POSITIONS - 2),
    "xlm_roberta": Family("XLMRoberta", "unigram", {"pad_token_id": 1, "type_vocab_size": 1}, POSITIONS - 2),
    "distilbert": Family("DistilBert", "wordpiece"),
    "electra": Family("Electra", "wordpiece", {"embedding_size": 16}),
    "mpnet": Family("MPNet", "wordpiece", {"pad_token_id": 1}, POSITIONS - 2),
    "albert": Family("Albert", "unigram", {"embedding_size": 16}, shares_layers=True),
    "deberta_v2": Family(
        "DebertaV2", "unigram",
        {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
         "position_biased_input": False, "share_att_key": False, "max_relative_positions": 16},
        None,
    ),
    "deberta_v3": Family(
        "DebertaV2", "unigram",
        {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
         "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0},
        None,
    ),
    "nomic_bert": Family("NomicBert", "wordpiece"),
    "modernbert": Family("ModernBert", "bytes", {"global_attn_every_n_layers": 2, "local_attention": 8}),
}  # fmt: skip

#: the special tokens of each kind, and what stands around one text and around two; ``$A`` and ``$B`` are the texts
BERT_LIKE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
ROBERTA_LIKE = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<s> $A </s>", "<s> $A </s> </s> $B </s>")


def build_checkpoint(name: str, directory: Path, sparsity: float = 0.0, seed: int = 0) -> Path:
    """Write an encoder of the family ``name`` without a head; its matrices have round(n * ``sparsity``) zeros."""
    family = FAMILIES[name]
    texts = all_generated_words()
    tokenizer = TOKENIZERS[family.tokenizer](texts, name)
    config = config_of(family, len(tokenizer), tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, f"{family.model}Model")(config)
    with torch.no_grad():
        for weight in select_parameters(model, ["__ENCODER__"]).values():
            weight.mul_(mask_from_scores(magnitude_scores(weight), sparsity, Pattern()))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def config_of(family: Family, tokens: int, tokenizer: Any) -> Any:
    shape: dict[str, Any] = {**SHAPE, "vocab_size": tokens, "max_position_embeddings": POSITIONS}
    if family.model == "DistilBert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                 "intermediate_size": "hidden_dim"}  # fmt: skip
        shape = {names.get(key, key): value for key, value in shape.items()}
    shape["pad_token_id"] = tokenizer.pad_token_id
    if family.model == "ModernBert":
        shape |= {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("cls", "sep")}
        shape |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    return getattr(transformers, f"{family.model}Config")(**{**shape, **family.config})


def wordpiece(texts: list[str], name: str) -> Any:
    words = vocabulary(texts)
    if name == "mpnet":  # its own special tokens, and the padding token as number 1
        words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *words[5:]]
        return wrapped(
            Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")),
            ("<s>", "<pad>", "</s>", "[UNK]", "<mask>", *ROBERTA_LIKE[5:]),
            normalizer=normalizers.BertNormalizer(lowercase=True),
            pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            decoder=decoders.WordPiece(),
            names=("cls", "pad", "sep", "unk", "mask"),
            inputs=["input_ids", "attention_mask"],
        )
    tokenizer = tokenizer_of(words)
    if name == "distilbert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def byte_level(texts: list[str], name: str) -> Any:
    """RoBERTa's tokenizer: a blank before a word belongs to its first token. ModernBERT's has BERT's special tokens."""
    is_modern = name == "modernbert"
    special = BERT_LIKE if is_modern else ROBERTA_LIKE
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(special[:5]), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return wrapped(
        tokenizer,
        special,
        decoder=decoders.ByteLevel(),
        names=("pad", "unk", "cls", "sep", "mask") if is_modern else ("cls", "pad", "sep", "unk", "mask"),
        inputs=["input_ids", "attention_mask"],
    )


def unigram(texts: list[str], name: str) -> Any:
    """SentencePiece's tokenizer of XLM-R, ALBERT and DeBERTa-v3: offsets of a token hold the blank before it."""
    special = ROBERTA_LIKE if name == "xlm_roberta" else BERT_LIKE
    unknown = special[3 if name == "xlm_roberta" else 1]
    tokenizer = Tokenizer(models.Unigram(unigram_pieces(texts, special[:5]), special.index(unknown), False))
    if name == "albert":
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    token_types = ["input_ids", "attention_mask"] if name == "xlm_roberta" else None
    return wrapped(
        tokenizer,
        special,
        decoder=decoders.Metaspace(),
        names=("cls", "pad", "sep", "unk", "mask") if name == "xlm_roberta" else ("pad", "unk", "cls", "sep", "mask"),
        inputs=token_types or ["input_ids", "token_type_ids", "attention_mask"],
    )


def unigram_pieces(texts: list[str], special: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return pieces with their logarithmic probabilities: short words, beginnings of the others, and characters.

    Not trained: the trainer numbers pieces in another order each time.
    """
    words = sorted({word for word in vocabulary(texts) if word.isalpha()})
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "Ü"]
    pieces = {f"▁{word[:4]}": -6.0 for word in words} | {"▁": -8.0} | dict.fromkeys(characters, -10.0)
    return [*((token, 0.0) for token in special), *pieces.items()]


def wrapped(
    tokenizer: Tokenizer,
    special: tuple[str, ...],
    *,
    names: tuple[str, ...],
    inputs: list[str],
    **parts: Any,
) -> Any:
    """Return the tokenizer for transformers, with its template and special tokens."""
    for part, value in parts.items():
        setattr(tokenizer, part, value)
    numbers = [(token, tokenizer.token_to_id(token)) for token in special[:5] if token in f"{special[5]} {special[6]}"]
    tokenizer.post_processor = processors.TemplateProcessing(single=special[5], pair=special[6], special_tokens=numbers)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=inputs,
        model_max_length=POSITIONS - 2,
        **{f"{kind}_token": token for kind, token in zip(names, special[:5], strict=True)},
    )


TOKENIZERS = {"wordpiece": wordpiece, "bytes": byte_level, "unigram": unigram}


def stored_config(directory: Path) -> dict[str, Any]:
    """Return the config.json of a checkpoint."""
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return config
