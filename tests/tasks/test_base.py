"""What every kind of task says about itself."""

from __future__ import annotations

import pytest

from sparse_xp.tasks import TASKS
from tests.runs import configure

#: fields that may change without a change of the features: cached features are found again
AFTER_FEATURES = {"metric", "metrics", "n_best_size", "max_answer_length", "null_score_diff_threshold"}


@pytest.mark.parametrize("name", ["squad", "sst2", "conll2003", "wikipedia", "wikipedia_mlm"])
def test_the_cache_key_of_features_has_all_fields_that_shape_them(name):
    task = configure(f"task={name}").task
    assert set(vars(task)) - set(task.feature_fields()) == AFTER_FEATURES & set(vars(task))


@pytest.mark.parametrize("kind", TASKS.values())
def test_the_metric_never_shapes_features(kind):
    assert kind.__dataclass_fields__["metric"].metadata["shapes_features"] is False


@pytest.mark.parametrize("name", ["squad", "sst2", "mnli", "conll2003", "wikipedia", "wikipedia_mlm"])
def test_the_example_has_the_texts_that_a_row_must_have(name):
    task = configure(f"task={name}").task
    example = task.example()
    assert len(example) == len(task.text_names())
    assert all(set(names) & set(example) for names in task.text_names())
