"""Pretraining: guessing masked words of running text (masked language modelling)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparse_xp.data.corpus import read_corpus
from sparse_xp.data.limits import Limits
from sparse_xp.data.table import Table, to_dataset
from sparse_xp.data.wikitext import wikitext_documents
from sparse_xp.errors import UserError, did_you_mean
from sparse_xp.files.text_format import TextFormat
from sparse_xp.synthetic.documents import document_rows, document_words
from sparse_xp.tasks.answers import EncodedRow, NamedText, Outputs, encode_texts, softmax
from sparse_xp.tasks.base import IGNORED, NOT_IN_FEATURES, Rows, Task
from sparse_xp.tasks.segments import Document, pack_documents

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    #: masks the tokens of a row, given a seed: what the model sees, and the labels
    Masker = Callable[[np.ndarray, list[int]], tuple[np.ndarray, np.ndarray]]

#: the forms of the mask token in vocabularies
MASK_TOKENS = ("[MASK]", "<mask>")


@dataclass(kw_only=True)
class Pretraining(Task):
    """Masked language modelling of documents (Devlin et al. 2019, section 3.1).

    A document becomes rows of whole sentences with a separator between them. Training rows are masked anew in each
    epoch, evaluation rows once, equally for every model with that vocabulary.

    Attributes:
        text: The column of the documents.
        layout: ``documents`` (one document a row) or ``wikitext`` (one line a row).
        language: The language whose rules split sentences.
        mlm_probability: The fraction of the tokens, or of the whole words, that is to be guessed.
        whole_word_mask: Mask whole words instead of single tokens.
        data_seed: The seed of the order of documents, the pairs and the masks of evaluation rows. Runs that differ only
            in ``seed`` share them.
    """

    max_length: int = 512
    metric: str = field(default="accuracy", metadata=NOT_IN_FEATURES)
    text: str = "text"
    layout: str = "documents"
    language: str = "en"
    mlm_probability: float = 0.15
    whole_word_mask: bool = False
    data_seed: int = 42

    model_class: ClassVar[str] = "AutoModelForMaskedLM"
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    targets: ClassVar[tuple[str, ...]] = ("labels",)
    per_token: ClassVar[bool] = True
    has_own_loss: ClassVar[bool] = True
    padding: ClassVar[dict[str, int]] = {"labels": IGNORED}
    fixed_features: ClassVar[bool] = False
    takes_unlabeled: ClassVar[bool] = False
    mixes_rows: ClassVar[bool] = True
    is_language_model: ClassVar[bool] = True
    loss_reduction: ClassVar[str] = "sum"
    purpose: ClassVar[str] = "masked words, to be fine-tuned from"
    metric_units: ClassVar[str] = "mlm_loss in nats a masked token, and its exponential"
    # The losses are reported too, but ``metric`` picks the best checkpoint by the highest value.
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy",)
    ranks_answers: ClassVar[bool] = True
    list_name: ClassVar[str] = "masks"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layout not in ("documents", "wikitext"):
            raise ValueError(
                f"task.layout={self.layout}: expected documents or wikitext."
                f"{did_you_mean(self.layout, ('documents', 'wikitext'))}"
            )
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"task.mlm_probability={self.mlm_probability}: expected a fraction between 0 and 1.")

    @property
    def batch_columns(self) -> tuple[str, ...]:
        return ()  # ``apply_dynamic_masking`` makes the labels

    def columns(self) -> list[str]:
        return [self.text]

    def read(self, path: Path, cache: Path, limits: Limits, text_format: TextFormat) -> Table | Dataset:
        if path.is_dir() or path.suffix.lower() in (".txt", ".parquet"):
            return read_corpus(path, self.text, cache, limits, text_format)
        return super().read(path, cache, limits, text_format)

    def clean(self, rows: Table | Dataset, train: bool) -> tuple[Table | Dataset, list[str]]:
        """Return the documents, shuffled: neighbours in a corpus are alike, and rows mix the documents of a batch."""
        if self.layout == "wikitext":
            from datasets import Dataset

            rows = Dataset.from_dict({self.text: list(wikitext_documents(rows[self.text]))})
        return to_dataset(rows).shuffle(seed=self.data_seed, keep_in_memory=True), []

    def features(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, first: int, train: bool) -> Rows:
        features: Rows = {name: [] for name in tokenizer.model_input_names}
        for tokens in self.pack(self.documents(rows, tokenizer), tokenizer, first, features):
            features["input_ids"].append(tokens)
            features["attention_mask"].append([1] * len(tokens))
        if not train:
            self.mask_once(features, tokenizer, first)
        return compact(features)

    def pack(
        self, documents: list[Document], tokenizer: PreTrainedTokenizerBase, first: int, features: Rows
    ) -> Iterator[list[int]]:
        """Yield the tokens of each feature, and add its other columns to ``features``."""
        begin, end = special_tokens(tokenizer)
        for tokens in pack_documents(documents, self.max_length - 2, end):
            if "token_type_ids" in features:
                features["token_type_ids"].append([0] * (len(tokens) + 2))
            yield [begin, *tokens, end]

    def documents(self, rows: Rows, tokenizer: PreTrainedTokenizerBase) -> list[Document]:
        """Return the tokens of each sentence of each document; empty sentences and documents are left out."""
        from sentencex import segment

        for i, text in enumerate(rows[self.text]):
            if not isinstance(text, str):
                raise UserError(f"task {self.name}: document {i} has {self.text}={text!r}, expected a text.")
        texts = [" ".join(filter(None, map(str.strip, text.splitlines()))) for text in rows[self.text]]
        sentences = [[part.strip() for part in segment(self.language, text) if part.strip()] for text in texts]
        flat = [sentence for document in sentences for sentence in document]
        if not flat:
            return []
        encoded = tokenizer(flat, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        tokens = iter(encoded)
        documents = [[sentence for _ in document if (sentence := next(tokens))] for document in sentences]
        return [document for document in documents if document]

    def mask_once(self, features: Rows, tokenizer: PreTrainedTokenizerBase, first: int) -> None:
        """Mask evaluation rows for good; ``labels`` are the tokens that were there."""
        import numpy as np

        mask = self.masker(tokenizer)
        seeds = ([self.data_seed, first, i] for i in range(len(features["input_ids"])))
        masked = [mask(np.asarray(ids), seed) for ids, seed in zip(features["input_ids"], seeds, strict=True)]
        features["input_ids"] = [visible for visible, _ in masked]
        features["labels"] = [labels for _, labels in masked]

    def masker(self, tokenizer: PreTrainedTokenizerBase) -> Masker:
        """Return a function that masks the tokens of a row, given a seed."""
        import numpy as np

        from sparse_xp.tasks.masking import fixed_tokens, mask_token_of, mask_tokens, word_parts

        fixed, mask, size = np.array(fixed_tokens(tokenizer)), mask_token_of(tokenizer), len(tokenizer)
        parts = word_parts(tokenizer) if self.whole_word_mask else None

        def apply(tokens: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
            continues = None if parts is None else parts[tokens]
            maskable = (tokens[:, None] != fixed).all(1)
            generator = np.random.default_rng(seed)
            return mask_tokens(tokens, maskable, generator, self.mlm_probability, mask, size, continues)

        return apply

    def apply_dynamic_masking(
        self, batch: dict[str, Tensor], rows: list[int], seed: int, tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, Tensor]:
        """Return the batch with this epoch's masks: those of a row do not depend on the rows beside it."""
        import numpy as np
        import torch

        mask, tokens = self.masker(tokenizer), batch["input_ids"].numpy()
        visible, labels = tokens.copy(), np.full_like(tokens, IGNORED)
        for i, (row, length) in enumerate(zip(rows, batch["attention_mask"].sum(1).tolist(), strict=True)):
            visible[i, :length], labels[i, :length] = mask(tokens[i, :length], [seed, row])
        return {**batch, "input_ids": torch.from_numpy(visible), "labels": torch.from_numpy(labels)}

    def own_loss(self, outputs: Mapping[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        from sparse_xp.functional.chunked_loss import cross_entropy

        return cross_entropy(outputs[self.outputs[0]], batch["labels"])

    def token_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"].bool()

    def loss_counts(self, batch: dict[str, Tensor]) -> tuple[int, ...]:
        return (int((batch["labels"] != IGNORED).sum()),)

    def unpad(self, name: str, value: np.ndarray, length: int, features: Dataset, row: int) -> np.ndarray:
        """Return for each masked token its loss and whether it was guessed, [masked, 2].

        The logits over the vocabulary of all evaluation rows would fill the memory.
        """
        import numpy as np

        labels = np.asarray(features[row]["labels"])
        masked = np.flatnonzero(labels != IGNORED)
        logits = value[masked].astype(np.float64)
        top = logits.max(-1)
        losses = top + np.log(np.exp(logits - top[:, None]).sum(-1)) - logits[np.arange(len(masked)), labels[masked]]
        return np.stack([losses, logits.argmax(-1) == labels[masked]], -1)

    def score(self, rows: Dataset, features: Dataset, outputs: dict[str, list[np.ndarray]]) -> dict[str, float]:
        """Return the accuracy on masked tokens in per cent, their mean loss in nats, and its exponential."""
        import numpy as np

        loss, right = np.concatenate(outputs[self.outputs[0]]).mean(0)
        return {"accuracy": 100 * float(right), "mlm_loss": float(loss), "perplexity": float(np.exp(loss))}

    def answer_count(self, metric: str, rows: Dataset, features: Dataset) -> int | None:
        if metric != "accuracy":
            return None  # a loss
        return sum(int(label != IGNORED) for labels in features["labels"] for label in labels)

    def text_names(self) -> list[tuple[str, ...]]:
        return [(self.text, "text")]

    def example(self) -> dict[str, str]:
        return {"text": "The [MASK] is good."}

    def encode_row(self, texts: list[NamedText], tokenizer: Tokenizer, max_length: int) -> EncodedRow:
        return encode_texts(texts, tokenizer, max_length)

    def accepts_logits(self, name: str, shape: tuple[int, ...], tokens: int) -> bool:
        # ``decode`` reads the logits over the vocabulary only.
        return name != self.outputs[0] or (len(shape) == 2 and shape[0] >= tokens and shape[1] > 0)

    def decode(self, row: EncodedRow, outputs: Outputs, tokenizer: Tokenizer, top: int | None) -> list[dict[str, Any]]:
        """Return for each masked token its characters of the text, and the best token, or the ``top`` best."""
        import numpy as np

        mask = next((token for name in MASK_TOKENS if (token := tokenizer.token_to_id(name)) is not None), -1)
        [encoding], [logits] = row.encodings, outputs[self.outputs[0]]
        guesses: list[dict[str, Any]] = []
        for token, (begin, end), values in zip(encoding.ids, encoding.offsets, logits, strict=True):
            if token != mask:
                continue
            probabilities = softmax(values)
            order = np.argsort(-probabilities, kind="stable")[: top or 1]
            ranked = [{"token": tokenizer.id_to_token(int(i)), "score": float(probabilities[i])} for i in order]
            guesses.append({"start": begin, "end": end, **({"tokens": ranked} if top else ranked[0])})
        return guesses

    @classmethod
    def generated_words(cls) -> list[str]:
        return document_words()

    def generated_rows(self, split: str, rows: int) -> Rows:
        return {self.text: document_rows(split, rows)}


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of [CLS], which begins a row, and [SEP], which ends a segment. Raises UserError without them."""
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if not isinstance(begin, int) or not isinstance(end, int):
        raise UserError("This tokenizer has no [CLS] or no [SEP]: it is not that of an encoder.")
    return begin, end


def compact(features: Rows) -> Rows:
    """Return the same numbers in smaller types: those of a corpus fill a disk."""
    import numpy as np

    types = {"input_ids": np.int32, "labels": np.int32}
    return {
        name: [np.asarray(value, types.get(name, np.int8)) for value in values]
        if name != "next_sentence_label"
        else values
        for name, values in features.items()
    }
