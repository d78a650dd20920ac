"""No command writes over, or removes, what sparse_xp did not write: not by its name, a link, or a trailing slash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sparse_xp import benchmark_command, expand, export_command, latency, predict
from sparse_xp.deployment import benchmark as measuring
from sparse_xp.errors import UserError
from sparse_xp.recipe.__main__ import main as recipe
from sparse_xp.report import __main__ as report
from sparse_xp.run import run
from sparse_xp.sweep.cells import SweepPlan
from sparse_xp.sweep.manifest import write_manifest
from tests.runs import SHORT, configure

THROUGH = ("itself", "a link", "a trailing slash", "a detour")


def given(place: Path, through: str) -> str:
    """The place as a user may write it."""
    if through == "a link":
        link = place.with_name(f"link-to-{place.name}")
        if not link.is_symlink():
            link.symlink_to(place)
        return str(link)
    if through == "a detour":
        (place.parent / "aside").mkdir(exist_ok=True)
        return f"{place.parent}/aside/../{place.name}"
    return f"{place}/" if through == "a trailing slash" else str(place)


def everything(place: Path) -> dict[str, bytes]:
    """The contents by place, but for locks."""
    paths = (path for path in sorted(place.rglob("*")) if path.is_file() and path.parent.name != ".locks")
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture
def finished(deployed, tmp_path):
    """A copy of a finished run."""
    return Path(shutil.copytree(deployed("sst2"), tmp_path / "finished"))


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch, deployed):
    """What is refused is refused before the work."""
    deployed("sst2")
    for module, name in (
        (export_command, "deploy"),
        (latency, "measure_tables"),
        (measuring, "measure_all"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it began to work"))
    monkeypatch.setattr("sparse_xp.run.execute", lambda *_: pytest.fail("it began to work"))


def refused(act: Callable[[], object], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``act`` ends with one line that names the place, and what is there is as it was."""
    before = everything(place.parent)
    with pytest.raises((UserError, SystemExit)) as caught:
        act()
    message = str(caught.value)
    assert place.name in message
    assert "\n" not in message.strip().removesuffix("(HYDRA_FULL_ERROR=1 shows where it happened.)").strip()
    assert everything(place.parent) == before


#: by the command, what of the user's may lie where it would write
TARGETS: dict[str, tuple[str, ...]] = {
    "export run": ("chapter.txt", "model.onnx", "checksums.txt"),
    "export model": ("chapter.txt", "model.safetensors"),
    "expand": ("chapter.txt", "config.json"),
    "benchmark": ("benchmark.json", "benchmark.svg"),
    "report": ("table.md", "table.csv", "table.tex", "report.html"),
    "run": (
        "config.yaml",
        "report.md",
        "model/model.safetensors",
        "checkpoints/step-1/state.pt",
        "best/x",
        "result.json",
    ),
}


CASES = [(command, name, "itself") for command, names in TARGETS.items() for name in names]
CASES += [(command, names[0], through) for command, names in TARGETS.items() for through in THROUGH[1:]]


@pytest.mark.parametrize(("command", "name", "through"), CASES)
def test_a_directory_of_the_users_is_left_as_it_is(command, name, through, finished, tmp_path, capsys):
    place = tmp_path / "thesis"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text("all of it")
    out = given(place, through)
    acts = {
        "export run": lambda: export_command.main([f"run={finished}", f"out={out}"]),
        "export model": lambda: export_command.main(
            ["task=sst2", "profile=embedded", f"model.checkpoint={finished}/model", f"out={out}"]
        ),
        "expand": lambda: expand.main([f"model={finished}/model", f"out={out}"]),
        "benchmark": lambda: benchmark_command.main([f"run={finished}", f"out={out}", "engine=[onnxruntime]"]),
        "report": lambda: report.main([str(finished), "--out", out]),
        "run": lambda: run(configure(*SHORT, "task=sst2", "recipe=dense"), Path(out)),
    }
    refused(acts[command], place, capsys)


@pytest.mark.parametrize("through", ["itself", "a link"])
@pytest.mark.parametrize("command", ["latency", "predict", "picture"])
def test_a_file_of_the_users_is_left_as_it_is(command, through, finished, tmp_path, capsys):
    place = tmp_path / {"latency": "thesis.json", "predict": "thesis.jsonl", "picture": "thesis.png"}[command]
    place.write_text('{"chapter": "all of it"}')
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a film"}) + "\n")
    out = given(place, through)
    acts = {
        "latency": lambda: latency.main([f"model={finished}/model", "latency=onnxruntime:fp32:1x8", f"out={out}"]),
        "predict": lambda: predict.main([f"run={finished}", f"file={tmp_path}/rows.jsonl", f"out={out}"]),
        "picture": lambda: recipe(["show", "recipe=gradual80", "task=sst2", "--png", out]),
    }
    refused(acts[command], place, capsys)


def test_the_only_copy_of_a_model_is_no_place_for_its_export(finished, tmp_path, capsys):
    model = Path(shutil.copytree(finished / "model", tmp_path / "mymodel"))
    words = ["task=sst2", "profile=embedded", f"model.checkpoint={model}", f"out={model}"]
    refused(lambda: export_command.main(words), model, capsys)


@pytest.mark.parametrize("inside", ["", "/model", "/model/new", "/deployment", "/deployment/new"])
def test_a_run_is_no_place_for_an_export_of_its_own(finished, capsys, inside):
    refused(lambda: export_command.main([f"run={finished}", f"out={finished}{inside}"]), finished, capsys)


def test_a_manifest_of_other_origin_stops_the_sweep(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text('{"brooms": 3}')
    refused(lambda: write_manifest(SweepPlan("sweep", tmp_path / "sweep", [])), tmp_path / "sweep", capsys)


def test_what_a_command_wrote_it_may_write_again(finished, tmp_path, capsys):
    for _ in range(2):
        report.main([str(finished), "--out", str(tmp_path / "page")])
    assert (tmp_path / "page" / "table.csv").is_file()
