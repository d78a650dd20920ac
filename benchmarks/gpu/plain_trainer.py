"""The loop that ours is measured against: a Trainer, rows padded to the maximum, a teacher at every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from torch.nn.functional import kl_div
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from benchmarks.gpu.cases import Case
from benchmarks.gpu.checkpoints import HEADS, kind_of

#: columns that the tokenizer reads, the longest input, and the outputs that are distilled
TASKS: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "sst2": (("sentence",), 128, ("logits",)),
    "squad": (("question", "context"), 384, ("start_logits", "end_logits")),
    "wikipedia_mlm": (("text",), 128, ("logits",)),
}


@functools.cache
def rows_of(task: str, count: int, data: Path, checkpoint: Path) -> Dataset:
    """Return the features of a task, padded to the longest input; positions of answers are made up."""
    columns, length, _ = TASKS[task]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    folder = "wikipedia" if task == "wikipedia_mlm" else task
    rows = load_dataset("parquet", data_files=str(data / folder / "train.parquet"), split="train")
    rows = rows.select(range(min(len(rows), count)))

    def features(batch: dict[str, list[Any]]) -> dict[str, Any]:
        cut = "only_second" if len(columns) == 2 else True
        texts = (batch[name] for name in columns)
        made = dict(tokenizer(*texts, truncation=cut, max_length=length, padding="max_length"))
        made_rows = len(made["input_ids"])
        if task == "squad":
            return {**made, "start_positions": [1] * made_rows, "end_positions": [2] * made_rows}
        return {**made, "labels": batch["label"]} if task == "sst2" else made

    return rows.map(features, batched=True, remove_columns=rows.column_names)


def train(case: Case, count: int, data: Path, checkpoint: Path, work: Path, stamp: Callable[[], bool]) -> None:
    """Train as a person would write it, and call ``stamp`` after every step until it returns True.

    ``count``: the rows that it reads.
    """
    task = kind_of(case.task)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    student, teacher = (HEADS[task].from_pretrained(checkpoint, dtype=torch.float32) for _ in range(2))
    teacher.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    class Distilled(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(**inputs)
            with torch.no_grad():
                taught = teacher(**{name: inputs[name] for name in tokenizer.model_input_names})
            losses = [
                4 * kl_div((outputs[n] / 2).log_softmax(-1), (taught[n] / 2).softmax(-1), reduction="batchmean")
                for n in TASKS[task][2]
            ]
            loss = torch.stack(losses).mean()
            return (loss, outputs) if return_outputs else loss

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            control.should_training_stop = stamp()
            return control

    arguments = TrainingArguments(
        output_dir=str(work / "trainer"), per_device_train_batch_size=case.batch, max_steps=10_000, report_to=[],
        fp16=torch.cuda.is_available(), logging_steps=10, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    collate = DataCollatorForLanguageModeling(tokenizer) if task == "wikipedia_mlm" else default_data_collator
    rows = rows_of(task, count, data, checkpoint)
    Distilled(student, arguments, train_dataset=rows, data_collator=collate, callbacks=[Watch()]).train()
