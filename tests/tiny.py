"""What several tests build by hand: a BERT of a few hundred weights, a tokenizer of twenty words, a run, a result."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from sparse_xp.clock import Clock
from sparse_xp.functional.measured import Sparsity
from sparse_xp.modifiers.context import HookContext
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.result import Deployment, Provenance, Result, Training
from sparse_xp.training.state import Progress, Run

torch.set_num_threads(1)

#: the numbers of the tokens are their places: [CLS] is 2, [SEP] 3, "who" 5
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "who", "what", "where", "the", "dog", "##s", "cat", "sat", "on", "red", "mat", "in", "hat", ".", "?"]


def make_tokenizer(words: list[str] | None = None) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer with BERT's special tokens over ``words``."""
    numbers = {word: i for i, word in enumerate(words or WORDS)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_bert(seed: int = 0) -> BertForSequenceClassification:
    """One layer, 8 wide. Its encoder has four matrices of 64 weights (attention) and two of 128."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


class FakeContext(Run):
    """A run at step 0 that has only the fields it is given; what it does with them is the real code."""

    def __init__(self, steps_per_epoch: int, total_steps: int, **fields: Any):
        defaults: dict[str, Any] = {
            "clock": Clock(steps_per_epoch, total_steps),
            "progress": Progress(),
            "accelerator": SimpleNamespace(
                autocast=nullcontext,
                scaler=None,
                num_processes=1,
                process_index=0,
                is_main_process=True,
                main_process_first=nullcontext,
                device=torch.device("cpu"),
                mixed_precision="no",
            ),
            "modifier_list": ModifierList({}, Clock(steps_per_epoch, total_steps)),
            "source": "some/checkpoint",
            "task": SimpleNamespace(features_per_row=1, embeds=False),
        }
        vars(self).update(defaults | fields)


def make_run(steps_per_epoch: int, total_steps: int, **fields: Any) -> FakeContext:
    """Return a run of so many steps, as a modifier sees it."""
    run = FakeContext(steps_per_epoch, total_steps, **fields)
    _context: HookContext = run  # a type checker compares the two
    return run


def loss_of(modifier: Any, run: Any, rows: list[int], batch: Any, outputs: Any, loss: torch.Tensor) -> torch.Tensor:
    """The loss of a step of one micro-batch, as a modifier or a list of them makes it of ``loss``."""
    modifier.before_batches(run, [rows], [batch])
    result: torch.Tensor = modifier.loss(run, rows, batch, outputs, loss)
    return result


def plain_task(*targets: str) -> Any:
    """As much of a task as training looks at: the columns ``targets``, and the model's own loss."""
    return SimpleNamespace(
        targets=targets,
        batch_columns=targets,
        features_per_row=1,
        embeds=False,
        apply_dynamic_masking=lambda batch, *_: batch,
        forward=lambda model, batch: model(**batch),
        curvature_loss=lambda model, batch: model(**batch).loss,
    )


def make_result(**changes: Any) -> Result:
    """A run of SQuAD at 80 %, with some fields changed."""
    fields: dict[str, Any] = {
        "task": "squad",
        "model": "minilm",
        "recipe": "pruned80",
        "profile": "full",
        "seed": 42,
        "metric": "f1",
        "metrics": {"exact_match": 75.5, "f1": 82.5},
        "deployment": Deployment({"exact_match": 75.0, "f1": 82.25}, 3.2e-6, 12_345_678, 4_500_000, compression="zstd"),
        "sparsity": Sparsity(0.8, 0.79, 0.414, {"layer.0.weight": 0.75, "layer.1.weight": 0.85}),
        "training": Training(
            epochs=2.5,
            steps=240,
            seconds=61.7,
            samples_per_second=62.3,
            device="cpu",
            precision="fp32",
            train_rows=1536,
            eval_rows=384,
            train_rows_of=1536,
            eval_rows_of=384,
            best_step=200,
        ),
        "teacher": None,
        "provenance": Provenance(
            command="python -m sparse_xp task=squad recipe=pruned80",
            git=None,
            versions={"torch": "2.13.0", "onnx": "1.19.0"},
            config_hash="0123456789",
            data_fingerprint="fedcba",
        ),
    }
    return Result(**fields | changes)
