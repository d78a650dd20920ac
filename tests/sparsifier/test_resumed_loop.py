"""A loop that is stopped and resumed, and models that are evaluated, copied or moved in the middle of it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    MODIFIERS,
    ACDCPruning,
    AttentionDistillation,
    ConstantPruning,
    Distillation,
    EmbeddingPruning,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    RewoundLearningRate,
    ScheduledLearningRate,
    SetLearningRate,
    SetParam,
    SoftMovementPruning,
    StructuredPruning,
    TrainableParams,
    WeightDecay,
)
from tests.sparsifier.loops import (
    STEPS,
    assert_same,
    forward,
    loss_function,
    make_batches,
    make_model,
    sparsify,
    train,
    weights_of,
)

ALL = ["__ALL_PRUNABLE__"]
DISTILLING = (Distillation, PerLayerDistillation, AttentionDistillation)

#: a recipe of each modifier, and the kind of model it is tried on
RECIPES: dict[str, tuple[str, list[Modifier]]] = {
    "MagnitudePruning": ("cnn", [MagnitudePruning(final_sparsity=0.8, params=ALL, end="75%", regrow=True)]),
    "MovementPruning": ("mlp", [MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="75%")]),
    "SoftMovementPruning": ("mlp", [SoftMovementPruning(
        params=ALL, end="75%", final_threshold=0.45, final_lambda=1.0, score_learning_rate=0.05
    )]),
    "OBSPruning": ("mlp", [OBSPruning(final_sparsity=0.5, params=ALL, end="75%", num_grads=4, damp=1e-3)]),
    "ACDCPruning": ("mlp", [ACDCPruning(compression_sparsity=0.5, params=ALL, update_frequency="3 steps")]),
    "ConstantPruning": ("mlp", [ConstantPruning(params=ALL, min_sparsity=0)]),
    "StructuredPruning": ("modernbert", [
        StructuredPruning(final_sparsity=0.3, start="2 steps", end="75%", multiple=4)
    ]),
    "EmbeddingPruning": ("bert", [EmbeddingPruning(final_sparsity=0.5, start="2 steps", end="75%", multiple=2)]),
    "LayerPruning": ("modernbert", [LayerPruning(layers=["model.layers.1"])]),
    "Quantization": ("llama", [Quantization(start="25%", observers_end="75%")]),
    "Distillation": ("gpt2", [Distillation(token_share=0.5)]),
    "PerLayerDistillation": ("mlp", [PerLayerDistillation()]),
    "AttentionDistillation": ("bert", [AttentionDistillation()]),
    "LearningRate": ("mlp", [LearningRate(init_lr=0.01, final_lr=0.0, end="50%")]),
    "SetLearningRate": ("mlp", [SetLearningRate(learning_rate=0.02, start="25%")]),
    "ScheduledLearningRate": ("mlp", [
        ScheduledLearningRate(lr_class="ExponentialLR", lr_kwargs={"gamma": 0.5}, init_lr=0.01)
    ]),
    "RewoundLearningRate": ("mlp", [RewoundLearningRate(peak_lr=0.01, warmup="3 steps", update_frequency="2 steps")]),
    "WeightDecay": ("mlp", [WeightDecay(weight_decay=0.5, start="25%")]),
    "SetParam": ("mlp", [SetParam(params=["0.bias"], val=1.0, start="25%")]),
    "TrainableParams": ("mlp", [TrainableParams(params=["0.weight"], trainable=False, start="25%", end="75%")]),
}  # fmt: skip


def test_every_modifier_is_resumed_here() -> None:
    assert RECIPES.keys() == MODIFIERS.keys()


class Loop:
    """A loop that anybody would write, with all that it has to save."""

    def __init__(self, kind: str, recipe: list[Modifier], seed: int = 0, *, scaled: bool = False):
        self.model, self.batches = make_model(kind, seed), make_batches(kind)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.scaler = GradScaler("cpu", init_scale=1024.0, growth_interval=3) if scaled else None
        distils = any(isinstance(modifier, DISTILLING) for modifier in recipe)
        torch.manual_seed(3)
        self.sparsifier = sparsify(
            self.model,
            recipe,
            self.optimizer,
            teacher=make_model(kind, seed=5) if distils else None,
            batches=self.batches,
            scaler=self.scaler,
        )

    def run(self, *steps: int) -> None:
        self.model.train()
        for step in range(*steps):
            batch = self.batches[step % len(self.batches)]
            torch.manual_seed(step)  # of dropout
            loss, outputs = forward(self.model, batch)
            loss = self.sparsifier.loss(loss, outputs, batch)
            (self.scaler.scale(loss) if self.scaler else loss).backward()
            self.sparsifier.step()

    def parts(self) -> dict[str, Any]:
        parts = {"sparsifier": self.sparsifier, "model": self.model, "optimizer": self.optimizer}
        return parts | ({"scaler": self.scaler} if self.scaler else {})

    def save(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)
        return file

    def load(self, file: io.BytesIO, without: str = "", backwards: bool = False) -> None:
        file.seek(0)
        states = torch.load(file, weights_only=True)
        for name, part in sorted(self.parts().items(), reverse=backwards):
            if name != without:
                part.load_state_dict(states[name])


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_loop_ends_in_the_weights_of_an_uninterrupted_one(name: str, scaled: bool) -> None:
    kind, recipe = RECIPES[name]
    whole = Loop(kind, recipe, scaled=scaled)
    whole.run(STEPS)
    whole.sparsifier.finalize()
    stopped = Loop(kind, recipe, scaled=scaled)
    begun = 0
    for step, backwards in ((2, False), (5, True), (10, False)):
        stopped.run(begun, step)
        file, begun = stopped.save(), step
        stopped = Loop(kind, recipe, seed=step, scaled=scaled)
        stopped.load(file, backwards=backwards)
    stopped.run(begun, STEPS)
    stopped.sparsifier.finalize()
    assert_same(weights_of(whole.model), weights_of(stopped.model))


def test_all_at_once() -> None:
    recipe = [
        MagnitudePruning(final_sparsity=0.5, end="50%"), Distillation(), PerLayerDistillation(),
        Quantization(start="50%", observers_end="75%"), LearningRate(init_lr=0.01, final_lr=0.0), WeightDecay(),
    ]  # fmt: skip
    whole, stopped, resumed = (Loop("bert", recipe, seed) for seed in (0, 0, 7))
    whole.run(STEPS)
    stopped.run(7)
    resumed.load(stopped.save())
    resumed.run(7, STEPS)
    assert_same(weights_of(whole.model), weights_of(resumed.model))


@pytest.mark.parametrize("name", ["MagnitudePruning", "MovementPruning", "StructuredPruning", "EmbeddingPruning"])
def test_weights_that_do_not_belong_to_the_masks_are_an_error_at_the_next_step(name: str) -> None:
    kind, recipe = RECIPES[name]
    stopped = Loop(kind, recipe)
    stopped.run(11)
    resumed = Loop(kind, recipe, seed=7)
    resumed.load(stopped.save(), without="model")
    with pytest.raises(UserError, match=r"no longer zero.* Load the model's state too"):
        resumed.run(11, 12)
    assert resumed.sparsifier.steps == 11
    resumed.load(stopped.save())
    resumed.run(11, 12)


def test_the_state_of_another_recipe_or_model_is_refused() -> None:
    state = Loop("mlp", RECIPES["MovementPruning"][1]).sparsifier.state_dict()
    sparser = [MovementPruning(final_sparsity=0.6, params=ALL, start="2 steps", end="75%")]
    longer = sparsify(make_model("mlp"), RECIPES["MovementPruning"][1], epochs=8)
    for sparsifier, reason in (
        (Loop("mlp", RECIPES["WeightDecay"][1]).sparsifier, "recipe of 12 steps with MovementPruning; this one has 12"),
        (Loop("mlp", sparser).sparsifier, "of MovementPruning final_sparsity was 0.5 and is 0.6"),
        (longer, "The state is of a recipe of 12 steps"),
    ):
        with pytest.raises(UserError, match=reason):
            sparsifier.load_state_dict(state)
    trained = Loop("mlp", RECIPES["MovementPruning"][1])
    trained.run(4)
    with pytest.raises(UserError, match="of another model"):
        Loop("cnn", RECIPES["MovementPruning"][1]).sparsifier.load_state_dict(trained.sparsifier.state_dict())
    for damaged in ({}, {"steps": 3}, [], trained.model.state_dict()):
        with pytest.raises(UserError, match="no state of a Sparsifier"):
            trained.sparsifier.load_state_dict(damaged)  # type: ignore[arg-type]


BUSY = ("bert", [
    MagnitudePruning(final_sparsity=0.5, end="50%", regrow=True),
    Distillation(),
    PerLayerDistillation(),
    AttentionDistillation(),
    Quantization(start="25%"),
])  # fmt: skip


LAYERS = ("modernbert", [StructuredPruning(
    final_sparsity=0.3, start="2 steps", end="75%", multiple=4, global_sparsity=True, layers=True,
)])  # fmt: skip


REPAIR = ("modernbert", [StructuredPruning(
    final_sparsity=0.3, start="2 steps", end="75%", multiple=4, score="obs",
)])  # fmt: skip


def evaluated(loop: Loop) -> None:
    loop.model.eval()
    with torch.no_grad():
        loop.model(**loop.batches[0])
    loop.model.train()
    with torch.no_grad():
        loop.model(**loop.batches[0])


def evaluated_with_gradients(loop: Loop) -> None:
    loss_function(loop.model.eval(), loop.batches[0]).backward()
    loop.optimizer.zero_grad()
    loop.model.train()


def copied(loop: Loop) -> None:
    twin = copy.deepcopy(loop.model)
    loss_function(twin.train(), loop.batches[0]).backward()


def pickled(loop: Loop) -> None:
    file = io.BytesIO()
    torch.save(loop.model, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert_same(weights_of(twin), weights_of(loop.model))


def moved(loop: Loop) -> None:
    loop.model.to("cpu").to(torch.float64).to(torch.float32)


@pytest.mark.parametrize("recipe", [BUSY, LAYERS, REPAIR])
@pytest.mark.parametrize("between", [evaluated, evaluated_with_gradients, copied, pickled, moved])
def test_what_happens_to_the_model_between_steps_changes_nothing(
    between: Callable[[Loop], None], recipe: tuple[str, list[Modifier]]
) -> None:
    loop, other = Loop(*recipe), Loop(*recipe)
    loop.run(STEPS)
    for step in range(STEPS):
        if between is not evaluated or step < 3:  # a training-mode pass without gradients observes ranges
            between(other)
        other.run(step, step + 1)
    loop.sparsifier.finalize()
    other.sparsifier.finalize()
    assert_same(weights_of(loop.model), weights_of(other.model))


def test_a_moving_average_of_the_weights_is_a_plain_copy() -> None:
    loop = Loop("mlp", [MagnitudePruning(final_sparsity=0.5, params=ALL, end="25%"), Quantization(start="50%")])
    average = AveragedModel(loop.model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for step in range(STEPS):
        loop.run(step, step + 1)
        average.update_parameters(loop.model)
    loop.sparsifier.finalize()
    assert loop.sparsifier.steps == STEPS
    mask = loop.model[0].weight != 0
    assert torch.allclose(average.module[0].weight[~mask], torch.zeros(()), atol=1e-3)
    assert torch.equal(average.module[0].weight[~mask] == 0, torch.zeros_like(average.module[0].weight[~mask]).bool())


def test_a_copy_trains_on_its_own() -> None:
    loop = Loop("mlp", [MagnitudePruning(final_sparsity=0.5, params=ALL, end="25%")])
    loop.run(6)
    twin, steps = copy.deepcopy(loop.model), loop.sparsifier.steps
    sparsifier = sparsify(twin, [ConstantPruning(params=ALL)])
    train(sparsifier, twin, loop.batches, range(3))
    assert (loop.sparsifier.steps, sparsifier.steps) == (steps, 3)
