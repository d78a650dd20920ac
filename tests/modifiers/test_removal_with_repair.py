"""Structured pruning by score=obs: what is read, what goes, and the repair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sparse_xp import Sparsifier
from sparse_xp.errors import UserError
from sparse_xp.functional.structured.blocks import encoder_blocks, linear_at, sizes_of
from sparse_xp.functional.structured.obs import InputMoments
from sparse_xp.modifiers import EmbeddingPruning, MagnitudePruning, Quantization, StructuredPruning
from sparse_xp.modifiers.structured.obs import (
    MOMENT_BATCHES,
    TokenFilter,
    input_moments,
    relative_errors,
    remove_with_repair,
    write_repaired,
)
from tests.encoders import BATCH, KINDS, make_encoder
from tests.latency_tables import write_table
from tests.modifiers.structured_runs import attach_pruning, check_landing, take_step
from tests.tiny import FakeContext


def texts(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Batches of 8 texts of 2 to 12 tokens, padded."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        tokens = torch.randint(5, 30, (8, 12), generator=generator)
        lengths = torch.randint(2, 13, (8, 1), generator=generator)
        mask = (torch.arange(12) < lengths).long()
        labels = torch.randint(0, 2, (8,), generator=generator)
        batches.append({"input_ids": tokens * mask, "attention_mask": mask, "labels": labels})
    return batches


def give_texts(this: Any) -> Any:
    """Let a run have batches that depend on its step alone, and write down what was asked for."""
    this.asked = []

    def gradient_batches(count, batch_size, part):
        this.asked.append((this.step, count, batch_size, part))
        return iter(texts(count, seed=1000 * this.step + part))

    this.gradient_batches = gradient_batches
    this.task_loss = lambda batch: this.model(**batch).loss
    return this


def attach_obs(model: Any = None, **fields: Any) -> tuple[FakeContext, StructuredPruning]:
    """As ``attach_pruning``, by score=obs, with batches."""
    this, modifier = attach_pruning(model, score="obs", **fields)
    return give_texts(this), modifier


def context_of(model: nn.Module) -> Any:
    """As much of a context as the moments need."""
    return give_texts(SimpleNamespace(model=model, step=0, accelerator=SimpleNamespace(num_processes=1)))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_lands_on_its_target_and_never_goes_back(kind, together):
    this, modifier = attach_obs(make_encoder(kind), global_sparsity=together)
    check_landing(this, modifier, together)


def test_by_speed(tmp_path):
    speed = {"final_sparsity": None, "target_speedup": 4, "latency": write_table(tmp_path), "global_sparsity": True}
    this, modifier = attach_obs(others={"q": Quantization(start="90%")}, **speed)
    for number in range(10):
        take_step(this, modifier, number)
    assert modifier.logs(this)["speedup"] == pytest.approx(4.0)


def test_batches_are_asked_for_where_something_goes_and_nowhere_else():
    this, modifier = attach_obs(multiple=1)
    assert modifier.needs_batches
    assert not StructuredPruning(final_sparsity=0.5).needs_batches
    changed = []
    for number in range(10):
        before = modifier.current_sizes()
        take_step(this, modifier, number)
        if modifier.current_sizes() != before:
            changed.append(number)
    assert 2 < len(changed) < 10
    assert this.asked == [(number, MOMENT_BATCHES, None, 0) for number in changed]


def test_no_gradient_and_no_mode_is_left_behind():
    model = make_encoder("Bert").train()
    moments = input_moments(context_of(model), encoder_blocks(model))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    again = input_moments(context_of(model), encoder_blocks(model))  # no dropout
    for name, each in moments.items():
        assert torch.equal(each.products, again[name].products)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_part_in_what_is_read(kind):
    """The same texts, each alone and without padding, have the same moments."""
    model = make_encoder(kind)
    blocks, padded, alone = encoder_blocks(model), context_of(model), context_of(model)
    single = [
        {name: values[row : row + 1, :length] if values.dim() == 2 else values[row : row + 1]
         for name, values in batch.items()}
        for batch in texts(MOMENT_BATCHES) for row, length in enumerate(batch["attention_mask"].sum(1))
    ]  # fmt: skip
    alone.gradient_batches = lambda *_: iter(single)
    for batch in single[::2]:  # a call without a mask, after one with a mask
        del batch["attention_mask"]
    found, expected = input_moments(padded, blocks), input_moments(alone, blocks)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in texts(MOMENT_BATCHES))
    for name, each in found.items():
        everything = torch.ones(len(each.total), dtype=torch.bool)
        assert each.count == expected[name].count == tokens
        torch.testing.assert_close(
            each.second(everything, False), expected[name].second(everything, False), atol=1e-5, rtol=1e-4
        )


def test_a_mask_is_found_among_positional_arguments_and_encoders_may_leave_padding_out_themselves():
    class Encoder(nn.Module):
        def forward(self, input_ids, attention_mask=None):
            return input_ids

    tokens, mask = TokenFilter(), torch.tensor([[1, 1, 0], [1, 0, 0]])
    inputs = torch.arange(12.0).view(2, 3, 2)
    assert len(tokens.real_tokens(inputs)) == 6
    tokens.read_mask(Encoder(), (mask, mask), {})
    assert torch.equal(tokens.real_tokens(inputs), torch.stack([inputs[0, 0], inputs[0, 1], inputs[1, 0]]))
    assert torch.equal(tokens.real_tokens(inputs.view(6, 2)), tokens.real_tokens(inputs))
    assert len(tokens.real_tokens(inputs[0])) == 3  # the three real tokens, without padding
    tokens.read_mask(Encoder(), (mask,), {})
    assert len(tokens.real_tokens(inputs)) == 6


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_repaired_outputs_are_the_best_that_is_left(kind):
    """By least squares on the same inputs, with a constant where the Linear has a bias (ModernBERT's have none)."""
    model = make_encoder(kind, layers=1)
    [block] = encoder_blocks(model)
    down = linear_at(model, block.down)
    with torch.no_grad():
        for up in block.ups:
            linear_at(model, up).weight.mul_(30)
        if down.bias is not None:
            linear_at(model, block.ups[0]).bias.fill_(1.0)
    read = []
    hook = down.register_forward_pre_hook(lambda module, args: read.append(args[0].detach()))
    context = context_of(model)
    moments = input_moments(context, [block])
    hook.remove()
    mask = torch.cat([batch["attention_mask"].flatten() for batch in texts(MOMENT_BATCHES)]).bool()
    inputs = torch.cat([each.flatten(0, -2) for each in read])[mask].double()
    with torch.no_grad():
        before = nn.functional.linear(inputs, down.weight.double(), None if down.bias is None else down.bias.double())
    masks = {block.name: (torch.ones(2).bool(), torch.ones(16).bool())}
    kept = remove_with_repair(context, [block], masks, moments, [(2, 10)], 1)
    assert kept[block.name][0].all()
    alive = kept[block.name][1]
    assert int(alive.sum()) == 10
    assert not down.weight[:, ~alive].any()
    with torch.no_grad():
        after = nn.functional.linear(inputs, down.weight.double(), None if down.bias is None else down.bias.double())
    design = inputs[:, alive]
    if down.bias is not None:
        design = torch.cat([design, torch.ones(len(inputs), 1).double()], 1)
    best = design @ torch.linalg.lstsq(design, before, driver="gelsd").solution
    error, least = (before - after).square().sum(), (before - best).square().sum()
    assert least <= error <= 1.5 * least + 1e-12  # the damping is between them


def test_a_bias_takes_up_what_is_constant():
    module = nn.Linear(3, 2).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        module.bias.zero_()
    moments = InputMoments.of_width(3)
    moments.add(torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 0.0]]))
    after = module.weight.detach().clone()
    after[:, 1] = 0
    write_repaired(module, after, torch.ones(3, dtype=torch.bool), moments)
    torch.testing.assert_close(module.bias.detach(), torch.tensor([10.0, 25.0]).double())


