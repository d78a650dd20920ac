"""What modifiers say of themselves to the viewer, the progress line and the report."""

from __future__ import annotations

import pytest

from sparse_xp.clock import Clock
from sparse_xp.modifiers import MODIFIERS, Distillation, LearningRate, MagnitudePruning, Quantization, WeightDecay
from sparse_xp.modifiers.display import HOLDS, Display, Span, held_spans, logged_numbers, progress_text
from sparse_xp.modifiers.modifier_list import ModifierList, WindowError

CLOCK = Clock(steps_per_epoch=10, total_steps=60)
EVERY = logged_numbers(kind.logged for kind in MODIFIERS.values())


def test_numbers_come_in_one_order_whatever_the_modifiers():
    names = [number.name for number in EVERY]
    assert names == (
        "loss loss_task loss_distillation loss_layers loss_attention lr sparsity threshold removed speedup quantized "
        "grad_norm loss_scale skipped".split()
    )
    assert len({number.order for number in EVERY}) == len(EVERY)
    some = logged_numbers([Quantization.logged, LearningRate.logged, LearningRate.logged])
    assert [number.name for number in some] == ["loss", "lr", "quantized", "grad_norm", "loss_scale", "skipped"]


def test_the_progress_line_leaves_out_what_it_does_not_show():
    line = {"quantized": 0.0, "lr": 3e-5, "loss": 0.43125, "grad_norm": 2.0, "removed": 0.5, "sparsity": 0.0}
    assert progress_text(line, EVERY) == "loss 0.4313  lr 3.00e-05  sparsity 0.0%"
    assert progress_text({"loss": 1.0, "quantized": 8.0, "loss_task": 2.0}, EVERY) == "loss 1.0000  task 2.0000  int8"


@pytest.mark.parametrize(
    ("window", "options", "spans"),
    [
        ((1.0, 3.0), {}, [(1, 3, "="), (3, 6, "-")]),
        ((1.0, 3.0), {"held": False}, [(1, 3, "=")]),
        ((1.0, 5.9), {}, [(1, 6, "=")]),
        ((1.0, 5.9), {"by_steps": False}, [(1, 5.9, "="), (5.9, 6, "-")]),
    ],
)
def test_what_was_done_is_held_to_the_end(window, options, spans):
    assert held_spans(window, CLOCK, **options) == spans


def test_a_modifier_of_ones_own_is_drawn_without_saying_anything():
    assert WeightDecay.display == Display()
    assert WeightDecay(start=1, end=2).spans(CLOCK) == [Span(1, 2)]
    assert WeightDecay().levels_by_step(CLOCK) is None
    assert Quantization(start=2, observers_end=4).spans(CLOCK)[1] == (4, 6, HOLDS)


def test_fields_that_hold_patterns_are_fields():
    for kind in MODIFIERS.values():
        for name in (*kind.display.parameter_fields, *kind.display.module_fields):
            assert name in kind.__dataclass_fields__, (kind, name)


def test_an_impossible_window_names_its_modifier():
    with pytest.raises(WindowError, match=r"^GMPruning: MagnitudePruning: start=") as caught:
        ModifierList({"GMPruning": MagnitudePruning(final_sparsity=0.8, start=3, end=2)}, CLOCK)
    error = caught.value
    assert (error.modifier_name, error.other_name) == ("GMPruning", None)
    assert error.reason == "start=3 is not before end=2 in a run of 6 epochs."
    with pytest.raises(WindowError, match="overlap") as caught:
        ModifierList({"a": Distillation(end=3), "b": Distillation(start=2)}, CLOCK)
    assert (caught.value.modifier_name, caught.value.other_name) == ("a", "b")
    assert caught.value.reason == str(caught.value)
