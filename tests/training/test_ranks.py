"""Two processes of one run: each predicts a share, draws its own dropout, and continues with its own random state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from sparse_xp.evaluation import evaluate, model_outputs
from sparse_xp.modifiers import MODIFIERS, Modifier
from sparse_xp.places import CONF
from sparse_xp.run import run
from sparse_xp.training import checkpoint
from sparse_xp.training.shared_evaluation import evaluate_together
from tests.runs import HANGS, SHORT, configure, without_export
from tests.test_resume import Power

# Two processes take as long as twenty other tests.
pytestmark = pytest.mark.slow


@dataclass(kw_only=True)
class Probe(Modifier):
    """Notes, before each step of a run, what its process has: random state, weights, and once its scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps: dict[int, list[Any]] = {}
        self.scores: list[Any] = []

    def before_step(self, context: Any) -> None:
        weights = sum(float(weight.detach().double().sum()) for weight in context.model.parameters())
        self.steps[context.step] = [sha256(torch.get_rng_state().numpy()).hexdigest(), weights]
        if context.step == 3:
            self.scores = [evaluate_together(context), evaluate(context), len(predicted(context))]
            context.prepared_model.train()


def predicted(context: Any) -> list[Any]:
    """What this process predicts in evaluation."""
    outputs = model_outputs(context, context.accelerator.process_index, context.accelerator.num_processes)
    return [value for value in outputs["logits"] if value is not None]


def note(place: Path) -> None:
    """Run straight, then with a break, in the processes of ``torchrun``; each writes down what its probes have seen."""
    MODIFIERS["Probe"] = Probe
    config = configure(
        *SHORT, "task=sst2", "recipe=dense", "model.dropout=0.1", "train.device=cpu", "train.epochs=2",
        "data.embedded_eval_rows=33", "train.eval_batch_size=8", "train.save_every=3 steps",
        f"data.cache={place}/cache",
    )  # fmt: skip
    rank, probes = int(os.environ["RANK"]), [Probe(), Probe(), Probe()]
    real, calls = checkpoint.save, []

    def fail_after_the_first(this: Any) -> None:
        if calls:
            raise Power
        real(this)
        calls.append(this)

    with without_export():
        result = run(replace(config, quantization=probes[0]), place / "straight", show=False)
        with mock.patch.object(checkpoint, "save", fail_after_the_first), pytest.raises(Power):
            run(replace(config, quantization=probes[1]), place / "broken", show=False)
        again = run(replace(config, quantization=probes[2]), place / "broken", show=False)
    noted = {"steps": [probe.steps for probe in probes], "scores": probes[0].scores}
    noted |= {"metrics": [result.metrics, again.metrics]}
    (place / f"rank-{rank}.json").write_text(json.dumps(noted))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    place = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*words, "-m", "tests.training.test_ranks", str(place)],
        capture_output=True, text=True, check=False, timeout=HANGS, env=os.environ | {"PYTHONPATH": str(CONF.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((place / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_each_rank_draws_its_own_dropout_from_the_same_weights(ranks):
    first, second = (rank["steps"][0] for rank in ranks)
    assert len(first) == 8
    for step, (state, weights) in first.items():
        assert state != second[step][0]
        assert weights == second[step][1]


def test_each_rank_continues_with_its_own_random_state(ranks):
    for rank in ranks:
        straight, _, resumed = rank["steps"]
        assert list(resumed) == ["3", "4", "5", "6", "7"]
        assert all(resumed[step] == straight[step] for step in resumed)
        assert rank["metrics"][0] == rank["metrics"][1]


def test_the_scores_of_shared_evaluation_are_those_of_one_process(ranks):
    together, alone, predicted_by_first = ranks[0]["scores"]
    assert together == alone
    assert ranks[1]["scores"][0] == {}
    assert (predicted_by_first, ranks[1]["scores"][2]) == (17, 16)  # 5 batches of 33 rows: three and two


if __name__ == "__main__":
    note(Path(sys.argv[1]))
