"""The gate of the export: limits on logits and metrics, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparse_xp.deployment.bundle import LogitLimits
from sparse_xp.deployment.distance import Distance
from sparse_xp.deployment.gate import check_metrics, flips_by_rounding, how_to_accept
from sparse_xp.errors import UserError
from sparse_xp.settings import Export


def test_the_limits_on_logits():
    near, far, none = Distance(1.2, 0.05), Distance(0.2, 0.15), Distance(float("nan"), float("nan"))
    assert near.excess(Export(), integers=True) == ""
    assert far.excess(Export(), True) == "logits differ by 0.15 of their spread, export.max_rms_diff_int8 allows 0.1."
    assert near.excess(Export(), False) == "a logit differs by 1.2, export.max_abs_diff allows 0.001."
    assert Distance(1e-3, 9.0).excess(Export(), False) == ""
    for integers in (True, False):
        assert "by nan" in none.excess(Export(), integers)


@pytest.mark.parametrize(
    ("rms", "allowed"), [(0.001, 0.03), (0.02, 0.06), (0.09, 0.1)]
)  # three times what was seen here, at least 0.03, at most what the gate allows
def test_what_the_samples_may_differ_by_elsewhere(rms, allowed):
    assert Distance(1.0, rms).limits(Export(), integers=True) == LogitLimits(None, pytest.approx(allowed))
    assert Distance(1e-5, rms).limits(Export(), integers=False) == LogitLimits(1e-3, None)


@pytest.mark.parametrize(
    ("count", "rms", "flips"), [(32, 0.0, 1.0), (100, 0.01, 2.0), (10_000, 0.01, 11.0), (1, 0.0, 1.0)]
)
def test_how_many_answers_rounding_flips(count, rms, flips):
    assert flips_by_rounding(count, rms) == pytest.approx(flips)


def of_rows(rows, counted=0):
    def answer_count(metric, rows, features):
        assert features == "features"
        return len(rows) if counted == 0 else counted

    return SimpleNamespace(
        task=SimpleNamespace(answer_count=answer_count), eval_rows=[None] * rows, eval_features="features"
    )


@pytest.mark.parametrize(
    ("rows", "rms", "value", "allowed"),
    [
        (32, 0.004, 50.0 + 100 / 32, True),  # one row
        (32, 0.004, 50.0 + 200 / 32, False),  # two
        (20, 0.0, 55.0, True),
        (20, 0.0, 60.0, False),
        (384, 0.004, 50.0 + 200 / 384, True),  # two of 384 are explained by logits that far apart
        (384, 0.004, 50.0 + 400 / 384, False),
        (10_000, 0.004, 50.5, True),  # the limit itself
        (10_000, 0.004, 50.6, False),
        (10_000, 0.0, float("nan"), False),
    ],
)
def test_the_limit_on_a_metric_knows_how_many_rows_there_are(rows, rms, value, allowed):
    words = of_rows(rows), {"accuracy": value}, {"accuracy": 50.0}, rms, Export(), True
    if allowed:
        check_metrics(*words)
        return
    with pytest.raises(UserError, match="The exported file scores accuracy") as refused:
        check_metrics(*words)
    told = str(refused.value)
    if value != value:
        assert "export.max" not in told  # no limit allows it
        return
    assert f"One answer of {rows} is {100 / rows:.2f}" in told
    assert told.index("explain") < told.index("more rows") < told.index("To take this file")


def test_the_limit_is_lower_without_integers_and_thresholds_are_none():
    plain = 0.0, Export(), False
    check_metrics(of_rows(10_000), {"f1_threshold": 9.0, "f1": 50.09}, {"f1_threshold": 1.0, "f1": 50.0}, *plain)
    with pytest.raises(UserError, match=r"0\.1 is allowed\..*export\.max_metric_diff=0\.15, with"):
        check_metrics(of_rows(10_000), {"f1": 50.15}, {"f1": 50.0}, *plain)


def test_a_metric_of_fewer_answers_than_there_are_rows():
    words = {"f1": 50.0 + 100 / 20}, {"f1": 50.0}, 0.0, Export(), True
    check_metrics(of_rows(100, counted=20), *words)
    with pytest.raises(UserError, match="One answer of 100"):
        check_metrics(of_rows(100), *words)


def test_a_metric_that_is_no_share_of_answers_has_the_limit_alone():
    words = {"perplexity": 20.6}, {"perplexity": 20.0}, 0.004, Export(), True
    with pytest.raises(UserError, match=r"0\.60 apart, and 0\.5 is allowed\. To take") as refused:
        check_metrics(of_rows(10, counted=None), *words)
    assert "answer" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "limit"), [(0.52, "0.52"), (3.12, "3.2"), (8.94e-08, "9e-08"), (0.0123, "0.013"), (12.0, "12")]
)
def test_the_limit_that_takes_a_file(value, limit):
    assert f"export.key={limit}, with" in how_to_accept("key", value)
    assert float(limit) >= value
    assert how_to_accept("key", float("nan")) == how_to_accept("key", float("inf")) == how_to_accept("key", 0.0) == ""
