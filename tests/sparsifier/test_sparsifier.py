"""``Sparsifier``: what a recipe may be, the order of a step, what is refused, what is left at the end."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertForSequenceClassification

from sparse_xp.errors import UserError
from sparse_xp.modifiers import (
    ConstantPruning,
    Distillation,
    LearningRate,
    MagnitudePruning,
    Quantization,
    StructuredPruning,
    WeightDecay,
)
from sparse_xp.sparsifier.sparsifier import Sparsifier
from tests.tiny import make_bert

TEXT = """
epochs: 2
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(epochs)}
  - !GMPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0, final_sparsity: 0.5, start_epoch: 0, end_epoch: 1, update_frequency: 0.5}
"""  # noqa: E501
#: the shortest pruning: all at once
ONCE = MagnitudePruning(final_sparsity=0.75, end="1 step", update_frequency="1 step")


def make_mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def made(recipe, model: nn.Module | None = None, steps_per_epoch: int = 4, **words) -> Sparsifier:
    model = model or make_mlp()
    return Sparsifier(recipe, model, sgd(model), steps_per_epoch=steps_per_epoch, **words)


def train(sparsifier: Sparsifier, steps: int, first: int = 0) -> None:
    model = sparsifier.context.model
    for step in range(first, first + steps):
        inputs = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
        labels = (inputs.sum(1) > 0).long()
        outputs = model(inputs)
        sparsifier.loss(cross_entropy(outputs, labels), outputs, (inputs, labels)).backward()
        sparsifier.step()


# What a recipe may be


def test_a_recipe_is_a_file_its_text_or_a_path(tmp_path):
    (tmp_path / "r.yaml").write_text(TEXT)
    for recipe in (TEXT, str(tmp_path / "r.yaml"), tmp_path / "r.yaml"):
        sparsifier = made(recipe)
        assert (sparsifier.epochs, sparsifier.total_steps) == (2, 8)
        assert list(sparsifier.modifiers) == ["GMPruning"]
    assert made(TEXT, epochs=3).total_steps == 12
    assert made(TEXT + "\n", **{"epochs": 5}).epochs == 5


def test_variables_of_a_recipe_are_keywords(tmp_path):
    text = TEXT.replace("epochs", "num_epochs")
    assert made(text, num_epochs=5).epochs == 5
    with pytest.raises(UserError, match="num_epoch"):
        made(text, num_epoch=5)


def test_a_recipe_is_one_of_ours_by_name():
    sparsifier = made("gradual80", make_bert(), teacher="disable", sparsity=0.5, mask_type="block4")
    assert sparsifier.epochs == 8  # the length of the recipe
    [modifier] = sparsifier.modifiers.values()  # the rates are those of the loop
    assert (modifier.final_sparsity, modifier.mask_type) == (0.5, "block4")
    words = {"learning_rate": 1e-4, "warmup": "10%", "weight_decay": 0.01, "quantization": "int8", "epochs": 3}
    more = made("gradual80", make_bert(), teacher="disable", **words).modifiers
    assert {type(each) for each in more.values()} == {LearningRate, WeightDecay, MagnitudePruning, Quantization}
    assert [each.final_lr for each in more.values() if isinstance(each, LearningRate)] == [1e-4, 0.0]
    with_segments = made("obert80", make_bert(), teacher="disable", batches=[]).modifiers
    assert len([each for each in with_segments.values() if isinstance(each, LearningRate)]) == 2
    dotted = made("gradual80", make_bert(), teacher="disable", **{"sparsity.params": ["re:.*query.weight"]})
    assert list(dotted.modifiers["sparsity"].targets) == ["bert.encoder.layer.0.attention.self.query.weight"]


def test_a_recipe_of_modifiers_keeps_them_as_they_are():
    modifiers = {"prune": ONCE, "decay": WeightDecay(weight_decay=0.1)}
    sparsifier = made(modifiers, epochs=1)
    assert list(sparsifier.modifiers) == ["prune", "decay"]
    train(sparsifier, 1)
    assert sparsifier.modifiers["prune"].masks
    assert not ONCE.masks  # one object serves many loops
    several = made([ONCE, ConstantPruning(params=["2.weight"], min_sparsity=0)], epochs=1)
    assert list(several.modifiers) == ["MagnitudePruning", "ConstantPruning"]
    rates = [LearningRate(init_lr=0.1, final_lr=0.0, end="50%"), LearningRate(init_lr=0.1, final_lr=0.0, start="50%")]
    assert list(made(rates, epochs=1).modifiers) == ["LearningRate", "LearningRate 2"]


def test_an_application_of_hydra_is_left_as_it_was():
    from hydra import compose, initialize_config_dir

    from sparse_xp.places import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        around = GlobalHydra.instance().hydra
        made("gradual80", make_bert(), teacher="disable")
        assert GlobalHydra.instance().hydra is around
        assert compose("config", overrides=["seed=5"]).seed == 5
    assert not GlobalHydra.instance().is_initialized()


# A step


def test_masks_are_there_before_the_first_forward_pass_of_a_step():
    sparsifier = made(MagnitudePruning(final_sparsity=0.75, init_sparsity=0.75), epochs=1)
    model = sparsifier.context.model
    with torch.no_grad():
        model.eval()(torch.ones(1, 8))
        model.train()(torch.ones(1, 8))
    assert not sparsifier.modifiers["MagnitudePruning"].masks  # neither trains
    model(torch.ones(1, 8))
    assert (model[0].weight == 0).float().mean() == 0.75


def test_pruned_weights_have_no_part_in_the_clipped_norm():
    sparsifier = made(MagnitudePruning(final_sparsity=0.75, end="1 step", params=["0.weight"]), epochs=1)
    sparsifier.max_grad_norm = 1.0
    model, weight = sparsifier.context.model, sparsifier.context.model[0].weight
    model(torch.ones(1, 8))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    mask = sparsifier.modifiers["MagnitudePruning"].masks["0.weight"]
    weight.grad = torch.where(mask, 0.01, 1000.0)
    before = weight.detach().clone()
    sparsifier.step()
    assert torch.allclose(before - weight.detach(), torch.where(mask, 0.1 * 0.01, 0.0), atol=1e-6)


def test_a_loop_that_calls_its_optimizer_itself():
    both = []
    for calls in (True, False):
        sparsifier = made(ONCE, epochs=1)
        model, optimizer = sparsifier.context.model, sparsifier.context.optimizer
        for step in range(4):
            inputs = torch.randn(6, 8, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            if calls:
                sparsifier.step()
            else:
                sparsifier.before_update()
                optimizer.step()
                optimizer.zero_grad()
                sparsifier.after_update()
        both.append(model[0].weight.detach())
    assert torch.equal(*both)
    assert (both[0] == 0).float().mean() == 0.75


def test_the_rates_of_the_recipe_hold_against_a_scheduler():
    recipe = [LearningRate(init_lr=0.3, final_lr=0.1, start="2 steps", end="4 steps"), ONCE]
    sparsifier = made(recipe, epochs=2)
    optimizer = sparsifier.context.optimizer
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    seen = []
    for step in range(8):
        train(sparsifier, 1, step)
        seen.append(round(optimizer.param_groups[0]["lr"], 6))
        scheduler.step()
    assert seen == [0.1, 0.05, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1]  # the scheduler's until the recipe sets one
    assert sparsifier.logs()["lr"] == 0.1 / 9  # that the scheduler has written since; the next step puts it right


def test_more_steps_than_the_recipe_has():
    sparsifier = made([ONCE, LearningRate(init_lr=0.1, final_lr=0.01)], epochs=1)
    train(sparsifier, 4)
    with pytest.warns(UserWarning, match="has 4 steps, and the loop makes more: masks and rates stay as they are"):
        train(sparsifier, 1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(sparsifier, 3, 5)
    assert sparsifier.steps == 8
    assert (sparsifier.context.model[0].weight == 0).float().mean() == 0.75
    assert sparsifier.context.optimizer.param_groups[0]["lr"] == pytest.approx(0.0325)
    sparsifier.finalize()


# The teacher


def test_distillation_is_that_of_hinton():
    student, teacher = make_mlp(0), make_mlp(1)
    sparsifier = made(Distillation(hardness=0.75, temperature=2.0), student, epochs=1, teacher=teacher)
    inputs, labels = torch.randn(6, 8), torch.randint(2, (6,))
    outputs = student(inputs)
    loss = sparsifier.loss(cross_entropy(outputs, labels), outputs, (inputs, labels))
    p, q = (teacher(inputs) / 2).softmax(-1), (outputs / 2).softmax(-1)
    divergence = 4 * (p * (p / q).log()).sum(-1).mean()
    assert loss.item() == pytest.approx((0.25 * cross_entropy(outputs, labels) + 0.75 * divergence).item(), rel=1e-5)
    assert not teacher.training
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert sparsifier.logs()["loss_distillation"] == pytest.approx(divergence.item(), rel=1e-4)


def test_a_distillation_function_gets_both_outputs_and_the_batch():
    student, teacher = make_mlp(0), make_mlp(1)
    seen = []

    def distance(outputs, theirs, batch):
        seen.append((outputs, theirs, batch))
        return (outputs["a"] - theirs).abs().mean()

    sparsifier = made(
        Distillation(hardness=0.5), student, epochs=1, teacher=lambda batch: teacher(batch[0]), distillation=distance
    )
    batch = (torch.randn(6, 8), torch.randint(2, (6,)))
    outputs = {"a": student(batch[0])}
    loss = sparsifier.loss(torch.tensor(3.0), outputs, batch)
    assert seen[0][0] is outputs
    assert seen[0][2] is batch
    assert loss.item() == pytest.approx(1.5 + 0.5 * (outputs["a"] - teacher(batch[0])).abs().mean().item())


def test_the_teacher_self_is_the_model_as_it_was():
    model = make_bert()
    sparsifier = made([Distillation(), ONCE], model, epochs=1, teacher="self")
    assert sparsifier.context.teacher.model is not model
    rows = torch.randint(5, 20, (4, 6))
    before = model.eval()(input_ids=rows).logits
    model.classifier.weight.data.zero_()
    assert torch.equal(sparsifier.context.teacher([], {"input_ids": rows}).logits, before)


def test_a_loop_that_leaves_the_loss_of_the_recipe_out_is_told():
    sparsifier = made([Distillation(start="50%"), ONCE], epochs=1, teacher=make_mlp(1))
    model = sparsifier.context.model
    for _ in range(2):  # before it distils nothing is missing
        model(torch.randn(6, 8)).square().mean().backward()
        sparsifier.step()
    model(torch.randn(6, 8)).square().mean().backward()
    with pytest.raises(UserError, match=r"distils in this step, and loss\(\) was not called: minimize sparsifier.loss"):
        sparsifier.step()


# A loop that makes a mistake

NOT_BEGUN = r"No forward pass in training mode has begun this step: call model.train\(\), and the model that"


@pytest.mark.parametrize("way", ["model.forward", "a part of it", "no forward pass"])
def test_a_step_that_no_forward_pass_has_begun(way):
    """The masks would come after the forward pass, and 8 bits would see no ranges."""
    sparsifier = made(ONCE, epochs=1)
    model, inputs = sparsifier.context.model, torch.randn(6, 8)
    if way != "no forward pass":
        {"model.forward": model.forward, "a part of it": model[0]}[way](inputs).square().mean().backward()
    with pytest.raises(UserError, match=NOT_BEGUN):
        sparsifier.step()
    with pytest.raises(UserError, match=NOT_BEGUN):
        sparsifier.loss(torch.tensor(1.0), torch.zeros(6, 2), (inputs, None))
    sparsifier.begin_step()  # a loop that means it says so
    sparsifier.step()


def test_a_loop_in_evaluation_mode():
    """``from_pretrained`` leaves a model in it."""
    sparsifier = made(ONCE, epochs=1)
    model = sparsifier.context.model.eval()
    with pytest.warns(UserWarning, match="trains a model in evaluation mode, without dropout: is model"):
        train(sparsifier, 2)
    assert (model[0].weight == 0).float().mean() == 0.75
    quantized = made(Quantization(start="50%"), epochs=1)
    quantized.context.model.eval()
    with pytest.raises(UserError, match=NOT_BEGUN):  # no range would be observed
        train(quantized, 1)


def test_a_loop_that_stays_in_evaluation_mode_is_told():
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 2)
    sparsifier.context.model.eval()
    with pytest.raises(UserError, match=NOT_BEGUN):
        train(sparsifier, 1, 2)


def test_a_loss_in_validation_begins_no_step():
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 1)
    model = sparsifier.context.model.eval()
    with torch.no_grad(), pytest.raises(UserError, match=NOT_BEGUN):
        sparsifier.loss(torch.tensor(1.0), model(torch.randn(6, 8)), (torch.randn(6, 8), None))
    assert not (model[0].weight == 0).any()  # the masks of the next step are not there yet


def test_a_loop_that_calls_its_optimizer_is_told():
    sparsifier = made(ONCE, epochs=1)
    model, optimizer = sparsifier.context.model, sparsifier.context.optimizer
    model(torch.randn(6, 8)).square().mean().backward()
    before = model[0].weight.detach().clone()
    with pytest.raises(
        UserError, match=r"optimizer.step\(\) was called by the loop: sparsifier.step\(\) takes its place"
    ):
        optimizer.step()
    assert torch.equal(model[0].weight, before)
    sparsifier.step()
    sparsifier.finalize(unfinished=True)
    optimizer.step()  # it is the loop's again


def test_a_rate_that_a_scheduler_sets_between_forward_pass_and_step_does_not_count():
    sparsifier = made([LearningRate(init_lr=0.3, final_lr=0.1)], epochs=1)
    model, optimizer = sparsifier.context.model, sparsifier.context.optimizer
    weight = model[0].weight.detach().clone()
    model(torch.randn(6, 8)).sum().backward()
    gradient = model[0].weight.grad.clone()
    optimizer.param_groups[0]["lr"] = 100.0
    sparsifier.step()
    assert torch.allclose(model[0].weight.detach(), weight - 0.3 * gradient)


def test_an_update_that_is_interrupted_leaves_no_pruned_weight_alive():
    class Interrupted(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.data.add_(1.0)
            raise KeyboardInterrupt

    model = make_mlp()
    sparsifier = Sparsifier(
        MagnitudePruning(final_sparsity=0.75, init_sparsity=0.75), model, Interrupted(model.parameters(), lr=0.1),
        steps_per_epoch=4, epochs=1,
    )  # fmt: skip
    model(torch.randn(6, 8)).square().mean().backward()
    with pytest.raises(KeyboardInterrupt):
        sparsifier.step()
    assert (model[0].weight == 0).float().mean() == 0.75
    assert sparsifier.steps == 0
    sparsifier.finalize(unfinished=True)


def test_parameters_that_are_replaced_are_found():
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 4)
    sparsifier.context.model.load_state_dict(make_mlp(1).state_dict(), assign=True)
    with pytest.raises(UserError, match=r"0.weight is another parameter now than the one that was pruned"):
        sparsifier.finalize()


def test_a_recipe_that_is_cut_short_is_told():
    sparsifier = made([ONCE, LearningRate(init_lr=0.1, final_lr=0.0)], epochs=1)
    train(sparsifier, 2)
    with pytest.warns(UserWarning, match=r"The recipe has 4 steps, and 2 were made before finalize"):
        sparsifier.finalize()


def test_a_state_of_other_epochs_is_refused():
    state = made(ONCE, steps_per_epoch=8, epochs=3).state_dict()
    with pytest.raises(UserError, match=r"The state is of a loop with 8 steps an epoch; this one has 12"):
        made(ONCE, steps_per_epoch=12, epochs=2).load_state_dict(state)
    wider = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 3)
    with pytest.raises(UserError, match=r"has a mask of 0.weight \[16, 8\], which is \[32, 8\] here"):
        made(ONCE, wider, epochs=1).load_state_dict(sparsifier.state_dict())


def test_tuples_do_not_say_where_the_logits_are():
    teacher = make_mlp(1)
    sparsifier = made(Distillation(), epochs=1, teacher=teacher)
    inputs = torch.randn(6, 8)
    outputs = sparsifier.context.model(inputs)
    with pytest.raises(UserError, match=r"The model returns a tuple of 2, which does not say where the logits are"):
        sparsifier.loss(torch.tensor(1.0), (outputs, outputs), (inputs,))
    alone = sparsifier.loss(torch.tensor(1.0), (torch.tensor(1.0), outputs), (inputs,))  # behind the loss
    assert torch.equal(alone, sparsifier.loss(torch.tensor(1.0), outputs, (inputs,)))


def test_a_part_of_a_held_model_is_held():
    model = make_mlp()
    made(ONCE, model, epochs=1)
    with pytest.raises(UserError, match="has a Sparsifier or a lock already"):
        made(ONCE, model[0], epochs=1)
    with pytest.raises(UserError, match="has a Sparsifier or a lock already"):
        made(ONCE, nn.Sequential(model), epochs=1)


def test_a_teacher_with_weights_of_the_student_is_refused():
    model, teacher = make_mlp(), make_mlp(1)
    teacher[0] = model[0]
    with pytest.raises(UserError, match=r"The teacher shares 0.weight with the model that trains"):
        made(Distillation(), model, epochs=1, teacher=teacher)
    assert all(weight.requires_grad for weight in model.parameters())


# What is refused


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("no_such", {}, r"recipe=no_such: there is no such file, and no recipe of this name"),
        ("gradual8", {}, r"Did you mean 'gradual80'"),
        (TEXT, {"epochs": 1}, r"recipe has 2 epochs, and the loop 1: the recipe would not be finished"),
        (ONCE, {}, r"recipe has no length of its own: give epochs=NUMBER"),
        ("pruned80", {"teacher": "disable"}, r"pruned80 has no length of its own: give epochs=NUMBER"),
        (ONCE, {"epochs": 0}, r"epochs=0: expected a number above 0"),
        (ONCE, {"epochs": 1, "steps_per_epoch": 0}, r"steps_per_epoch=0: expected the optimizer steps of an epoch"),
        (ONCE, {"epochs": 1, "steps_per_epoch": 2.5}, r"steps_per_epoch=2.5: expected"),
        ([], {"epochs": 1}, r"The recipe has no modifiers"),
        ([ONCE, "gradual80"], {"epochs": 1}, r"'gradual80' is no modifier"),
        ({"a": MagnitudePruning}, {"epochs": 1}, r"MagnitudePruning'> is no modifier"),
        (ONCE, {"epochs": 1, "sparsity": 0.9}, r"sparsity=0.9: modifiers given as objects have their numbers already"),
        ("gradual80", {"sparsty": 0.9}, r"sparsty=0.9: recipe gradual80 has no such number. Did you mean 'sparsity'"),
        ("gradual80", {"sparsity": 80, "teacher": "disable"}, r"recipe.sparsity=80.0: expected a fraction"),
        (
            "gradual80",
            {"sparsity": "gradul"},
            r"sparsity='gradul': expected a number such as 0.9, or one of acdc, .*'gradual'",
        ),
        ("gradual80", {"quantization": True}, r"quantization=True: expected one of int8, "),
        ("gradual80", {"learning_rate": "fast"}, r"learning_rate='fast': expected a number"),
        ("gradual80", {"lr": 1e-4}, r"lr=0.0001: recipe gradual80 has no such number. Did you mean 'learning_rate'"),
        ("gradual80", {"num_epochs": 4}, r"Did you mean 'epochs'"),
        ("gradual80", {"train.epochs": 4}, r"train.epochs=4: this is a setting of the command's own loop"),
        ("dense", {"epochs": 1}, r"recipe=dense has nothing to do in a loop of your own"),
        ("nofile.yaml", {}, r"recipe=nofile.yaml: there is no such file\.$"),
        (None, {"epochs": 1}, r"recipe=None: expected the name of a recipe, a file"),
        (ONCE, {"epochs": 1, "step_per_epoch": 3}, r"step_per_epoch=3: .* Did you mean 'steps_per_epoch'"),
        (ONCE, {"epochs": "3"}, r"epochs='3': expected a number above 0"),
        (ONCE, {"epochs": 1, "max_grad_norm": -1}, r"max_grad_norm=-1: expected a number above 0, or None"),
        (ONCE, {"epochs": 1, "scaler": True}, r"scaler=True: expected a torch.amp.GradScaler"),
        (ONCE, {"epochs": 1, "devices": 5}, r"devices=5: expected an Accelerator"),
        (ONCE, {"epochs": 1, "loss_function": 5}, r"loss_function=5: expected a function"),
        (Quantization(calibration_rows=4), {"epochs": 1, "batches": 5}, r"batches=5: expected a DataLoader"),
        (Distillation(), {"epochs": 1, "teacher": 5}, r"teacher=5: expected a model, a function of a batch"),
        ("gradual80", {}, r"gradual80 distils \(teacher.distillation\), and no teacher is given: teacher=MODEL"),
        ([Distillation(), ONCE], {"epochs": 1}, r"recipe distils \(Distillation\), and no teacher is given"),
        (ONCE, {"epochs": 1, "teacher": make_mlp()}, r"teacher= is given, and recipe does not distil"),
        (ONCE, {"epochs": 1, "distillation": print}, r"distillation= is given, and recipe does not distil"),
        (Distillation(), {"epochs": 1, "teacher": "dense"}, r"teacher='dense': expected a model"),
        (Quantization(calibration_rows=4), {"epochs": 1}, r"Quantization needs training data of its own"),
        (Quantization(calibration_rows=4), {"epochs": 1, "batches": iter([1])}, r"batches= can be read only once"),
        (MagnitudePruning(final_sparsity=0.5, end=3), {"epochs": 2}, r"end=3 is after the end of the run \(2 epochs\)"),
        (MagnitudePruning(final_sparsity=0.5, params=["w"]), {"epochs": 2}, r"No parameter matches 'w'"),
        (TEXT.replace("!GMP", "!GMPP"), {}, r"unknown modifier !GMPPruningModifier. Did you mean 'GMPruningModifier'"),
        (TEXT.replace("final_sparsity", "final_sparsty"), {}, r"recipe:5:5: !GMPruningModifier needs final_sparsity"),
    ],
)
def test_what_is_refused(recipe, words, message):
    model = make_bert() if recipe in ("gradual80", "pruned80") else make_mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        made(recipe, model, **words)
    assert "Traceback" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    Sparsifier(ONCE, model, sgd(model), steps_per_epoch=4, epochs=1)  # nothing holds the model


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(UserError, match="The optimizer holds none of the model's parameters"):
        Sparsifier(ONCE, make_mlp(), sgd(make_mlp()), steps_per_epoch=4, epochs=1)
    with pytest.raises(UserError, match="optimizer: expected an optimizer of PyTorch, not Sequential"):
        Sparsifier(ONCE, make_mlp(), make_mlp(), steps_per_epoch=4, epochs=1)
    with pytest.raises(UserError, match="has no optimizer: give one"):
        train(Sparsifier(ONCE, make_mlp(), steps_per_epoch=4, epochs=1), 1)


def test_a_model_is_wrapped_once():
    model = make_mlp()
    sparsifier = made(ONCE, model, epochs=1)
    with pytest.raises(UserError, match=r"has a Sparsifier or a lock already. End that one first"):
        made(ONCE, model, epochs=1)
    train(sparsifier, 4)
    sparsifier.finalize()
    made(ConstantPruning(), model, epochs=1)


def test_the_model_cannot_be_its_own_teacher():
    model = make_mlp()
    with pytest.raises(UserError, match="teacher= is the model that trains"):
        made(Distillation(), model, epochs=1, teacher=model)


def test_outputs_without_logits():
    sparsifier = made(Distillation(), epochs=1, teacher=make_mlp(1))
    sparsifier.begin_step()
    with pytest.raises(UserError, match=r"The model returns hidden: no logits to compare .* distillation=FUNCTION"):
        sparsifier.loss(torch.tensor(1.0), {"hidden": torch.zeros(2, 3)}, (torch.zeros(2, 8),))
    with pytest.raises(UserError, match="The outputs of the model are a float"):
        sparsifier.loss(torch.tensor(1.0), 1.0, (torch.zeros(2, 8),))


# The end


def test_an_unfinished_recipe_is_no_finished_one(tmp_path):
    sparsifier = made(MagnitudePruning(final_sparsity=0.8, update_frequency="1 step", end="75%"), epochs=2)
    train(sparsifier, 5)
    with pytest.raises(
        UserError, match=r"MagnitudePruning has not reached its target after step 5 of 8: 7\d.\d% of 80"
    ):
        sparsifier.finalize()
    with pytest.raises(UserError, match=r"save\(\) before finalize\(\)"):
        sparsifier.save(tmp_path / "out")
    sparsifier.finalize(unfinished=True)
    sparsifier.finalize()  # once is enough
    with pytest.raises(UserError, match=r"step\(\) after finalize\(\)"):
        train(sparsifier, 1)
    assert not (tmp_path / "out").exists()


def test_weights_that_were_written_after_the_last_step_are_found():
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 4)
    sparsifier.context.model[0].weight.data.add_(1.0)
    with pytest.raises(UserError, match=r"pruned weights of 0.weight are no longer zero"):
        sparsifier.finalize()


def test_a_finished_model_of_transformers_loads_with_transformers(tmp_path):
    model = make_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recipe = [MagnitudePruning(final_sparsity=0.75, end="1 step"), Quantization(start="50%")]
    sparsifier = Sparsifier(recipe, model, optimizer, steps_per_epoch=4, epochs=1)
    for _ in range(4):
        rows = torch.randint(5, 20, (4, 6))
        sparsifier.loss(model(input_ids=rows, labels=rows[:, 0] % 2).loss, None, {"input_ids": rows}).backward()
        sparsifier.step()
    sparsifier.finalize()
    sparsifier.save(tmp_path / "out")
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert {path.name for path in tmp_path.glob("out/*.*")} >= {"model.safetensors", "quantization.json", "recipe.yaml"}
    assert "!GMPruningModifier" in (tmp_path / "out/recipe.yaml").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="Name a directory that is not there yet"):
        sparsifier.save(str(tmp_path / "mine"))
    assert [path.name for path in Path(tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_finished_module_is_a_safetensors_file(tmp_path):
    sparsifier = made(ONCE, epochs=1)
    train(sparsifier, 4)
    sparsifier.finalize()
    sparsifier.save(tmp_path / "out")
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["0.weight"], sparsifier.context.model[0].weight)


def test_smaller_matrices_at_the_end():
    model = make_bert()
    recipe = StructuredPruning(final_sparsity=0.25, multiple=4, start="1 step", end="50%", update_frequency="1 step")
    sparsifier = Sparsifier(recipe, model, torch.optim.AdamW(model.parameters()), steps_per_epoch=8, epochs=1)
    for _ in range(8):
        rows = torch.randint(5, 20, (4, 6))
        model(input_ids=rows, labels=rows[:, 0] % 2).loss.backward()
        sparsifier.step()
    assert tuple(model.bert.encoder.layer[0].intermediate.dense.weight.shape) == (16, 8)
    sparsifier.finalize()
    layer = model.bert.encoder.layer[0]
    assert layer.intermediate.dense.weight.shape[0] < 16 or layer.attention.self.query.weight.shape[0] < 8
    model(input_ids=torch.randint(5, 20, (4, 6)))
