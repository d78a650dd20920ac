"""Training computes what it computed when its losses were recorded."""

from __future__ import annotations

import json

import pytest

from tests.golden_losses import RECIPES, RECORD, TASKS, losses

#: CPUs sum in different orders: between SSE4 and AVX2 losses differ by up to 1e-5 of themselves, those of distillation,
#: which are nearly zero, by up to 3e-7. In 8 bits a value between two integers may be rounded to either side.
TOLERANCE = {"rel": 1e-4, "abs": 2e-6}
TOLERANCE_INT8 = {"rel": 3e-3, "abs": 1e-4}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return losses(tmp_path_factory.mktemp("golden"))


RECORDED = json.loads(RECORD.read_text())


def test_every_case_is_recorded():
    assert len(RECORDED) == len(TASKS) + len(RECIPES)
    assert all(len(steps) == 20 for steps in RECORDED.values())


@pytest.mark.parametrize("case", RECORDED)
def test_the_losses_are_those_that_were_recorded(found, case):
    tolerance = TOLERANCE_INT8 if "quant" in case else TOLERANCE
    assert [step["loss"] for step in found[case]] == pytest.approx(
        [step["loss"] for step in RECORDED[case]], **tolerance
    )
    norms = [step["grad_norm"] for step in found[case]], [step["grad_norm"] for step in RECORDED[case]]
    assert norms[0] == pytest.approx(norms[1], rel=10 * tolerance["rel"], abs=10 * tolerance["abs"])
