"""The search: its space, its study on disk, and what it does when it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from sparse_xp.errors import UserError
from sparse_xp.sweep.search import SearchSettings, parse_space, run_search, suggest
from tests.tiny import make_result


class Trial:
    """Notes down what it is asked for, and gives the middle."""

    def suggest_float(self, key, low, high, log=False, step=None):
        self.asked = ("float", low, high, log, step)
        return (low + high) / 2 + 1e-9

    def suggest_int(self, key, low, high, log=False, step=1):
        self.asked = ("int", low, high, log, step)
        return (low + high) // 2

    def suggest_categorical(self, key, values):
        self.asked = ("choice", values)
        return values[0]


@pytest.mark.parametrize(
    ("text", "asked", "word"),
    [
        ("interval(0.5,1.0)", ("float", 0.5, 1.0, False, None), "k=0.75"),
        ("tag(log,interval(1e-5,3e-5))", ("float", 1e-5, 3e-5, True, None), "k=2e-05"),
        ("int(interval(1,9))", ("int", 1, 9, False, 1), "k=5"),
        ("range(0,10,2)", ("int", 0, 9, False, 2), "k=4"),
        ("choice(gradual,obert)", ("choice", ["gradual", "obert"]), "k=gradual"),
        ("gradual,obert", ("choice", ["gradual", "obert"]), "k=gradual"),
    ],
)
def test_a_value_is_asked_for_as_the_word_says(text, asked, word):
    trial = Trial()
    [(key, sweep)] = parse_space([f"k={text}"]).searched.items()
    assert suggest(trial, key, sweep) == word
    assert trial.asked == asked


def test_the_command_line_fixes_a_value():
    space = parse_space(["a=interval(0,1)", "b=interval(0,1)", "a=0.5"])
    assert (list(space.searched), space.fixed) == (["b"], {"a": "a=0.5"})
    with pytest.raises(UserError, match="nothing is to be searched"):
        parse_space(["a=1"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ["scor"]}, "Did you mean 'score'"),
        ({"sampler": "grid"}, "expected one of tpe, random"),
        ({"n_trials": 0}, "n_trials=0: expected at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SearchSettings(**settings)


@pytest.fixture
def asked(tmp_path):
    """A run that scores 100 (1 - (x - 0.5)^2), and notes down its words."""
    pytest.importorskip("optuna", reason="the extra optuna is not installed")

    class Asked(list):
        broken = stopped = False

        def run(self, jobs, first):
            done = []
            for words in jobs:
                if self.stopped:
                    raise KeyboardInterrupt
                self.append(words)
                x = float(words[-1].removeprefix("x="))
                place = tmp_path / f"run{x}"
                place.mkdir(exist_ok=True)
                result = make_result()
                result.deployment.metrics["f1"] = 100 * (1 - (x - 0.5) ** 2)
                result.write(place / "result.json")
                job = JobReturn(hydra_cfg=OmegaConf.create({"hydra": {"runtime": {"output_dir": str(place)}}}))
                job.status = JobStatus.FAILED if self.broken else JobStatus.COMPLETED
                job.return_value = RuntimeError("broken") if self.broken else 1.0
                done.append(job)
            return done

    return Asked()


SPACE = ["task=sst2", "x=interval(0.0,1.0)"]


def test_it_goes_on_in_the_study_that_is_there(asked, tmp_path, capsys):
    place = str(tmp_path / "s")
    run_search(SearchSettings(n_trials=3), parse_space(SPACE), place, asked.run)
    assert [words[0] for words in asked] == ["task=sst2"] * 3
    run_search(SearchSettings(n_trials=5, n_jobs=4), parse_space(SPACE), place, asked.run)
    assert len(asked) == 5
    assert len({words[1] for words in asked}) == 5
    assert (Path(place) / "study.db").exists()
    assert "best: trial " in capsys.readouterr().out


def test_it_prints_the_values_that_ran(asked, tmp_path, capsys):
    """A real number runs with four digits, and Optuna knows more of them."""
    run_search(SearchSettings(n_trials=3, n_jobs=2), parse_space(SPACE), str(tmp_path / "s"), asked.run)
    *lines, best = capsys.readouterr().out.splitlines()
    ran = [word for _, word in asked]
    scores = [f"{100 * (1 - (float(word[2:]) - 0.5) ** 2):.6g}" for word in ran]
    began = [f"trial {number}: {word}" for number, word in enumerate(ran)]
    ended = [f"trial {number}: score {score}  with {ran[number]}" for number, score in enumerate(scores)]
    assert lines == [*began[:2], *ended[:2], began[2], ended[2]]
    assert best == f"best: {ended[scores.index(max(scores, key=float))]}"


def test_a_trial_that_failed_is_printed_with_its_values(asked, tmp_path, capsys):
    asked.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        run_search(SearchSettings(n_trials=1), parse_space(SPACE), str(tmp_path / "s"), asked.run)
    assert capsys.readouterr().out.splitlines()[1] == f"trial 0: failed  with {asked[0][1]}"


def test_what_was_interrupted_is_asked_again(asked, tmp_path):
    asked.stopped = True
    with pytest.raises(KeyboardInterrupt):
        run_search(SearchSettings(n_trials=2, seed=3), parse_space(SPACE), str(tmp_path / "s"), asked.run)
    asked.stopped = False
    run_search(SearchSettings(n_trials=2, seed=4), parse_space(SPACE), str(tmp_path / "s"), asked.run)
    import optuna

    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/study.db")
    interrupted, again, *_ = study.trials
    assert again.params == interrupted.params
    assert asked[0][1] == f"x={interrupted.params['x']:.4g}"


def test_what_fails_for_all_values_ends_it(asked, tmp_path):
    asked.broken = True
    with pytest.raises(RuntimeError, match="broken"):
        run_search(SearchSettings(n_trials=9, n_jobs=2), parse_space(SPACE), str(tmp_path / "s"), asked.run)
    assert len(asked) == 2


def test_several_objectives(asked, tmp_path):
    run_search(
        SearchSettings(["score", "compressed_bytes"], n_trials=2), parse_space(SPACE), str(tmp_path / "s"), asked.run
    )
    import optuna

    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/study.db")
    assert study.metric_names == ["score", "compressed_bytes"]
    assert all(trial.values[1] == 4_500_000 for trial in study.trials)
    with pytest.raises(UserError, match="has a study of score, compressed_bytes"):
        run_search(SearchSettings(["score", "bytes"], n_trials=3), parse_space(SPACE), str(tmp_path / "s"), asked.run)


def test_without_optuna_it_says_how(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'sparse-xp\[optuna\]'"):
        run_search(SearchSettings(), parse_space(SPACE), str(tmp_path), lambda jobs, first: [])


@pytest.mark.parametrize("data", [b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_study_is_named(data, tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/study.db").write_bytes(data)
    with pytest.raises(UserError, match=r"s/study\.db holds what sparse_xp did not write"):
        run_search(SearchSettings(), parse_space(["k=choice(1,2)"]), str(tmp_path / "s"), lambda *_: [])
    settings = SearchSettings(storage=f"sqlite:///{tmp_path}/s/study.db")
    with pytest.raises(UserError, match=r"s/study\.db cannot be used as the study of a search") as caught:
        run_search(settings, parse_space(["k=choice(1,2)"]), str(tmp_path / "s"), lambda *_: [])
    assert len(str(caught.value)) < 600
