"""Pretraining: guessing masked words of running text, with and without the question which sentence comes next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.tasks.base import Rows, Task
from sparse_xp.tasks.token_classification import IGNORED

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from sparse_xp.data.readers import Limits
    from sparse_xp.tasks.segments import Document

#: fewer documents than this in a batch, and the second segments of pairs come from too few places
FEWEST = 10


@dataclass(kw_only=True)
class Pretraining(Task):
    """Masked language modelling of the documents in column ``text`` (Devlin et al. 2019, section 3.1).

    A document becomes rows of whole sentences with a separator between them. ``masked`` of the tokens, anew in each
    epoch, are to be guessed, or so many whole words (``whole_words``); evaluation rows are masked once, the same for
    every model with that vocabulary. ``layout``: ``documents``, one a row, or ``wikitext``, one line a row.
    ``language``: whose rules tell where a sentence ends. ``data_seed``: of the order of documents, of pairs, of the
    masks of evaluation rows; runs that differ in ``seed`` see the same.
    """

    max_length: int = 512
    metric: str = "accuracy"
    text: str = "text"
    layout: str = "documents"
    language: str = "en"
    masked: float = 0.15
    whole_words: bool = False
    data_seed: int = 42

    model_class: ClassVar[str] = "AutoModelForMaskedLM"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    per_token: ClassVar[bool] = True
    padding: ClassVar[dict[str, int]] = {"labels": IGNORED}
    fixed_features: ClassVar[bool] = False
    mixes_rows: ClassVar[bool] = True
    over_vocabulary: ClassVar[bool] = True
    sums_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in ("documents", "wikitext"):
            raise ValueError(
                f"task.layout={self.layout}: want documents or wikitext."
                f"{did_you_mean(self.layout, ('documents', 'wikitext'))}"
            )
        if not 0 < self.masked < 1:
            raise ValueError(f"task.masked={self.masked}: want a fraction between 0 and 1.")
        if self.metric != "accuracy":
            raise ValueError(
                f"task.metric={self.metric}: pretraining is headed by accuracy; the losses stand beside it."
            )

    @property
    def stored(self) -> tuple[str, ...]:
        return ()

    def columns(self) -> list[str]:
        return [self.text]

    def read(self, path: Path, cache: Path, limits: Limits) -> Dataset:
        from sparse_xp.data.corpus import read_corpus

        if path.is_dir() or path.suffix.lower() in (".txt", ".parquet"):
            return read_corpus(path, self.text, cache, limits)
        return super().read(path, cache, limits)

    def checked(self, rows: Dataset, train: bool) -> tuple[Dataset, list[str]]:
        """Documents in a random order."""
        if self.layout == "wikitext":
            from datasets import Dataset

            from sparse_xp.data.corpus import wikitext_documents

            rows = Dataset.from_dict({self.text: list(wikitext_documents(rows[self.text]))})
        return rows.shuffle(seed=self.data_seed, keep_in_memory=True), []

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        documents = self.documents(rows, tokenizer)
        made: Rows = {name: [] for name in tokenizer.model_input_names}
        for tokens in self.rows_of(documents, tokenizer, first, made):
            made["input_ids"].append(tokens)
            made["attention_mask"].append([1] * len(tokens))
        if not train:
            self.mask_once(made, tokenizer, first)
        return compact(made)

    def rows_of(
        self, documents: list[Document], tokenizer: PreTrainedTokenizerBase, first: int, made: Rows
    ) -> Iterator[list[int]]:
        """The tokens of each feature; into ``made`` goes what else there is to it."""
        from sparse_xp.tasks.segments import document_rows

        begin, end = ends(tokenizer)
        for tokens in document_rows(documents, self.max_length - 2, end):
            if "token_type_ids" in made:
                made["token_type_ids"].append([0] * (len(tokens) + 2))
            yield [begin, *tokens, end]

    def documents(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
        """The tokens of each sentence of each document; documents and sentences without a token are left out."""
        from sentencex import segment

        for i, text in enumerate(rows[self.text]):
            if not isinstance(text, str):
                raise UserError(f"task {self.name}: document {i} has {self.text}={text!r}, want a text.")
        texts = [" ".join(filter(None, map(str.strip, text.splitlines()))) for text in rows[self.text]]
        sentences = [[part.strip() for part in segment(self.language, text) if part.strip()] for text in texts]
        flat = [sentence for document in sentences for sentence in document]
        if not flat:
            return []
        encoded = tokenizer(flat, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        tokens = iter(encoded)
        documents = [[found for _ in document if (found := next(tokens))] for document in sentences]
        return [document for document in documents if document]

    def mask_once(self, made: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> None:
        """Mask evaluation rows for good; ``labels`` are what was there."""
        import numpy as np

        mask = self.masker(tokenizer)
        seeds = ([self.data_seed, first, i] for i in range(len(made["input_ids"])))
        pairs = [mask(np.asarray(ids), seed) for ids, seed in zip(made["input_ids"], seeds, strict=True)]
        made["input_ids"], made["labels"] = [seen for seen, _ in pairs], [labels for _, labels in pairs]

    def masker(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """What masks the tokens of a row, given a seed."""
        import numpy as np

        from sparse_xp.tasks.masking import fixed_tokens, mask_token_of, mask_tokens, word_parts

        fixed, mask, size = fixed_tokens(tokenizer), mask_token_of(tokenizer), len(tokenizer)
        parts = word_parts(tokenizer) if self.whole_words else None

        def apply(tokens: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
            continues = None if parts is None else parts[tokens]
            maskable = ~np.isin(tokens, fixed)
            return mask_tokens(tokens, maskable, np.random.default_rng(seed), self.masked, mask, size, continues)

        return apply

    def drawn(
        self, batch: dict[str, Tensor], rows: list[int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Tensor]:
        """The batch with this epoch's masks: those of a row do not depend on the rows beside it."""
        import torch

        mask, tokens = self.masker(tokenizer), batch["input_ids"].numpy()
        labels = torch.full_like(batch["input_ids"], IGNORED)
        seen = batch["input_ids"].clone()
        for i, (row, length) in enumerate(zip(rows, batch["attention_mask"].sum(1).tolist(), strict=True)):
            ours, wanted = mask(tokens[i, :length], [seed, row])
            seen[i, :length], labels[i, :length] = torch.from_numpy(ours), torch.from_numpy(wanted)
        return {**batch, "input_ids": seen, "labels": labels}

    def forward(self, model: Any, batch: dict[str, Tensor]) -> Any:
        from sparse_xp.functional.chunked_loss import cross_entropy

        outputs = model(**{name: value for name, value in batch.items() if name not in self.targets})
        outputs["loss"] = cross_entropy(outputs[self.outputs[0]], batch["labels"])
        return outputs

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def loss_weight(self, batch: dict[str, Tensor]) -> int:
        return int((batch["labels"] != IGNORED).sum())

    def kept(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        """For each masked token its loss and whether it was guessed, [masked, 2]: logits would fill the memory."""
        import numpy as np

        labels = np.asarray(features[row]["labels"])
        wanted = np.flatnonzero(labels != IGNORED)
        logits = value[wanted].astype(np.float64)
        top = logits.max(-1)
        losses = top + np.log(np.exp(logits - top[:, None]).sum(-1)) - logits[np.arange(len(wanted)), labels[wanted]]
        return np.stack([losses, logits.argmax(-1) == labels[wanted]], -1)

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        """Accuracy on masked tokens in per cent, their mean loss in nats, and its exponential."""
        import numpy as np

        loss, right = np.concatenate(outputs[self.outputs[0]]).mean(0)
        return {"accuracy": 100 * float(right), "mlm_loss": float(loss), "perplexity": float(np.exp(loss))}

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if metric != "accuracy":
            return None  # a loss
        return sum(label != IGNORED for labels in features["labels"] for label in labels)

    def embedded(self, split: str, rows: int) -> Rows:
        """Generated documents."""
        from sparse_xp.synthetic.documents import document_rows

        return {self.text: document_rows(split, rows)}


@dataclass(kw_only=True)
class PairPretraining(Pretraining):
    """The same of pairs of segments, and whether the second follows the first (Devlin et al. 2019, appendix A.2).

    ``short_rows``: the share of documents whose rows are shorter than ``max_length``; ``random_next``: how often the
    second segment comes from another document. The loss is the sum of both.
    """

    short_rows: float = 0.1
    random_next: float = 0.5

    model_class: ClassVar[str] = "AutoModelForPreTraining"
    outputs: ClassVar[tuple[str, ...]] = ("prediction_logits", "seq_relationship_logits")
    targets: ClassVar[tuple[str, ...]] = ("labels", "next_sentence_label")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short_rows", "random_next"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"task.{name}={getattr(self, name)}: want a fraction from 0 to 1.")

    @property
    def stored(self) -> tuple[str, ...]:
        return ("next_sentence_label",)

    def rows_of(
        self, documents: list[Document], tokenizer: PreTrainedTokenizerBase, first: int, made: Rows
    ) -> Iterator[list[int]]:
        from sparse_xp.tasks.segments import segment_pairs

        if len(documents) < FEWEST:
            raise UserError(
                f"task {self.name}: {len(documents)} documents; pairs of segments need {FEWEST} at least, of which "
                "each second segment can be drawn. Give more, or pretrain without pairs (a task of kind Pretraining)."
            )
        if "token_type_ids" not in made:
            raise UserError(
                f"task {self.name}: this model tells no pairs of segments apart (it has no token types), and so was "
                "not pretrained on them: choose a task of kind Pretraining, such as wikipedia_mlm."
            )
        begin, end = ends(tokenizer)
        rng = random.Random(self.data_seed + first)
        made["next_sentence_label"] = []
        length = self.max_length - 3
        for one, other, label in segment_pairs(documents, length, rng, self.short_rows, self.random_next):
            made["next_sentence_label"].append(label)
            made["token_type_ids"].append([0] * (len(one) + 2) + [1] * (len(other) + 1))
            yield [begin, *one, end, *other, end]

    def forward(self, model: Any, batch: dict[str, Tensor]) -> Any:
        from torch.nn.functional import cross_entropy

        outputs = super().forward(model, batch)
        said = outputs["seq_relationship_logits"].float()
        outputs["loss"] = outputs["loss"] + cross_entropy(said, batch["next_sentence_label"])
        return outputs

    def kept(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        return super().kept(name, value, length, features, row) if name == self.outputs[0] else value

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        import numpy as np

        said = np.stack(outputs["seq_relationship_logits"])
        right = said.argmax(-1) == np.asarray(features["next_sentence_label"])
        return {**super().score(rows, features, outputs), "nsp_accuracy": 100 * float(right.mean())}

    def counted(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        return len(features) if metric == "nsp_accuracy" else super().counted(metric, rows, features)


def ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """What a row begins with, and what its segments end with. Raises UserError for a tokenizer without them."""
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if not isinstance(begin, int) or not isinstance(end, int):
        raise UserError("This tokenizer has no [CLS] or no [SEP]: it is not that of an encoder.")
    return begin, end


def compact(made: Rows) -> Rows:
    """The same numbers in fewer bytes: a corpus of them lies on the disk."""
    import numpy as np

    kinds = {"input_ids": np.int32, "labels": np.int32}
    return {
        name: [np.asarray(value, kinds.get(name, np.int8)) for value in values]
        if name != "next_sentence_label"
        else values
        for name, values in made.items()
    }
