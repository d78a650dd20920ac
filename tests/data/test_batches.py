"""Rows, features and batches: every row once, nothing padded further than needed, nothing tokenised twice."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from sparse_xp.data import batches as data_module
from sparse_xp.data.batches import (
    bucket_width,
    collate,
    epoch_batches,
    epoch_steps,
    evaluation_batches,
    pad_to_bucket,
    split_by_tokens,
    steps_per_epoch,
)
from sparse_xp.settings import Data, Train
from sparse_xp.tasks import QuestionAnswering
from sparse_xp.tasks.features import make_features
from sparse_xp.training.loop import steps_of_epoch
from tests.tiny import WORDS, make_run, make_tokenizer


def rows_of(steps: list[list[list[int]]]) -> list[int]:
    return [row for batches in steps for batch in batches for row in batch]


# The order of an epoch


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (12, 4, [4, 4, 4]), (3, 8, [3]), (1, 1, [1]), (150, 2, [2] * 75)],
)
def test_every_row_comes_once(rows, batch_size, sizes, grouped):
    batches = epoch_batches([5] * rows, batch_size, 42, grouped)
    assert sorted(map(len, batches), reverse=True) == sizes
    assert sorted(row for batch in batches for row in batch) == list(range(rows))


@pytest.mark.parametrize("grouped", [False, True])
def test_the_order_depends_on_the_seed_and_nothing_else(grouped):
    def order(seed: int) -> list[list[int]]:
        torch.rand(3)  # the global generator has no say
        return epoch_batches(range(50), 4, seed, grouped)

    orders = [order(42), order(43), order(44)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert [order(42), order(43), order(44)] == orders


@pytest.mark.parametrize("grouped", [False, True])
def test_drawing_an_order_leaves_the_global_generator_alone(grouped):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    epoch_batches(range(50), 4, 42, grouped)
    assert torch.get_rng_state().equal(before)


def test_rows_are_shuffled_whatever_their_lengths():
    batches = epoch_batches(range(20), 4, 42)
    assert batches == epoch_batches([7] * 20, 4, 42)
    assert batches != [list(range(i, i + 4)) for i in range(0, 20, 4)]


def test_grouped_rows_of_like_length_go_together_in_a_shuffled_order(monkeypatch):
    monkeypatch.setattr(data_module, "POOLS", 1)
    lengths = [7 * i % 20 for i in range(20)]  # each of 0 to 19 once
    batches = epoch_batches(lengths, 4, 42, grouped=True)
    found = [[lengths[row] for row in batch] for batch in batches]
    neighbours = [[19, 18, 17, 16], [15, 14, 13, 12], [11, 10, 9, 8], [7, 6, 5, 4], [3, 2, 1, 0]]
    assert sorted(found, reverse=True) == neighbours
    assert found != neighbours


@pytest.mark.parametrize(("rows", "pool"), [(200, 13), (1000, 50)])  # batches: an eighth of the epoch, 50 at most
def test_grouped_rows_are_sorted_in_pools_only(rows, pool):
    shuffled = epoch_batches(range(rows), 2, 42)
    pool_of = {row: i // pool for i, batch in enumerate(shuffled) for row in batch}
    for first, second in epoch_batches(range(rows), 2, 42, grouped=True):
        assert pool_of[first] == pool_of[second]  # so that not every epoch has the same batches


def test_rows_of_every_length_come_into_the_short_batch():
    """5 of 517 rows are in a batch of 5, where a row weighs 32 / 5 times as much as in the others."""
    lengths = [1 + row % 100 for row in range(517)]
    short = [
        row
        for seed in range(400)
        for batch in epoch_batches(lengths, 32, seed, True)
        if len(batch) == 5
        for row in batch
    ]
    assert len(short) == 2000
    mean = sum(lengths[row] for row in short) / 2000
    assert abs(mean - sum(lengths) / 517) < 3  # five standard errors: 29 / sqrt(2000) each
    counts = Counter(short)
    assert max(counts.values()) < 16  # 3.9 are expected of each row; the shortest had 400
    assert len(counts) > 480


def test_accumulation_groups_the_batches():
    batches = [[4, 2], [0, 1], [6, 3], [5, 8], [7]]
    assert epoch_steps(batches, 1) == [[[4, 2]], [[0, 1]], [[6, 3]], [[5, 8]], [[7]]]
    assert epoch_steps(batches, 2) == [[[4, 2], [0, 1]], [[6, 3], [5, 8]], [[7]]]
    assert epoch_steps(batches, 9) == [batches]


def test_two_processes_share_the_batches():
    batches = [[0], [1], [2], [3], [4], [5]]
    assert epoch_steps(batches, 1, rank=0, world=2) == [[[0]], [[2]], [[4]]]
    assert epoch_steps(batches, 1, rank=1, world=2) == [[[1]], [[3]], [[5]]]
    assert epoch_steps(batches, 2, rank=0, world=2) == [[[0], [2]], [[4]]]
    assert epoch_steps(batches, 2, rank=1, world=2) == [[[1], [3]], [[5]]]


def test_the_first_batches_fill_up_the_last_step():
    batches = [[0], [1], [2]]
    assert epoch_steps(batches, 1, rank=0, world=2) == [[[0]], [[2]]]
    assert epoch_steps(batches, 1, rank=1, world=2) == [[[1]], [[0]]]
    assert [epoch_steps([[8, 9]], 1, rank, world=4) for rank in range(4)] == [[[[8, 9]]]] * 4
    assert batches == [[0], [1], [2]]


GRID = [(16, 4, 1, 2), (10, 4, 1, 2), (10, 4, 2, 2), (22, 4, 2, 2), (3, 4, 1, 4), (100, 8, 4, 3), (100, 8, 4, 1)]


@pytest.mark.parametrize(("rows", "batch_size", "accumulation", "world"), GRID)
def test_all_processes_have_as_many_steps_and_batches(rows, batch_size, accumulation, world):
    batches = epoch_batches(range(rows), batch_size, 42)
    ranks = [epoch_steps(batches, accumulation, rank, world) for rank in range(world)]
    shapes = [[len(batches) for batches in rank] for rank in ranks]
    assert shapes == [shapes[0]] * world
    assert all(1 <= number <= accumulation for number in shapes[0])
    assert len(shapes[0]) == steps_per_epoch(
        rows, Train(batch_size=batch_size, gradient_accumulation_steps=accumulation), world
    )
    count = Counter(row for rank in ranks for row in rows_of(rank))
    assert sorted(count) == list(range(rows))
    assert sum(count.values()) - rows <= batch_size * (-len(batches) % world)  # only what fills up the last step


@pytest.mark.parametrize(
    ("rows", "world", "expected"),
    [(100, 1, 4), (96, 1, 3), (97, 1, 4), (100, 2, 2), (100, 3, 2), (1, 1, 1), (1, 2, 1)],
)
def test_steps_per_epoch_with_batches_of_8_accumulated_4_times(rows, world, expected):
    assert steps_per_epoch(rows, Train(batch_size=8, gradient_accumulation_steps=4), world) == expected


def test_the_steps_of_a_run_differ_by_epoch_and_by_seed_and_are_the_same_when_it_resumes():
    def steps(seed: int, epoch: int) -> list[list[list[int]]]:
        accelerator = SimpleNamespace(process_index=0, num_processes=1)
        run = make_run(10, 20, seed=seed, lengths=[5] * 40, train=Train(batch_size=4), accelerator=accelerator)
        return steps_of_epoch(run, epoch)

    four = [steps(42, 0), steps(42, 1), steps(43, 0), steps(43, 1)]
    assert len({str(order) for order in four}) == 4
    assert sorted(rows_of(steps(42, 1)[:3] + four[1][3:])) == list(range(40))  # three steps, a crash, the others


# Micro-batches by their number of tokens


@pytest.mark.parametrize(
    ("lengths", "tokens", "expected"),
    [
        ([5, 5, 5, 5], 20, [[0, 1, 2, 3]]),
        ([5, 5, 5, 5], 19, [[0, 1, 2], [3]]),  # rows times the longest
        ([2, 9, 4, 3], 9, [[1], [2, 3], [0]]),  # 9, then 2 * 4, then 2
        ([2, 9, 4, 3], 36, [[1, 2, 3, 0]]),
        ([8, 3, 3], 8, [[0], [1, 2]]),
        ([7], 7, [[0]]),
    ],
)
def test_rows_fill_micro_batches_up_to_a_number_of_tokens(lengths, tokens, expected):
    assert split_by_tokens(range(len(lengths)), lengths, tokens) == expected


@pytest.mark.parametrize("tokens", [60, 100, 517, 10_000])
def test_no_other_split_has_fewer_micro_batches(tokens):
    lengths = [1 + 7 * row % 60 for row in range(40)]
    batches = split_by_tokens(range(40), lengths, tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(40))
    sizes = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    assert max(sizes) <= tokens
    # One row more would not fit beside any of the longer ones.
    for batch, after in pairwise(batches):
        assert (len(batch) + 1) * lengths[batch[0]] > tokens
        assert lengths[batch[-1]] >= lengths[after[0]]


@pytest.mark.parametrize("world", [1, 2])
def test_a_number_of_tokens_leaves_the_steps_as_they_are(world):
    lengths = [3 + 11 * row % 30 for row in range(100)]

    def steps(rank: int, **settings: Any) -> list[list[list[int]]]:
        accelerator = SimpleNamespace(process_index=rank, num_processes=world)
        train = Train(batch_size=4, gradient_accumulation_steps=4, **settings)
        return steps_of_epoch(make_run(10, 20, seed=1, lengths=lengths, train=train, accelerator=accelerator), 0)

    for rank in range(world):
        by_rows, by_tokens = steps(rank), steps(rank, tokens=200)
        assert [sorted(chain(*step)) for step in by_tokens] == [sorted(chain(*step)) for step in by_rows]
        assert sum(map(len, by_tokens)) < sum(map(len, by_rows))
        assert max(len(batch) * max(lengths[row] for row in batch) for step in by_tokens for batch in step) <= 200
    assert [len(step) for step in steps(0, tokens=10_000)] == [1] * len(steps(0))


# Batches


@pytest.fixture
def features() -> Dataset:
    lengths = [3, 5, 1, 5, 2]
    return Dataset.from_dict(
        {
            "input_ids": [list(range(10 * i + 1, 10 * i + 1 + n)) for i, n in enumerate(lengths)],
            "token_type_ids": [[1] * n for n in lengths],
            "attention_mask": [[1] * n for n in lengths],
            "labels": [0, 1, 0, 1, 1],
        }
    )


def test_sequences_are_padded_to_the_longest_of_the_batch(features):
    columns = ["attention_mask", "input_ids", "token_type_ids", "labels"]
    batch = collate(features, [4, 0, 2], columns, {"input_ids": 9})
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "attention_mask": [[1, 1, 0], [1, 1, 1], [1, 0, 0]],
        "input_ids": [[41, 42, 9], [1, 2, 3], [21, 9, 9]],
        "token_type_ids": [[1, 1, 0], [1, 1, 1], [1, 0, 0]],
        "labels": [1, 0, 0],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_only_the_columns_asked_for_are_collated(features):
    batch = collate(features, [1, 3], ["input_ids"], {})
    assert list(batch) == ["input_ids"]
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 15], [31, 32, 33, 34, 35]]


def test_widths_of_buckets_are_few_and_waste_little():
    widths = [bucket_width(tokens, 512) for tokens in range(1, 513)]
    assert len(set(widths)) == 20
    assert all(tokens <= width for tokens, width in enumerate(widths, 1))
    assert all(width <= 1.25 * tokens for tokens, width in enumerate(widths, 1) if tokens > 32)
    assert [bucket_width(tokens, 100) for tokens in (1, 8, 9, 64, 65, 97, 100)] == [8, 8, 16, 64, 80, 100, 100]


def test_a_bucket_pads_what_has_an_entry_for_each_token():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 1, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
        "labels": torch.tensor([[2, -100, 3], [4, -100, -100]]),
        "classes": torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]),  # three classes beside three tokens
        "start_positions": torch.tensor([0, 0]),
    }
    padded = pad_to_bucket(batch, {"input_ids": 1, "labels": -100}, 64)
    assert padded["input_ids"].tolist() == [[5, 6, 7, 1, 1, 1, 1, 1], [8, 1, 1, 1, 1, 1, 1, 1]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert padded["labels"].tolist() == [[2, -100, 3] + [-100] * 5, [4] + [-100] * 7]
    assert padded["classes"] is batch["classes"]
    assert padded["start_positions"] is batch["start_positions"]


def test_evaluation_takes_the_longest_first_and_leaves_none_out(features):
    assert list(evaluation_batches(features, 2)) == [[1, 3], [0, 4], [2]]
    assert list(evaluation_batches(features, 100)) == [[1, 3, 0, 4, 2]]


# Features


class Counted(QuestionAnswering):
    """Counts how often it makes features."""

    calls = 0

    def features(self, *arguments: Any) -> Any:
        type(self).calls += 1
        return super().features(*arguments)


QUESTIONS = Dataset.from_dict(
    {
        "id": ["a", "b"],
        "question": ["who sat ?", "what ?"],
        "other": ["what sat ?", "who ?"],
        "context": ["the dogs sat on the mat .", "a cat in the red hat ."],
        "answers": [{"text": ["the dogs"], "answer_start": [0]}, {"text": ["cat"], "answer_start": [2]}],
    }
)


@pytest.fixture
def featurise(tmp_path, monkeypatch):
    """Make features with some things changed; returns them and whether they had to be made."""
    monkeypatch.setattr(Counted, "calls", 0)

    def make(tokenizer=None, rows=QUESTIONS, origin="here", train=True, **changes: Any) -> tuple[Dataset, bool]:
        fields: dict[str, Any] = {"name": "toy", "dataset": "toy", "folder": "toy", "max_length": 16, "doc_stride": 4}
        before = Counted.calls
        task = Counted(**fields | changes)
        made = make_features(
            task, rows, origin, tokenizer or make_tokenizer(), Data(cache=str(tmp_path / "cache")), train
        )
        return made, Counted.calls > before

    return make


def test_features_replace_the_columns_of_the_rows(featurise):
    features, _ = featurise()
    assert features.column_names == [
        "input_ids",
        "token_type_ids",
        "attention_mask",
        "start_positions",
        "end_positions",
    ]
    assert features["start_positions"] == [5, 5]  # [CLS] who sat ? [SEP] the; [CLS] what ? [SEP] a cat
    assert features["end_positions"] == [7, 5]


def test_features_are_made_once(featurise):
    first, made = featurise()
    assert made
    second, made = featurise()
    assert not made
    assert second.to_dict() == first.to_dict()


def test_a_used_tokenizer_is_still_the_same_tokenizer(featurise):
    tokenizer = make_tokenizer()
    featurise(tokenizer)
    tokenizer(["what the cat sat on"], truncation=True, max_length=4, padding="max_length")
    _, made = featurise(tokenizer)
    assert not made


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": 12},
        {"doc_stride": 2},
        {"train": False},
        {"origin": "elsewhere"},
        {"question": "other"},
        {"tokenizer": make_tokenizer([*WORDS[:5], *reversed(WORDS[5:])])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_features_are_made_again_when_something_that_shapes_them_changes(featurise, changes):
    featurise()
    _, made = featurise(**changes)
    assert made
    _, made = featurise()  # and the first ones are still there
    assert not made


@pytest.mark.parametrize("changes", [{"metric": "exact_match"}, {"n_best_size": 5}, {"max_answer_length": 7}])
def test_what_only_reads_predictions_does_not_make_features_again(featurise, changes):
    featurise()
    _, made = featurise(**changes)
    assert not made


def test_features_are_made_again_when_their_definition_has_a_new_version(featurise, monkeypatch):
    featurise()
    monkeypatch.setattr(Counted, "version", Counted.version + 1)
    _, made = featurise()
    assert made


def test_evaluation_features_count_their_rows_over_the_batches_of_the_map(featurise):
    rows = Dataset.from_dict({name: list(values) * 600 for name, values in QUESTIONS.to_dict().items()})
    features, _ = featurise(rows=rows, train=False)
    assert features["row"] == list(range(1200))  # mapped in batches of 1000
