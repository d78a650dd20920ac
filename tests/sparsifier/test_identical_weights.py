"""The same recipe, model, seed and batches end in the same weights: the command, a plain loop, the Trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file

from sparse_xp.config import Config
from sparse_xp.models.loading import load_teacher_model
from sparse_xp.preparation import assemble, load_student, prepare_data
from sparse_xp.run import run
from sparse_xp.sparsifier.sparsifier import Sparsifier
from sparse_xp.tasks.rows import load_splits
from sparse_xp.training.environment import make_accelerator
from sparse_xp.training.loop import steps_of_epoch
from sparse_xp.training.optimizer import parameter_groups
from tests.runs import SHORT, configure, without_export

FILE = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !LearningRateFunctionModifier {lr_func: linear, init_lr: 1e-3, final_lr: 1e-5, start_epoch: 0, end_epoch: 3}
  - !SetWeightDecayModifier {weight_decay: 0.01}
  - !DistillationModifier {hardness: 0.7, temperature: 3.0}
  - !GMPruningModifier
      params: ['re:.*encoder.layer.*weight']
      init_sparsity: 0.05
      final_sparsity: 0.8
      start_epoch: 0.5
      end_epoch: 2
      update_frequency: 0.25
  - !QuantizationModifier {start_epoch: 2, disable_quantization_observer_epoch: 2.5, submodules: [bert]}
"""
WORDS = (*SHORT, "task=sst2", "model.dropout=0", "train.keep_best=false", "train.eval_every=100%", "seed=3")

#: a run of the command, and the same for a loop: recipe and keywords
CASES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "a recipe of SparseML": (("recipe=file", "teacher=checkpoint"), FILE, {}),
    "gradual80": (
        ("recipe=gradual80", "teacher=none", "train.learning_rate=1e-3", "train.warmup=10%"),
        "gradual80",
        {"teacher": "disable", "learning_rate": 1e-3, "warmup": "10%", "weight_decay": 0.0},
    ),
    "structured50": (
        ("recipe=structured50", "teacher=none", "train.learning_rate=1e-3"),
        "structured50",
        {"teacher": "disable", "learning_rate": 1e-3, "warmup": "10%"},
    ),
    "obert": (
        ("recipe=gradual80", "sparsity=obert", "teacher=none", "train.learning_rate=1e-3", "sparsity.num_grads=4"),
        "gradual80",
        {"teacher": "disable", "learning_rate": 1e-3, "warmup": "10%", "sparsity": "obert", "num_grads": 4},
    ),
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    """A model that has learned something: the student begins with it, and the teacher is it."""
    place = tmp_path_factory.mktemp("dense")
    with without_export():
        run(configure(*WORDS, "recipe=dense", "train.epochs=1", f"data.cache={place}/cache"), place / "run")
    return place / "run/model"


def commanded(words: tuple[str, ...], recipe: str, place: Path, dense: Path) -> Config:
    """The configuration of the command."""
    if "recipe=file" in words:
        (place / "recipe.yaml").write_text(recipe)
        words = (*words, f"recipe.path={place}/recipe.yaml", f"model.checkpoint={dense}", f"teacher.path={dense}")
    return configure(*WORDS, *words, f"data.cache={place}/cache")


def prepared(config: Config, place: Path) -> Any:
    """The run as it is before it begins: its model, features and order of rows."""
    accelerator = make_accelerator(config.train)
    set_seed(config.seed)
    data = prepare_data(config, accelerator, load_splits(config.task, config.data))
    model, _ = load_student(config, data)
    return assemble(config, place, data, model, accelerator)


def batches_of(this: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of all steps, in the order of the command."""
    for epoch in range(3):
        for [rows] in steps_of_epoch(this, epoch):
            yield this.training_batch(rows)


@pytest.mark.parametrize(("words", "recipe", "keywords"), CASES.values(), ids=CASES)
def test_a_plain_loop_ends_in_the_weights_of_the_command(words, recipe, keywords, tmp_path, dense):
    config = commanded(words, recipe, tmp_path, dense)
    with without_export():
        run(copy.deepcopy(config), tmp_path / "run")
    expected = load_file(tmp_path / "run/model/model.safetensors")

    this = prepared(config, tmp_path / "loop")
    model = this.model
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=config.train.learning_rate, fused=True)
    if "teacher=checkpoint" in words:
        keywords = keywords | {"teacher": load_teacher_model(this.task, str(dense), this.tokenizer)}
    # OBSPruning draws rows of its own, by rules of the command's data; the same ones are given here.
    sparsifier = Sparsifier(
        recipe, model, optimizer, steps_per_epoch=this.clock.steps_per_epoch, epochs=3, seed=config.seed,
        max_grad_norm=config.train.max_grad_norm, batches=[], **keywords,
    )  # fmt: skip
    sparsifier.context.gradient_batches = lambda *asked: gradients_of(this, sparsifier, *asked)
    for batch in batches_of(this):
        model.train()
        outputs = model(**batch)
        sparsifier.loss(outputs.loss, outputs, batch).backward()
        sparsifier.step()
    sparsifier.finalize()
    sparsifier.save(tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    name = next(name for name in found if "intermediate.dense.weight" in name)
    if "structured" not in recipe:
        assert 0.5 < (found[name] == 0).float().mean() < 0.95


def gradients_of(this: Any, sparsifier: Sparsifier, *asked: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The batches that the command takes gradients of in the step of the loop."""
    this.progress.step = sparsifier.context.step
    return this.gradient_batches(*asked)