def test_zeros_of_other_pruning_stay():
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight[0, 1] = 0
    moments = InputMoments.of_width(4)
    moments.add(torch.randn(5, 4))
    write_repaired(module, torch.ones(2, 3), torch.tensor([True, True, False, True]), moments)
    assert module.weight[0].tolist()[:2] == [1.0, 0.0]
    assert module.weight[1, 3] == 1.0
    other = MagnitudePruning(final_sparsity=0.5, end="20%", update_frequency=0.0)
    this, _ = attach_obs(others={"prune": other})
    other.attach(this)
    for number in range(10):
        this.modifier_list.before_step(this)
        take_rest(this, number)
        other.check(this)


def take_rest(this: Any, number: int) -> None:
    """The rest of a step after ``before_step``."""
    this.model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
    this.modifier_list.before_update(this)
    this.modifier_list.after_update(this)
    this.modifier_list.check(this)
    this.progress.step = number + 1


def test_what_can_be_told_from_others_goes_first():
    """In the second layer every neuron is there twice: half of them cost nothing, in no other layer."""
    model = make_encoder("Bert")
    blocks = encoder_blocks(model)
    with torch.no_grad():
        for block in blocks:
            linear_at(model, block.ups[0]).weight.normal_(std=2.0)
        up = linear_at(model, blocks[1].ups[0])
        up.weight[8:], up.bias[8:] = up.weight[:8], up.bias[:8]
        before = model(**BATCH).logits
    context = context_of(model)
    moments = input_moments(context, blocks)
    masks = {block.name: (torch.ones(2).bool(), torch.ones(16).bool()) for block in blocks}
    scores = relative_errors(model, blocks, masks, moments, 1)
    halves = [float(scores[block.name][1].sort().values[:8].sum()) for block in blocks]
    assert halves[1] < 0.01 < 0.03 < min(halves[:1] + halves[2:])
    sizes = [(2, 8 if block is blocks[1] else 16) for block in blocks]
    kept = remove_with_repair(context, blocks, masks, moments, sizes, 1)
    neurons = kept[blocks[1].name][1]
    assert (neurons[:8] ^ neurons[8:]).all()  # one of each pair
    with torch.no_grad():
        for block in blocks:
            for name, (_, columns) in block.linear_masks(*kept[block.name]).items():
                if columns is not None:
                    assert not linear_at(model, name).weight[:, ~columns].any()
        torch.testing.assert_close(model(**BATCH).logits, before, atol=2e-2, rtol=0)


