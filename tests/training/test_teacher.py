"""The teacher's logits: stored once, the same as those of the live teacher, kept within bounds."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparse_xp.cache import ensure_cached
from sparse_xp.data.batches import collate, evaluation_batches
from sparse_xp.errors import UserError
from sparse_xp.files.directories import atomic_directory
from sparse_xp.run import run
from sparse_xp.settings import Train
from sparse_xp.training import teacher as module
from sparse_xp.training.teacher import LiveTeacher, StoredTeacher, TooLarge, evict, fingerprint, store_logits
from tests.runs import SHORT, configure
from tests.tiny import make_bert, make_run

pytestmark = pytest.mark.usefixtures("trained_only")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


def words(place, task, *more):
    return (*SHORT, f"task={task}", f"data.cache={place}/cache", *more)


@pytest.fixture(scope="module")
def dense(place):
    for task in ("squad", "sst2"):
        run(configure(*words(place, task, "recipe=dense", "train.epochs=1")), place / task)
    return place


@pytest.fixture
def seen(monkeypatch):
    """The runs that ``choose_teacher`` was called for, each with its teacher, live and usable when the run is over."""
    calls = []
    real = module.choose_teacher

    def spy(this, model, settings, cache):
        live = LiveTeacher(model, SimpleNamespace(autocast=nullcontext), this.inputs, this.task.outputs)
        calls.append((this, live, cache))
        return real(this, model, settings, cache)

    monkeypatch.setattr("sparse_xp.preparation.choose_teacher", spy)
    return calls


@pytest.mark.parametrize("task", ["squad", pytest.param("sst2", marks=pytest.mark.slow)])
def test_stored_is_live(dense, tmp_path, seen, capsys, task):
    more = ("recipe=gradual80", "teacher=checkpoint", f"teacher.path={dense / task}", f"data.cache={tmp_path}")
    run(configure(*words(dense, task, *more)), tmp_path / "run")
    assert "stored once" in capsys.readouterr().out
    [(this, live, cache)] = seen
    assert isinstance(this.teacher, StoredTeacher)

    def batch_of(rows):
        return collate(this.train_features, rows, this.inputs, this.padding)

    # the same batches: the same bits
    for rows in evaluation_batches(this.train_features, this.train.eval_batch_size):
        stored, now = this.teacher(rows, batch_of(rows)), live(rows, batch_of(rows))
        lengths = batch_of(rows)["attention_mask"].sum(1).tolist()
        for name in this.task.outputs:
            if not this.task.per_token:
                assert torch.equal(stored[name], now[name])
                continue
            for length, one, other in zip(lengths, stored[name], now[name], strict=True):
                assert torch.equal(one[:length], other[:length])
                assert one[length:].eq(0).all()
    # other batches, padded to another width: equal up to rounding
    rows = [5, 90, 17, 33]
    mask = batch_of(rows)["attention_mask"].bool()
    for name, one in this.teacher(rows, batch_of(rows)).items():
        other = live(rows, batch_of(rows))[name]
        torch.testing.assert_close(*((one[mask], other[mask]) if this.task.per_token else (one, other)))

    # a second run with another seed reads what the first has stored
    run(configure(*words(dense, task, *more, "seed=7")), tmp_path / "again")
    assert "stored logits of an earlier run" in capsys.readouterr().out
    assert len([path for path in cache.iterdir() if path.name != ".locks"]) == 1
    # another teacher does not
    run(configure(*words(dense, task, *more, f"teacher.path={tmp_path / 'run'}")), tmp_path / "other")
    assert len([path for path in cache.iterdir() if path.name != ".locks"]) == 2


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("teacher.reuse_logits=false", "teacher.reuse_logits=false"),
        ("train.epochs=1", "no row is seen twice"),
        ("teacher.max_gigabytes=1e-6", "teacher.max_gigabytes=1e-06"),
    ],
)
def test_live_for_a_reason(dense, tmp_path, seen, capsys, more, reason):
    config = configure(
        *words(dense, "sst2", "recipe=gradual80", "teacher=checkpoint", f"teacher.path={dense / 'sst2'}", more),
        f"data.cache={tmp_path}",
    )
    run(config, tmp_path / "run")
    shown = capsys.readouterr().out
    assert "teacher: runs at every step" in shown
    assert reason in shown.replace("\n", " ")
    assert isinstance(seen[0][0].teacher, LiveTeacher)
    logits = tmp_path / "logits"
    assert not logits.exists() or os.listdir(logits) == [".locks"]


@pytest.mark.parametrize("other", [{"mixed_precision": "bf16"}, {"device": "cuda"}, {"eval_batch_size": 16}])
def test_logits_of_other_numerics_are_stored_beside(other):
    """Precision, device and width of padding change the rounding of logits: none may be read in place of another."""
    model = make_bert()

    def name_of(mixed_precision="no", device="cpu", eval_batch_size=8):
        this = make_run(
            1,
            2,
            accelerator=SimpleNamespace(mixed_precision=mixed_precision, device=torch.device(device)),
            train=Train(eval_batch_size=eval_batch_size),
            train_features=SimpleNamespace(_fingerprint="features"),
            inputs=["input_ids"],
            task=SimpleNamespace(name="toy", outputs=("logits",)),
        )
        return fingerprint(this, model)

    assert name_of() == name_of()
    assert name_of(**other) != name_of()


def test_the_oldest_logits_are_evicted(tmp_path):
    for age, name in enumerate(("newest", "older", "oldest")):
        with atomic_directory(tmp_path / name, "cache") as draft:
            np.save(draft / "logits.npy", np.zeros(1000, np.float32))
        os.utime(tmp_path / name, (10**9 - age, 10**9 - age))
    evict(tmp_path, 4000, 1.3e-5)  # 4 kB more into 13 kB that hold 3 * 4128 bytes, and the lists of them
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "older"]
    evict(tmp_path, 4000, 1.3e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "older"]
    with pytest.raises(TooLarge, match="its logits need"):
        evict(tmp_path, 14_000, 1.3e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "older"]


def test_what_is_not_the_caches_own_makes_no_room(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.npy").write_bytes(bytes(20_000))
    evict(tmp_path, 4000, 1.3e-5)
    assert (tmp_path / "thesis" / "chapter.npy").stat().st_size == 20_000


def test_logits_have_their_room_before_they_are_computed(dense, tmp_path, monkeypatch):
    """A sparse file that is mapped and finds the disk full ends the process with a SIGBUS."""
    taken = []

    def full(path, size):
        taken.append((path.name, size, path.stat().st_size))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sparse_xp.training.teacher.reserve_space", full)
    config = configure(
        *words(dense, "sst2", "recipe=gradual80", "teacher=checkpoint", f"teacher.path={dense / 'sst2'}"),
        f"data.cache={tmp_path}/cache",
    )
    with pytest.raises(UserError, match=r"while writing .*/cache/logits/sst2-\w+\. Make room, or give data\.cache="):
        run(config, tmp_path / "run")
    assert [name for name, *_ in taken] == ["logits.npy"]
    assert taken[0][1] == taken[0][2] >= 128 * 2 * 4
    assert os.listdir(tmp_path / "cache" / "logits") == [".locks"]


def test_logits_cut_short_are_not_there(dense, tmp_path, seen):
    """The directory appears when it is whole."""
    config = configure(
        *words(dense, "sst2", "recipe=gradual80", "teacher=checkpoint", f"teacher.path={dense / 'sst2'}"),
        f"data.cache={tmp_path}",
    )
    run(config, tmp_path / "run")
    this, live, _ = seen[0]
    this.accelerator = SimpleNamespace(device=torch.device("cpu"))

    def failing(rows, batch):
        if failing.left == 0:
            raise KeyboardInterrupt
        failing.left -= 1
        return live(rows, batch)

    failing.left = 0
    with pytest.raises(KeyboardInterrupt):
        ensure_cached(tmp_path / "new" / "logits", lambda draft: store_logits(this, failing, draft, 1.0))
    assert not (tmp_path / "new" / "logits").exists()


def test_self_is_the_checkpoint_as_it_was(dense, tmp_path, seen):
    more = ("recipe=gradual80", "teacher=self", f"model.checkpoint={dense / 'sst2' / 'model'}", "log.every=1")
    result = run(configure(*words(dense, "sst2", *more)), tmp_path / "run")
    assert result.teacher == "self"
    assert result.sparsity.prunable > 0.79
    [(_, live, _)] = seen
    assert not any(weight.eq(0).all() or weight.requires_grad for weight in live.model.parameters())


def test_self_without_a_trained_head(dense, tmp_path):
    with pytest.raises(UserError, match="no trained head for task sst2"):
        run(configure(*words(dense, "sst2", "recipe=gradual80", "teacher=self")), tmp_path / "run")
