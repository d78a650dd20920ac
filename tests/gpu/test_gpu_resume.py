"""A run on a GPU that is killed continues; begun on a CPU it continues on the GPU, in its precision."""

from __future__ import annotations

import json
import signal
import time

import pytest

from sparse_xp.run import run
from sparse_xp.run_directory import checkpoints
from sparse_xp.training import checkpoint
from tests.gpu.machine import GPU, HALF, ONLY_CUDA, WORDS
from tests.gpu.test_gpu_modifiers import Power
from tests.runs import HANGS, configure, difference, history, start

pytestmark = GPU

PRUNED = (*WORDS, "task=sst2", "recipe=gradual80", "train.save_every=5 steps", "train.deterministic=true")


def test_a_killed_process_ends_bit_for_bit_where_another_does(tmp_path):
    words = (*PRUNED, f"train.precision={HALF}", f"data.cache={tmp_path}/cache", "train.epochs=8")
    straight, broken = (start(tmp_path / name, *words) for name in ("straight", "broken"))
    try:
        deadline = time.monotonic() + HANGS
        while len(history(tmp_path / "broken")) < 12 and broken.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        broken.send_signal(signal.SIGKILL)
        assert broken.wait() == -signal.SIGKILL
        assert checkpoints(tmp_path / "broken/checkpoints")
        broken = start(tmp_path / "broken", *words)
        assert (broken.wait(HANGS), straight.wait(HANGS)) == (0, 0)
    finally:
        straight.kill()
        broken.kill()
    assert "continuing at step" in (tmp_path / "broken.log").read_text()
    assert difference(tmp_path / "straight", tmp_path / "broken") == []


@ONLY_CUDA
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_run_that_began_on_a_cpu_goes_on_in_its_precision(tmp_path, monkeypatch, trained_only, capsys, precision):
    words = (*PRUNED, f"train.precision={precision}", f"data.cache={tmp_path}/cache")
    real = checkpoint.save

    def save_and_fail(this):
        real(this)
        raise Power

    monkeypatch.setattr(checkpoint, "save", save_and_fail)
    with pytest.raises(Power):
        run(configure(*words, "train.device=cpu"), tmp_path / "run")
    monkeypatch.setattr(checkpoint, "save", real)
    before = json.loads((tmp_path / "run/history.jsonl").read_text().splitlines()[0])
    result = run(configure(*words, "train.device=cuda"), tmp_path / "run")
    assert (result.training.steps, result.sparsity.prunable) == (24, pytest.approx(0.8, abs=2e-3))
    assert result.training.precision in ("fp32", "bf16")  # a CPU with native bf16 begins in it
    assert "not bit for bit" in " ".join(capsys.readouterr().out.split())
    assert history(tmp_path / "run")[0] == before
