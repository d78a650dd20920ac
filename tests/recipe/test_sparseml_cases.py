"""Cases T.. of SparseML's behaviour that need a model: what it did, and where this package does it otherwise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import yaml

from sparse_xp.errors import UserError
from sparse_xp.modifiers import ConstantPruning, Distillation, MagnitudePruning, Quantization
from sparse_xp.modifiers.modifier_list import ModifierList
from sparse_xp.places import CONF
from sparse_xp.recipe.parsed import parse_modifiers
from sparse_xp.recipe.text import read_recipe
from sparse_xp.recipe.zoo import FILES
from tests.runs import configure
from tests.simulation import bert_run, simulate
from tests.tiny import loss_of, make_bert, make_run

NAME = "bert.encoder.layer.0.output.dense.weight"


def test_t9_gradients_are_masked_from_the_first_step_on():
    """SparseML's hook came during the first update: Adam's first moment of zeros began with a gradient there."""
    run = bert_run(4, 2)
    with torch.no_grad():
        run.model.get_parameter(NAME)[:, ::2] = 0
    modifier = ConstantPruning(params=[NAME], refresh_masks=True)
    modifier.attach(run)
    for _ in simulate(run, modifier):
        moments = run.optimizer.state[modifier.targets[NAME]]["exp_avg"]
        assert moments[:, ::2].eq(0).all()
        assert moments[:, 1::2].ne(0).any()
        assert modifier.targets[NAME][:, ::2].eq(0).all()


def quantized(tag: str):
    """The modules that a tag makes quantizable in a small BERT, by name, and the modifier."""
    [modifier] = parse_modifiers(read_recipe(f"modifiers:\n  - !QuantizationModifier {tag}\n")).modifiers.values()
    run = make_run(4, 12, model=make_bert(), wrapper=SimpleNamespace(autocast=True, compiled=None))
    modifier.attach(run)
    return modifier, run


def test_t25_a_submodule_that_is_a_linear_itself_is_frozen_with_the_others():
    """SparseML's observers of such a one (qa_outputs) went on."""
    modifier, run = quantized(
        "{start_epoch: 0, disable_quantization_observer_epoch: 1, submodules: [classifier, bert.encoder]}"
    )
    rows = torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(0))
    ranges = []
    run.model.train()
    for run.progress.step in (0, 4, 5):
        modifier.before_step(run)
        run.model(input_ids=(rows + run.progress.step) % 20)
        inputs = modifier.modules["classifier"].quant.input_observer
        ranges.append((inputs.low.item(), inputs.high.item()))
    assert modifier.phase(run.clock, 4) == "frozen"
    assert ranges[1] == ranges[2] == ranges[0]


def test_t25_embeddings_are_prepared_wherever_they_are():
    modules = quantized("{start_epoch: 0, submodules: [classifier]}")[0].modules
    tables = [f"bert.embeddings.{name}_embeddings" for name in ("word", "position", "token_type")]
    assert sorted(modules) == sorted([*tables, "classifier"])
    assert list(quantized("{submodules: [classifier], quantize_embeddings: 0}")[0].modules) == ["classifier"]


def test_t25_without_a_field_of_the_older_class_it_is_the_newer():
    newer, older = (quantized(f"{{start_epoch: 0{more}}}")[0] for more in ("", ", exclude_module_types: []"))
    assert (newer.linear_outputs, newer.embedding_outputs) == (False, False)
    assert (older.linear_outputs, older.embedding_outputs) == (True, True)


def test_t29_what_is_distilled_and_from_whom():
    """No keys: every logits output. No teacher: an error. ``self`` and ``disable``: as their names say."""
    path = f"recipe.path={FILES / 'bert_base_pruned80_squad.yaml'}"
    for teacher in ("none", "self", "disable"):
        words = ("recipe=file", path, f"teacher={teacher}")
        if teacher == "none":
            with pytest.raises(UserError, match="no teacher is given"):
                configure(*words)
        else:
            given = [type(each) for each in configure(*words).modifiers().values()]
            assert (Distillation in given) == (teacher == "self")
    run = make_run(1, 1, teacher=None, task=SimpleNamespace(name="toy", outputs=("start_logits", "end_logits")))
    with pytest.raises(UserError, match="the run has no teacher: write teacher=dense"):
        Distillation().attach(run)
    same = {"start_logits": [[1.0, 0.0]], "end_logits": [[1.0, 0.0]]}
    other = same | {"end_logits": [[0.0, 1.0]]}
    logits = [{name: torch.tensor(value) for name, value in each.items()} for each in (same, other)]
    run.teacher = lambda rows, batch: logits[1]
    nothing = {
        "class_mask": lambda batch: None,
        "token_mask": lambda batch: None,
        "problem_type": "single_label_classification",
    }
    run.task = SimpleNamespace(outputs=("start_logits", "end_logits"), loss_reduction="mean", **nothing)
    loss = torch.tensor(5.0)
    both, ends, starts = (
        loss_of(Distillation(hardness=1.0, temperature=1.0, outputs=names), run, [0], {}, logits[0], loss).item()
        for names in (None, ["end_logits"], ["start_logits"])
    )
    assert ends == pytest.approx(0.46211716)  # (e - 1) / (e + 1)
    assert (both, starts) == (pytest.approx(ends / 2), pytest.approx(0.0))


def test_t31_sentences_are_cut_at_128_tokens():
    """The length of the published GLUE numbers; SparseML's script took 384 where the command said none."""
    found = {
        task: yaml.safe_load((CONF / f"task/{task}.yaml").read_text())["max_length"]
        for task in ("sst2", "qqp", "squad")
    }
    assert found == {"sst2": 128, "qqp": 128, "squad": 384}


def test_t39_weight_decay_moves_what_is_left_and_not_what_is_pruned():
    run = bert_run(4, 3)
    run.optimizer.param_groups[0].update(lr=0.1, weight_decay=0.5)
    modifier = MagnitudePruning(params=[NAME], final_sparsity=0.5, init_sparsity=0.5, update_frequency=1)
    modifier.attach(run)
    weight = modifier.targets[NAME]
    before = weight.detach().clone()
    for run.progress.step in range(3):
        modifier.before_step(run)
        weight.grad = torch.zeros_like(weight)
        modifier.before_update(run)
        run.optimizer.step()
        modifier.after_update(run)
    mask = modifier.masks[NAME]
    assert (~mask).sum() == 64
    assert torch.equal(weight == 0, ~mask)
    assert torch.allclose(weight[mask], before[mask] * (1 - 0.1 * 0.5) ** 3)


def test_t40_of_two_masks_on_one_tensor_the_product_holds():
    run = bert_run(4, 6)
    both = {
        "matrix": MagnitudePruning(params=[NAME], final_sparsity=0.5, end=1, mask_type=[1, 4]),
        "others too": MagnitudePruning(params=["re:.*dense.weight"], final_sparsity=0.5, end=1, global_sparsity=True),
    }
    recipe = ModifierList(both, run.clock)
    recipe.attach(run)
    for _ in simulate(run, recipe):
        recipe.check(run)
    one, other = (modifier.masks[NAME] for modifier in both.values())
    assert not torch.equal(one, other)
    assert torch.equal(run.model.get_parameter(NAME) != 0, one & other)


def test_quantization_defaults_are_those_of_the_tag():
    assert Quantization().per_channel
    assert not quantized("{start_epoch: 0}")[0].per_channel
