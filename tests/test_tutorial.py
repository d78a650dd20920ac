"""The ten training commands of the SparseML tutorial "Sparse Transfer Learning With BERT", typed from its tables."""

from __future__ import annotations

import pytest
import torch

from sparse_xp.training.precision import choose_precision
from tests.runs import configure

# task: epochs, batch, learning rate, warm-up steps, longest input, seed. But for SST-2 the tutorial's commands for GLUE
# name no length (transformers' run_glue.py: 128), the ones for NER neither (run_ner.py: the tokenizer's own, 512).
TEACHERS = {
    "squad": (2, 16, 5e-5, 0, 384, 2021),
    "qqp": (2, 32, 5e-5, 0, 128, 2021),
    "mnli": (2, 32, 5e-5, 0, 128, 2021),
    "conll2003": (5, 32, 5e-5, 0, 512, 2021),
    "sst2": (2, 32, 5e-5, 0, 128, 2021),
}
STUDENTS = {
    "squad": (5, 16, 5e-5, 0, 384, 27942),
    "qqp": (5, 32, 5e-5, "11000 steps", 128, 11712),
    "mnli": (5, 32, 5e-5, "12000 steps", 128, 27942),
    "conll2003": (5, 32, 5e-5, 0, 512, 21097),
    "sst2": (5, 32, 5e-5, "2000 steps", 128, 5922),
}


@pytest.mark.parametrize(
    ("recipe", "task", "numbers"),
    [("dense", *row) for row in TEACHERS.items()] + [("pruned80", *row) for row in STUDENTS.items()],
)
def test_numbers_of_the_tutorial(recipe, task, numbers):
    config = configure(f"task={task}", f"recipe={recipe}")
    train = config.train
    found = (train.epochs, train.batch_size, train.learning_rate, train.warmup, config.task.max_length, config.seed)
    assert found == numbers
    decay, warmup = (config.recipe.learning_rate[name] for name in ("decay", "warmup"))
    assert (decay.shape, decay.init_lr, decay.final_lr, decay.end) == ("linear", 5e-5, 0.0, "100%")
    assert (warmup.end, decay.start, warmup.final_lr) == (train.warmup, train.warmup, 5e-5)
    assert train.gradient_accumulation_steps == 1
    if task == "squad":
        assert config.task.doc_stride == 128


@pytest.mark.parametrize("task", STUDENTS)
def test_a_student_keeps_its_zeros_and_learns_from_the_dense_run_in_fp16(task):
    config = configure(f"task={task}", "recipe=pruned80")
    assert type(config.sparsity).__name__ == "ConstantPruning"
    assert (config.sparsity.start, config.sparsity.end) == (0.0, "100%")
    assert (config.teacher.source, config.teacher.model) == ("dense", "bert_base")
    assert config.train.precision == "auto"
    assert choose_precision("fp16", torch.device("cuda")) == ("fp16", "")  # one word away
