"""Hidden layers compared: the distance against numbers worked out by hand, the modifier in whole runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.functional.hidden_states import layer_loss
from sparse_xp.modifiers import PerLayerDistillation
from sparse_xp.run import run
from sparse_xp.training import checkpoint
from sparse_xp.training.teacher import LiveTeacher
from tests.runs import SHORT, configure, history

pytestmark = pytest.mark.usefixtures("trained_only")

STUDENT, TEACHER = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])


@pytest.mark.parametrize(
    ("normalize", "epsilon", "expected"),
    [
        (False, 1e-6, 17 / 4),  # (0 + 4 + 9 + 4) / 4
        (True, 1e-12, 17 / 5),  # the squares of the teacher are 1 and 4
        (True, 0.75, 17 / 4 / 2),  # 5 / 4 + 3 / 4
    ],
)
def test_the_distance_by_hand(normalize, epsilon, expected):
    found = layer_loss(STUDENT, TEACHER, normalize=normalize, epsilon=epsilon)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_silence_is_at_distance_one():
    torch.manual_seed(0)
    teacher = torch.randn(3, 5, 4) * 7
    assert layer_loss(torch.zeros_like(teacher), teacher).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("garbage", [0.0, 1e4])
def test_padding_changes_neither_distance_nor_gradient(garbage):
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = layer_loss(student[mask], teacher[mask])
    student[~mask], teacher[~mask] = garbage, -garbage
    student.requires_grad_()
    found = layer_loss(student, teacher, mask)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert student.grad[~mask].eq(0).all()
    assert student.grad[mask].ne(0).all()


def test_a_row_has_no_padding():
    mask = torch.tensor([[True, False], [True, False]])
    assert layer_loss(STUDENT, TEACHER, mask, normalize=False).item() == 17 / 4


def test_half_precision_is_compared_in_float32():
    found = layer_loss(STUDENT.bfloat16(), TEACHER.bfloat16(), normalize=False)
    assert (found.dtype, found.item()) == (torch.float32, 17 / 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gain": 0.0}, r"PerLayerDistillation\.gain=0\.0: expected a number above 0"),
        ({"gain": float("nan")}, r"PerLayerDistillation\.gain=nan"),
        ({"epsilon": 0.0}, r"PerLayerDistillation\.epsilon=0\.0"),
        ({"student_layer_names": []}, r"PerLayerDistillation\.student_layer_names is empty"),
        ({"teacher_layer_names": []}, r"PerLayerDistillation\.teacher_layer_names is empty"),
    ],
)
def test_refusals_name_the_key(fields, message):
    with pytest.raises(ValueError, match=message):
        PerLayerDistillation(**fields)


# Whole runs


HIDDEN = "recipe.modifiers.hidden"
LAYERS = "[bert.encoder.layer.0.output, bert.encoder.layer.1.output]"


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    place = tmp_path_factory.mktemp("dense")
    run(configure(*words(place, "task=sst2", "recipe=dense", "train.epochs=1")[:-2]), place / "dense")
    return place


def words(place, *more):
    return (
        *SHORT,
        "data.embedded_train_rows=64",
        f"data.cache={place}/cache",
        *more,
        "teacher=checkpoint",
        f"teacher.path={place}/dense",
    )


def hidden(place, *more):
    """A run of twelve steps that compares hidden layers from step 2 to step 8."""
    return configure(
        *words(place, "task=sst2", "recipe=gradual80"),
        f"+modifier@{HIDDEN}=PerLayerDistillation",
        f"{HIDDEN}.start=2 steps",
        f"{HIDDEN}.end=8 steps",
        *more,
    )


@pytest.fixture
def states(monkeypatch):
    """The run and its projections at each of its checkpoints."""
    found, real = [], checkpoint.save

    def save(this):
        found.append(
            (this, {k: v.clone() for k, v in this.modifier_list.modifiers[HIDDEN].state_dict()["projections"].items()})
        )
        real(this)

    monkeypatch.setattr(checkpoint, "save", save)
    return found


def test_a_run_that_compares_all_linear_modules(dense, tmp_path, states, capsys):
    run(hidden(dense, "train.save_every=1 step"), tmp_path / "run")
    assert "runs at every step (the recipe compares hidden layers)" in " ".join(capsys.readouterr().out.split())
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    assert [line["step"] for line in lines if "loss_layers" in line] == [3, 4, 5, 6, 7, 8]
    assert all("loss_distillation" in line for line in lines)
    this, first = states[0]
    modifier = this.modifier_list.modifiers[HIDDEN]
    linear = [name for name, module in this.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert list(first) == linear
    assert len(linear) == 2 * 6 + 2  # the encoder, the pooler, the classifier
    # The projections train while they are used, and only then.
    changed = [
        {name for name in one if not torch.equal(one[name], other[name])} for (_, one), (_, other) in pairwise(states)
    ]
    assert [bool(names) for names in changed] == [False] + [True] * 6 + [False] * 4
    assert changed[3] == set(linear)
    # Nothing of it is left on the models.
    assert not modifier.student_outputs
    assert not modifier.teacher_outputs
    assert not any(module._forward_hooks for module in this.teacher.model.modules())
    assert not any(this.model.get_submodule(name)._forward_hooks for name in linear)


@pytest.mark.parametrize("hardness", [0.0, 0.25, 1.0])
def test_the_loss_is_the_sum_of_the_layers(dense, tmp_path, monkeypatch, hardness):
    """Against the hidden states that transformers gives. However hard the logits are distilled, the layers count."""
    config = hidden(
        dense,
        f"{HIDDEN}.start=0",
        f"{HIDDEN}.end=100%",
        f"{HIDDEN}.gain=2.0",
        f"{HIDDEN}.project_features=false",
        f"{HIDDEN}.student_layer_names={LAYERS}",
        f"{HIDDEN}.teacher_layer_names={LAYERS}",
        f"teacher.distillation.hardness={hardness}",
        "model.dropout=0.0",
        "train.precision=fp32",
    )
    expected, real = [], PerLayerDistillation.loss

    def loss(self, this, rows, batch, outputs, given):
        result = real(self, this, rows, batch, outputs, given)
        inputs = {name: batch[name] for name in this.inputs}
        with torch.no_grad():
            student = this.model.eval()(**inputs, output_hidden_states=True).hidden_states[1:]
            teacher = this.teacher.model(**inputs, output_hidden_states=True).hidden_states[1:]
        this.model.train()
        mask = batch["attention_mask"].bool()
        pairs = [(one[mask], other[mask]) for one, other in zip(student, teacher, strict=True)]
        expected.append(sum(((s - t) ** 2).mean() / ((t**2).mean() + 1e-6) for s, t in pairs).item())
        self.student_outputs.clear()
        self.teacher_outputs.clear()
        return result

    monkeypatch.setattr(PerLayerDistillation, "loss", loss)
    run(config, tmp_path / "run")
    lines = [line for line in history(tmp_path / "run") if "loss" in line]
    assert [line["loss_layers"] for line in lines] == pytest.approx(expected, rel=1e-4)
    assert len(lines) == 12
    assert min(expected) > 1e-3
    for line in lines:
        mixed = (1 - hardness) * line["loss_task"] + hardness * line["loss_distillation"]
        assert line["loss"] == pytest.approx(mixed + 2.0 * line["loss_layers"], rel=1e-4)
    if hardness == 1.0:  # and they are learnt
        assert lines[-1]["loss_layers"] < lines[0]["loss_layers"]


def test_the_teacher_runs_once_a_batch(dense, tmp_path, monkeypatch):
    calls = []
    real = LiveTeacher.__call__

    def counted(self, rows, batch):
        before = self.last
        found = real(self, rows, batch)
        calls.append(self.last is not before)
        return found

    monkeypatch.setattr(LiveTeacher, "__call__", counted)
    run(hidden(dense), tmp_path / "run")
    assert (len(calls), sum(calls)) == (12 + 6, 12)  # both distillations ask


def test_hidden_layers_of_a_shorter_student(dense, tmp_path, states):
    config = hidden(
        dense,
        "+modifier@recipe.modifiers.layers=LayerPruning",
        "recipe.modifiers.layers.layers=[bert.encoder.layer.0]",
        f"{HIDDEN}.student_layer_names=[bert.encoder.layer.1, 're:bert.encoder.layer.1.intermediate.dense']",
        f"{HIDDEN}.teacher_layer_names=[bert.encoder.layer.1, bert.encoder.layer.0.output.dense]",
    )
    result = run(config, tmp_path / "run")
    assert result.sparsity.prunable == pytest.approx(0.8, abs=1e-3)
    shapes = {name: tuple(weight.shape) for name, weight in states[0][1].items()}  # 64 wide, 128 between
    assert shapes == {"bert.encoder.layer.1": (64, 64), "bert.encoder.layer.1.intermediate.dense": (64, 128)}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["teacher=none"], "the run has no teacher: write teacher=dense"),
        ([f"{HIDDEN}.student_layer_names=[bert.encoder.layers.0]"], "No module of the student matches 'bert.encoder.l"),
        ([f"{HIDDEN}.teacher_layer_names=[bert.encoder.layers.0]"], "No module of the teacher matches 'bert.encoder.l"),
        ([f"{HIDDEN}.student_layer_names=[classifier]"], "the student has 1 layers to compare, the teacher 14"),
        (
            [f"{HIDDEN}.student_layer_names=[classifier]", f"{HIDDEN}.teacher_layer_names=[bert.encoder.layer.0]"],
            r"the student's classifier gives \(1, 2\), the teacher's bert.encoder.layer.0 \(1, \d+, 64\): they cannot",
        ),
        (
            [f"{HIDDEN}.student_layer_names=[bert.pooler]", f"{HIDDEN}.teacher_layer_names=[classifier]",
             f"{HIDDEN}.project_features=false"],
            r"gives \(1, 64\), the teacher's classifier \(1, 2\).* or write project_features=true",
        ),
        (
            [f"{HIDDEN}.student_layer_names=[bert.encoder.layer]", f"{HIDDEN}.teacher_layer_names=[classifier]"],
            "bert.encoder.layer gives no hidden states that could be compared",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(dense, tmp_path, more, message):
    words = [word for word in more if word != "teacher=none"]
    config = hidden(dense, *words)
    if "teacher=none" in more:
        config = configure(*SHORT, "task=sst2", "recipe=dense", f"+modifier@{HIDDEN}=PerLayerDistillation")
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "run")
