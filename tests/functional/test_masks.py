"""Schedules, masks, selectors and measurement against numbers worked out by hand.

Some of the expected values were recorded from SparseML 1.x: the comments say which.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
)

from sparse_xp.errors import UserError
from sparse_xp.functional.masks import global_masks, magnitude_scores, mask_from_scores
from sparse_xp.functional.patterns import Pattern, check_n_m, parse_mask_type
from sparse_xp.functional.schedules import RAMPS, ramp, scheduled_sparsity
from sparse_xp.functional.selection import select_parameters
from sparse_xp.functional.sparsity import count_zeros, measure_sparsity

UNSTRUCTURED = Pattern()


def bits(mask: Tensor) -> str:
    """``10 / 01`` for a 2 x 2 mask, ``10`` for a vector."""
    assert mask.dtype == torch.bool
    return " / ".join("".join(str(int(bit)) for bit in row) for row in mask.reshape(-1, mask.shape[-1]))


def tiny_bert(num_layers: int = 2) -> BertConfig:
    return BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
    )


@pytest.fixture
def qa_model() -> BertForQuestionAnswering:
    return BertForQuestionAnswering(tiny_bert())


# Schedules


@pytest.mark.parametrize(
    ("inter_func", "epoch", "expected"),
    [
        ("cubic", 2, 0.0),
        ("cubic", 5, 0.2949074074),
        ("cubic", 6.5, 0.4046875),
        ("cubic", 11, 0.6125),
        ("cubic", 15.5, 0.6890625),
        ("cubic", 19.99, 0.6999999999),
        ("cubic", 20, 0.7),
        ("linear", 5, 0.1166666667),
        ("linear", 11, 0.35),
        ("inverse_cubic", 5, 0.0412747798),
        ("inverse_cubic", 11, 0.1444096318),
    ],
)
def test_schedule_from_0_to_70_percent_over_epochs_2_to_20(inter_func, epoch, expected):  # recorded from SparseML 1.x
    assert scheduled_sparsity(inter_func, 0.0, 0.7, (epoch - 2) / 18) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("final", "expected"),
    [
        (0.9, [0.7, 0.7842592593, 0.8407407407, 0.875, 0.8925925926, 0.8990740741, 0.9]),
        (0.97, [0.7, 0.81375, 0.89, 0.93625, 0.96, 0.96875, 0.97]),
    ],
)
def test_schedule_of_the_obert_recipes(final, expected):  # recorded from SparseML 1.x: epochs 2, 6, ..., 26
    values = [scheduled_sparsity("cubic", 0.7, final, (epoch - 2) / 24) for epoch in range(2, 27, 4)]
    assert values == pytest.approx(expected, abs=1e-10)


def test_schedule_of_the_masked_lm_recipe_and_of_a_short_one():  # recorded from SparseML 1.x
    values = [scheduled_sparsity("cubic", 0.7, 0.9, epoch / 2.75) for epoch in (0.25, 0.5, 1.0)]
    assert values == pytest.approx([0.7497370398, 0.790458302, 0.8484598047], abs=1e-10)
    values = [scheduled_sparsity("cubic", 0.0, 0.75, x) for x in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([0.0, 0.43359375, 0.65625, 0.73828125, 0.75], abs=1e-15)


@pytest.mark.parametrize("inter_func", RAMPS)
def test_schedule_lands_exactly_and_stays(inter_func):
    init, final = 0.3, 0.9
    assert init + (final - init) != final  # so the formula alone would miss
    assert [scheduled_sparsity(inter_func, init, final, x) for x in (-0.5, 0.0)] == [init, init]
    assert [scheduled_sparsity(inter_func, init, final, x) for x in (1.0, 1.5)] == [final, final]


@pytest.mark.parametrize("inter_func", RAMPS)
def test_ramps_rise_from_0_to_1_and_are_clamped(inter_func):  # in SparseML inverse_cubic(1.5) was a complex number
    values = [ramp(inter_func, x / 10) for x in range(-2, 13)]
    assert values[:3] == [0.0, 0.0, 0.0]
    assert values[-3:] == [1.0, 1.0, 1.0]
    assert all(low < high for low, high in pairwise(values[2:-2]))


def test_unknown_ramp_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'quadratic'; expected one of cubic, linear, inverse_cubic"):
        scheduled_sparsity("quadratic", 0.0, 0.8, 0.5)


# Mask types


@pytest.mark.parametrize(
    ("mask_type", "expected"),
    [
        ("unstructured", Pattern(kind="unstructured")),
        ("block4", Pattern(kind="block", rows=1, cols=4, pad=True)),
        ([1, 4], Pattern(kind="block", rows=1, cols=4)),
        ((4, 1), Pattern(kind="block", rows=4, cols=1)),
        ([16, 8], Pattern(kind="block", rows=16, cols=8)),
        ("[1, 4]", Pattern(kind="block", rows=1, cols=4)),
        ("32x16", Pattern(kind="block", rows=32, cols=16)),
        ("2:4", Pattern(kind="n_m", n=2, m=4)),
        ("1 : 16", Pattern(kind="n_m", n=1, m=16)),
    ],
)
def test_mask_types(mask_type, expected):
    assert parse_mask_type(mask_type) == expected


@pytest.mark.parametrize(
    "mask_type",
    [
        "channel",
        "filter",
        "block",
        "",
        "4:2",
        "4:4",
        "0:4",
        "2:4:8",
        "0x4",
        [4],
        [1, 0],
        [1, -4],
        [1, 4, 1],
        [1.5, 4],
    ],
)
def test_other_mask_types_are_refused_with_the_list(mask_type):
    with pytest.raises(ValueError, match=r"'unstructured', 'block4', .*'2:4'.*structured pruning") as caught:
        parse_mask_type(mask_type)
    assert repr(mask_type) in str(caught.value)


def test_n_m_fixes_the_final_sparsity():
    two_of_four, one_of_four = parse_mask_type("2:4"), parse_mask_type("1:4")
    check_n_m(two_of_four, 0.5)
    check_n_m(two_of_four, 0.51)
    check_n_m(one_of_four, 0.74)
    check_n_m(UNSTRUCTURED, 0.9)
    with pytest.raises(ValueError, match=r"'2:4' keeps 2 of every 4 inputs, .* must be 0.5, not 0.8"):
        check_n_m(two_of_four, 0.8)
    with pytest.raises(ValueError, match=r"must be 0.75, not 0.73"):
        check_n_m(one_of_four, 0.73)


# Masks

W = torch.tensor(
    [
        [0.9, -0.1, 0.2, 0.3, 0.05, 0.05, 0.05, 0.05],
        [0.4, 0.4, 0.4, 0.4, -1.0, 0.0, 0.0, 0.0],
        [0.01, 0.02, 0.03, 0.04, 0.5, 0.5, 0.5, 0.6],
        [0.3, -0.3, 0.3, -0.3, 0.2, 0.2, 0.2, 0.2],
    ]
)


@pytest.mark.parametrize(
    ("mask_type", "sparsity", "expected"),
    [
        ("unstructured", 0.5, "10110000 / 11111000 / 00001111 / 11110000"),
        ("block4", 0.5, "11110000 / 11110000 / 00001111 / 11110000"),
        ([1, 4], 0.5, "11110000 / 11110000 / 00001111 / 11110000"),
        ([4, 1], 0.5, "10111000 / 10111000 / 10111000 / 10111000"),
        ("2:4", 0.5, "10010011 / 00111001 / 00110011 / 00110011"),
        ("1:4", 0.75, "10000001 / 00011000 / 00010001 / 00010001"),
        # 3.5 and 4.5 of the 8 blocks both round to 4.
        ([1, 4], 0.4375, "11110000 / 11110000 / 00001111 / 11110000"),
        ([1, 4], 0.5625, "11110000 / 11110000 / 00001111 / 11110000"),
        # 2.0, 2.4 and 2.5 blocks: the two with means .025 (row 2) and .05 (row 0).
        ([1, 4], 0.25, "11110000 / 11111111 / 00001111 / 11111111"),
        ([1, 4], 0.3, "11110000 / 11111111 / 00001111 / 11111111"),
        ([1, 4], 0.3125, "11110000 / 11111111 / 00001111 / 11111111"),
    ],
)
def test_masks_of_sparseml(mask_type, sparsity, expected):  # recorded from SparseML 1.x
    assert bits(mask_from_scores(magnitude_scores(W), sparsity, parse_mask_type(mask_type))) == expected


@pytest.mark.parametrize(
    ("mask_type", "expected"),
    [
        ([2, 4], "11110000 / 11110000 / 00001111 / 00001111"),  # tile means .3875 .15 / .1625 .3625
        ([4, 4], "11110000 / 11110000 / 11110000 / 11110000"),  # .275 .25625
    ],
)
def test_tiles_are_real_tiles(mask_type, expected):  # SparseML took runs of a*b elements in row-major order
    assert bits(mask_from_scores(magnitude_scores(W), 0.5, parse_mask_type(mask_type))) == expected


@pytest.mark.parametrize(("sparsity", "pruned"), [(0.1, 0), (0.3, 2), (0.5, 2), (0.7, 4), (0.9, 4)])
def test_halves_round_to_even(sparsity, pruned):  # recorded from SparseML 1.x
    assert count_zeros(mask_from_scores(torch.arange(5.0), sparsity, UNSTRUCTURED)) == pruned


@pytest.mark.parametrize(
    ("scores", "sparsity", "mask_type", "expected"),
    [
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.5, "unstructured", "00011011"),
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.625, "unstructured", "00010011"),
        # Threshold = minimum: SparseML draws lots here (001..., 10000111), we keep the earliest as elsewhere.
        ([1, 1, 1, 2, 2, 2, 3, 3], 0.25, "unstructured", "10011111"),
        ([0, 0, 0, 0, 0, 0, 1, 2], 0.5, "unstructured", "11000011"),
        ([1, 2, 3, 4, 5, 6], 0.5, "block4", "000011"),
        ([9, 9, 9, 9, 0, 1], 0.5, "block4", "111100"),
        ([1, 2, 3], 0.0, "block4", "111"),
        ([1, 2, 3], 1.0, "block4", "000"),
    ],
)
def test_ties_and_remainders(scores, sparsity, mask_type, expected):  # recorded from SparseML 1.x
    mask = mask_from_scores(torch.tensor([scores]), sparsity, parse_mask_type(mask_type))
    assert bits(mask) == expected


@pytest.mark.parametrize("mask_type", ["unstructured", "block4", [2, 4], [4, 1]])
def test_sparsity_0_keeps_all_and_1_keeps_none(mask_type):
    pattern = parse_mask_type(mask_type)
    assert mask_from_scores(torch.zeros(4, 8), 0.0, pattern).all()
    assert not mask_from_scores(torch.ones(4, 8), 1.0, pattern).any()


def test_n_m_comes_at_once_when_the_schedule_leaves_0():
    pattern = parse_mask_type("2:4")
    assert bits(mask_from_scores(W, 0.0, pattern)[:1]) == "11111111"
    assert bits(mask_from_scores(W.abs(), 0.01, pattern)[:1]) == "10010011"


def test_scores_may_be_negative_or_infinite():
    scores = torch.tensor([-0.005, float("-inf"), 0.02, float("inf"), float("-inf"), -3.0])
    assert bits(mask_from_scores(scores, 0.5, UNSTRUCTURED)) == "101100"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_magnitude_scores_are_float32(dtype):
    weight = nn.Parameter(torch.tensor([-2.0, 0.5, -0.0], dtype=dtype))
    scores = magnitude_scores(weight)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores.tolist() == [2.0, 0.5, 0.0]


def test_one_threshold_over_all_tensors():
    scores = {"a": torch.tensor([1.0, 2, 3, 4]), "b": torch.tensor([0.1, 0.2, 0.3, 10])}
    masks = global_masks(scores, 0.5, UNSTRUCTURED)
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "0111", "b": "0001"}


def test_global_blocks_are_scored_before_they_are_compared():
    # Block means 1 and 7.5 against 2 and 3, of different shapes; the single 30 saves its whole block.
    scores = {"a": torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 30]]), "b": torch.tensor([[2.0] * 4, [3.0] * 4])}
    masks = global_masks(scores, 0.75, parse_mask_type([1, 4]))
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "00001111", "b": "0000 / 0000"}


def test_global_n_m_and_no_tensors():
    masks = global_masks({"a": W.abs()[:1], "b": W.abs()[1:2]}, 0.5, parse_mask_type("2:4"))
    assert {name: bits(mask) for name, mask in masks.items()} == {"a": "10010011", "b": "00111001"}
    assert global_masks({}, 0.5, UNSTRUCTURED) == {}


def test_global_masks_do_not_share_storage():
    masks = global_masks({"a": torch.rand(4), "b": torch.rand(1000)}, 0.5, UNSTRUCTURED)
    assert masks["a"].untyped_storage().nbytes() == 4


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, 80, float("nan")])
def test_sparsity_is_a_fraction(sparsity):
    with pytest.raises(ValueError, match=r"expected a fraction in \[0, 1\]"):
        mask_from_scores(W, sparsity, UNSTRUCTURED)


@pytest.mark.parametrize("mask_type", ["unstructured", "block4", [2, 4], "2:4"])
def test_nan_is_an_error_at_any_sparsity(mask_type):
    scores = W.clone()
    scores[1, 6] = float("nan")
    with pytest.raises(ValueError, match=r"'layer\.weight' hold NaN: its weights hold NaN"):
        global_masks({"layer.weight": scores}, 0.0, parse_mask_type(mask_type))


@pytest.mark.parametrize(
    ("shape", "mask_type", "message"),
    [
        ((4, 6), [1, 4], r"shape \(4, 6\) .*blocks \[1, 4\]"),
        ((6, 4), [4, 1], r"shape \(6, 4\) .*blocks \[4, 1\]"),
        ((4, 6), "2:4", r"shape \(4, 6\) .*'2:4'"),
        ((8,), [1, 4], r"shape \(8,\)"),
        ((8,), "block4", r"shape \(8,\)"),
        ((8, 4, 3, 3), "2:4", r"shape \(8, 4, 3, 3\)"),
    ],
)
def test_shapes_that_a_pattern_does_not_divide(shape, mask_type, message):
    with pytest.raises(ValueError, match=message):
        mask_from_scores(torch.rand(shape), 0.5, parse_mask_type(mask_type))


# Masks of random tensors against the rule written as plain Python


def kept_by_rule(scores: list[float], sparsity: float) -> list[bool]:
    """Sort by score, equal scores from the last index to the first, and prune from the front."""
    order = sorted(range(len(scores)), key=lambda index: (scores[index], -index))
    pruned = set(order[: round(len(scores) * sparsity)])
    return [index not in pruned for index in range(len(scores))]


def draws(count: int):
    """Seeded (tensor maker, sparsity) pairs; few distinct scores, so that ties are the rule."""
    dice = random.Random(20170817)
    for _ in range(count):
        generator = torch.Generator().manual_seed(dice.randrange(2**31))
        levels = dice.choice([1, 2, 5, 1000])
        sparsity = dice.choice([dice.random(), dice.randrange(17) / 16])
        yield (
            dice.randint(1, 9),
            dice.randint(1, 9),
            sparsity,
            lambda *shape, g=generator, high=levels: torch.randint(-high, high, shape, generator=g).float(),
        )


def test_unstructured_masks_follow_the_rule():
    for rows, cols, sparsity, make in draws(150):
        scores = make(rows, cols)
        mask = mask_from_scores(scores, sparsity, UNSTRUCTURED)
        assert count_zeros(mask) == round(rows * cols * sparsity)
        assert mask.flatten().tolist() == kept_by_rule(scores.flatten().tolist(), sparsity)


@pytest.mark.parametrize(("height", "width"), [(1, 4), (4, 1), (2, 3), (16, 16)])
def test_block_masks_follow_the_rule(height, width):
    for down, across, sparsity, make in draws(60):
        scores = make(down * height, across * width)
        tiles = [
            scores[i * height : (i + 1) * height, j * width : (j + 1) * width]
            for i in range(down)
            for j in range(across)
        ]
        kept = kept_by_rule([tile.sum().item() for tile in tiles], sparsity)
        expected = torch.tensor(kept).view(down, across).kron(torch.ones(height, width, dtype=torch.bool))
        mask = mask_from_scores(scores, sparsity, parse_mask_type([height, width]))
        assert count_zeros(mask) == round(down * across * sparsity) * height * width
        assert torch.equal(mask, expected)


def test_block4_masks_of_any_width_follow_the_rule():
    for rows, cols, sparsity, make in draws(150):
        scores = make(rows, cols)
        blocks = [block for row in scores for block in row.split(4)]
        kept = kept_by_rule([block.mean().item() for block in blocks], sparsity)
        expected = torch.cat([torch.full_like(block, keep) for block, keep in zip(blocks, kept, strict=True)])
        mask = mask_from_scores(scores, sparsity, parse_mask_type("block4"))
        assert mask.flatten().tolist() == expected.bool().tolist()


def test_global_masks_follow_the_rule():
    for rows, cols, sparsity, make in draws(100):
        scores = {"a": make(rows, cols), "b": make(cols), "c": make(3, rows)}
        masks = global_masks(scores, sparsity, UNSTRUCTURED)
        assert [(name, mask.shape) for name, mask in masks.items()] == [(n, s.shape) for n, s in scores.items()]
        joined = torch.cat([each.flatten() for each in scores.values()])
        kept = torch.cat([each.flatten() for each in masks.values()])
        assert kept.tolist() == kept_by_rule(joined.tolist(), sparsity)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_n_m_masks_keep_the_highest_n_of_every_m(n, m):
    for rows, runs, _, make in draws(60):
        scores = make(rows, runs * m)
        mask = mask_from_scores(scores, 1 - n / m, parse_mask_type(f"{n}:{m}"))
        for values, kept in zip(scores.view(-1, m).tolist(), mask.view(-1, m).tolist(), strict=True):
            highest = sorted(range(m), key=lambda index: (values[index], index))[m - n :]
            assert [index for index in range(m) if kept[index]] == sorted(highest)


# Selectors

LAYER_WEIGHTS = [
    "attention.self.query.weight",
    "attention.self.key.weight",
    "attention.self.value.weight",
    "attention.output.dense.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
]


def test_encoder_token_selects_the_six_linears_of_each_layer_in_order(qa_model):
    selected = select_parameters(qa_model, ["__ENCODER__"])
    assert list(selected) == [f"bert.encoder.layer.{i}.{name}" for i in (0, 1) for name in LAYER_WEIGHTS]
    assert selected["bert.encoder.layer.1.output.dense.weight"] is qa_model.bert.encoder.layer[1].output.dense.weight


def test_encoder_token_knows_a_bare_encoder_and_distilbert():
    assert len(select_parameters(BertModel(tiny_bert()), ["__ENCODER__"])) == 12
    config = DistilBertConfig(vocab_size=100, dim=32, hidden_dim=64, n_layers=3, n_heads=2)
    distilbert = DistilBertForQuestionAnswering(config)
    selected = list(select_parameters(distilbert, ["__ENCODER__"]))
    assert len(selected) == 18
    assert selected[0] == "distilbert.transformer.layer.0.attention.q_lin.weight"


@pytest.mark.parametrize(
    ("model_class", "beyond_the_encoder"),
    [
        (BertForQuestionAnswering, ["qa_outputs.weight"]),
        (BertForSequenceClassification, ["bert.pooler.dense.weight", "classifier.weight"]),
        (BertForMaskedLM, ["cls.predictions.transform.dense.weight", "cls.predictions.decoder.weight"]),
    ],
)
def test_all_prunable_adds_pooler_and_head(model_class, beyond_the_encoder):
    model = model_class(tiny_bert())
    selected = select_parameters(model, ["__ALL_PRUNABLE__"])
    assert list(selected)[:12] == list(select_parameters(model, ["__ENCODER__"]))
    assert list(selected)[12:] == beyond_the_encoder


def test_tied_decoder_is_the_word_embedding():
    model = BertForMaskedLM(tiny_bert())
    embedding = model.bert.embeddings.word_embeddings.weight
    assert select_parameters(model, ["__ALL_PRUNABLE__"])["cls.predictions.decoder.weight"] is embedding
    names = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
    assert list(select_parameters(model, names)) == ["bert.embeddings.word_embeddings.weight"]


def test_all_prunable_knows_convolutions_and_a_bare_linear():
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.LayerNorm(2), nn.Embedding(2, 2))
    assert list(select_parameters(model, ["__ALL_PRUNABLE__"])) == ["0.weight", "1.weight"]
    assert list(select_parameters(nn.Linear(2, 2), ["__ALL_PRUNABLE__"])) == ["weight"]


def test_all_means_all(qa_model):
    everything = [name for name, _ in qa_model.named_parameters()]
    assert list(select_parameters(qa_model, ["__ALL__"])) == everything
    assert list(select_parameters(qa_model, ["re:.*"])) == everything
    assert "bert.encoder.layer.0.output.LayerNorm.bias" in everything


def test_tokens_in_any_case_and_as_a_bare_string(qa_model):
    expected = list(select_parameters(qa_model, ["__ALL_PRUNABLE__"]))
    assert list(select_parameters(qa_model, ["__all_prunable__"])) == expected
    assert list(select_parameters(qa_model, "__All_Prunable__")) == expected


def test_regex_is_anchored_at_the_start_only():
    model = BertForQuestionAnswering(tiny_bert(num_layers=12))
    selected = select_parameters(model, ["re:bert.encoder.layer.1."])
    assert {name.split(".")[3] for name in selected} == {"1", "10", "11"}
    assert len(selected) == 48
    assert len(select_parameters(model, ["re:bert.encoder.layer.*.output.dense.weight"])) == 24
    some = "re:bert.encoder.layer.([0,2,4,6,8]|11).attention.self.query.weight"
    assert len(select_parameters(model, [some])) == 6


def test_overlapping_patterns_give_each_tensor_once(qa_model):
    patterns = [f"re:bert.encoder.layer.*.{name}" for name in reversed(LAYER_WEIGHTS)]
    assert list(select_parameters(qa_model, patterns)) == list(select_parameters(qa_model, ["__ENCODER__"]))
    assert select_parameters(qa_model, []) == {}


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("qa_output.weight", "Did you mean 'qa_outputs.weight'?"),
        ("re:qa_output.weight", "Did you mean 'qa_outputs.weight'?"),
        ("__ALL_PRUNEABLE__", "Did you mean '__ALL_PRUNABLE__'?"),
        ("bert.*.weight", "write 're:bert.*.weight'"),
        ("re:encoder.*", "matched from the start of the name: write 're:.*encoder.*'"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_to_write(qa_model, pattern, hint):
    with pytest.raises(UserError) as caught:
        select_parameters(qa_model, ["__ENCODER__", pattern])
    assert f"No parameter matches '{pattern}'." in str(caught.value)
    assert hint in str(caught.value)


def test_encoder_token_on_a_model_without_encoder_layers():
    with pytest.raises(UserError, match=r"No parameter matches '__ENCODER__'\. Name the parameters"):
        select_parameters(nn.Sequential(nn.Linear(2, 2)), ["__ENCODER__"])


def test_invalid_regex_is_a_user_error(qa_model):
    with pytest.raises(UserError, match=r"'re:bert\.\(encoder' is not a valid regular expression: missing \)"):
        select_parameters(qa_model, ["re:bert.(encoder"])


# Measurement. In a layer of the tiny BERT 4*32*32 + 2*32*64 = 8192 weights are prunable; 4*32 + 64 + 32 = 224
# biases and 2*64 LayerNorm values, so 8544 in all; embeddings (100 + 16 + 2)*32 + 64 = 3840; QA head 66.
# The model: 2*8544 + 3840 + 66 = 20994.


@torch.no_grad()
def fill_with_ones(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.fill_(1.0)


@torch.no_grad()
def test_measure_states_three_denominators(qa_model):
    fill_with_ones(qa_model)
    layer = qa_model.bert.encoder.layer[0]
    layer.attention.self.query.weight.zero_()  # 1024 of 16384 prunable
    layer.output.dense.weight[:, :16] = 0  # 32 * 16 = 512 more
    layer.output.dense.bias.zero_()  # 32, not prunable but in the encoder
    qa_model.qa_outputs.weight[0, :5] = 0  # 5, in neither
    report = measure_sparsity(qa_model)
    assert report.prunable == 1536 / 16384
    assert report.encoder == 1568 / 17088
    assert report.model == 1573 / 20994
    assert len(report.layers) == 12
    assert {name: level for name, level in report.layers.items() if level} == {
        "bert.encoder.layer.0.attention.self.query.weight": 1.0,
        "bert.encoder.layer.0.output.dense.weight": 0.25,
    }
    assert measure_sparsity(qa_model, select_parameters(qa_model, ["__ALL_PRUNABLE__"])).prunable == 1541 / (16384 + 64)
    assert measure_sparsity(qa_model, "qa_outputs.weight").layers == {"qa_outputs.weight": 5 / 64}


@torch.no_grad()
def test_measure_counts_a_tied_tensor_once():
    model = BertForMaskedLM(tiny_bert())
    fill_with_ones(model)
    model.bert.embeddings.word_embeddings.weight.zero_()
    # 20994 without the QA head's 66, plus transform 32*32 + 32 + LayerNorm 64 and 100 output biases.
    assert measure_sparsity(model).model == 3200 / 22148
    tied = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
    assert measure_sparsity(model, tied).prunable == 1.0


def test_measure_without_encoder_layers():
    model = nn.Linear(2, 2)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    report = measure_sparsity(model, ["weight"])
    assert (report.prunable, report.model) == (0.0, 2 / 6)
    assert report.encoder != report.encoder  # NaN: nothing to count


def test_zeros_are_exact():
    assert count_zeros(torch.tensor([0.0, -0.0, 1e-45, 1.0, float("nan")])) == 2
    assert count_zeros(nn.Parameter(torch.zeros(2, 3))) == 6
