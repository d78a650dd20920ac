"""Pretraining on pairs of segments: masked words, and whether the second segment follows the first."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError
from sparse_xp.tasks.base import Rows
from sparse_xp.tasks.pretraining import Pretraining, special_tokens
from sparse_xp.tasks.segments import Document, segment_pairs

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: with fewer documents in a batch, the second segments of pairs come from too few sources
FEWEST_DOCUMENTS = 10


@dataclass(kw_only=True)
class PairPretraining(Pretraining):
    """Masked language modelling and next sentence prediction (Devlin et al. 2019, appendix A.2).

    The loss is the sum of both.

    Attributes:
        short_rows: The fraction of documents whose rows are shorter than ``max_length``.
        random_next: The fraction of rows whose second segment comes from another document.
    """

    short_rows: float = 0.1
    random_next: float = 0.5

    model_class: ClassVar[str] = "AutoModelForPreTraining"
    outputs: ClassVar[tuple[str, ...]] = ("prediction_logits", "seq_relationship_logits")
    targets: ClassVar[tuple[str, ...]] = ("labels", "next_sentence_label")
    purpose: ClassVar[str] = "masked words and next sentences, to be fine-tuned from"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short_rows", "random_next"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"task.{name}={getattr(self, name)}: expected a fraction from 0 to 1.")

    @property
    def batch_columns(self) -> tuple[str, ...]:
        return ("next_sentence_label",)

    def pack(
        self, documents: list[Document], tokenizer: PreTrainedTokenizerBase, first: int, features: Rows
    ) -> Iterator[list[int]]:
        if len(documents) < FEWEST_DOCUMENTS:
            raise UserError(
                f"task {self.name}: {len(documents)} documents; pairs of segments need {FEWEST_DOCUMENTS} at least, of "
                "which each second segment can be drawn. Give more, or pretrain without pairs (a task of kind "
                "Pretraining)."
            )
        if "token_type_ids" not in features:
            raise UserError(
                f"task {self.name}: this model tells no pairs of segments apart (it has no token types), and so was "
                "not pretrained on them: choose a task of kind Pretraining, such as wikipedia_mlm."
            )
        begin, end = special_tokens(tokenizer)
        rng = random.Random(self.data_seed + first)
        features["next_sentence_label"] = []
        length = self.max_length - 3  # [CLS] and two [SEP]
        for first_segment, second_segment, label in segment_pairs(
            documents, length, rng, self.short_rows, self.random_next
        ):
            features["next_sentence_label"].append(label)
            features["token_type_ids"].append([0] * (len(first_segment) + 2) + [1] * (len(second_segment) + 1))
            yield [begin, *first_segment, end, *second_segment, end]

    def forward(self, model: Callable[..., Any], batch: dict[str, Tensor]) -> Any:
        from torch.nn.functional import cross_entropy

        outputs = super().forward(model, batch)
        logits = outputs["seq_relationship_logits"].float()
        outputs["masked_loss"] = outputs["loss"]
        outputs["pair_loss"] = cross_entropy(logits, batch["next_sentence_label"])
        outputs["loss"] = outputs["masked_loss"] + outputs["pair_loss"]
        return outputs

    def losses(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return outputs["masked_loss"], outputs["pair_loss"]

    def loss_counts(self, batch: dict[str, Tensor]) -> tuple[int, ...]:
        return (*super().loss_counts(batch), len(batch["input_ids"]))

    def unpad(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        """Return the logits of the next sentence as they are, and losses for those of masked tokens."""
        return super().unpad(name, value, length, features, row) if name == self.outputs[0] else value

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        import numpy as np

        logits = np.stack(outputs["seq_relationship_logits"])
        right = logits.argmax(-1) == np.asarray(features["next_sentence_label"])
        return {**super().score(rows, features, outputs), "nsp_accuracy": 100 * float(right.mean())}

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        return len(features) if metric == "nsp_accuracy" else super().answer_count(metric, rows, features)