def test_scores_grow_in_the_order_of_removal_and_are_parts_of_a_whole():
    model = make_encoder("Bert", layers=1)
    [block] = encoder_blocks(model)
    masks = {block.name: (torch.ones(2).bool(), torch.arange(16) % 3 > 0)}
    [(heads, neurons)] = relative_errors(model, [block], masks, input_moments(context_of(model), [block]), 4).values()
    assert (heads > 0).all()
    assert not neurons[::3].any()
    assert (neurons[masks[block.name][1]] > 0).all()
    assert heads.sum() >= 0.999  # no less than all of the error: no group is worth less than those before it


def test_the_choice_is_the_same_again():
    runs = []
    for _ in range(2):
        this, modifier = attach_obs(global_sparsity=True)
        for number in range(6):
            take_step(this, modifier, number)
        runs.append((this, modifier))
    (this, modifier), (again, other) = runs
    for name, pair in modifier.masks.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, other.masks[name], strict=True))
    # A run that continues has nothing but weights and state.
    model = make_encoder("Bert", seed=7)
    continued, third = attach_obs(model, global_sparsity=True)
    model.load_state_dict(this.model.state_dict())
    third.load_state_dict(modifier.state_dict())
    continued.progress.step = 6
    for number in range(6, 10):
        take_step(again, other, number)
        take_step(continued, third, number)
    for name, values in again.model.state_dict().items():
        assert torch.equal(values, model.state_dict()[name])


def test_all_processes_have_what_the_first_one_found():
    model = make_encoder("Bert", layers=1)
    [block] = encoder_blocks(model)
    context = context_of(model)
    context.accelerator.num_processes = 2
    context.broadcast = torch.zeros_like
    masks = {block.name: (torch.ones(2).bool(), torch.ones(16).bool())}
    kept = remove_with_repair(context, [block], masks, input_moments(context, [block]), [(1, 8)], 1)
    assert not any(mask.any() for mask in kept[block.name])
    assert not linear_at(model, block.down).weight.any()
    assert not linear_at(model, block.down).bias.any()


def test_a_loop_gives_its_batches():
    recipe = StructuredPruning(final_sparsity=0.3, multiple=4, start="1 step", end="50%", score="obs")
    model = make_encoder("Bert")
    with pytest.raises(UserError, match=r"needs training data of its own beside the loop: give batches=LOADER"):
        Sparsifier(recipe, model, torch.optim.AdamW(model.parameters()), steps_per_epoch=8, epochs=1)
    batches = texts(8)
    sparsifier = Sparsifier(
        recipe, model, torch.optim.AdamW(model.parameters()), steps_per_epoch=8, epochs=1, batches=batches
    )
    for batch in batches:
        model(**batch).loss.backward()
        sparsifier.step()
    sparsifier.finalize()
    assert all(size < (2, 16) for size in sizes_of(model))


def test_diverged_training_is_no_ground_for_a_choice():
    this, modifier = attach_obs()
    take_step(this, modifier)
    linear_at(this.model, modifier.blocks[2].down).weight.data[0, 0] = torch.nan
    this.progress.step = 9  # the last update removes what is left to remove
    with pytest.raises(UserError, match=r"StructuredPruning: bert\.encoder\.layer\.2.* not finite: training has div"):
        modifier.before_step(this)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StructuredPruning(final_sparsity=0.5, score="obd"), r"score=obd: expected one of .*, magnitude, obs"),
        (
            lambda: StructuredPruning(final_sparsity=0.5, score="obs", global_sparsity=True, layers=True),
            "layers=true: score=obs has no score for a whole layer. Write score=second_order",
        ),
        (
            lambda: EmbeddingPruning(final_sparsity=0.5, score="obs"),
            r"score=obs: expected one of first_order, second_order, magnitude\.",
        ),
    ],
)
def test_values_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
