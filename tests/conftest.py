"""Every test runs offline, on one thread, in a directory of its own, and leaves nothing behind."""

from __future__ import annotations

import os

# Before any test imports a library that reads them. One thread: the models are tiny, and a test must not depend on
# how many cores a machine has.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    OMP_NUM_THREADS="1",
    COLUMNS="200",
)

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

from sparse_xp.cpu import this_cpu
from sparse_xp.provenance import version_of

pytest.register_assert_rewrite("tests.runs")

if find_spec("absl"):
    # OpenVINO and TensorBoard import it. Hydra closes the handlers of every logger, and that of absl closes its stream,
    # which would be the one that pytest captures with.
    import absl.logging

    absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


def pytest_report_header() -> str:
    """What a failure may depend on: CPU, cores and versions."""
    names = ("torch", "transformers", "onnxruntime", "openvino", "numpy")
    installed = [f"{name} {found}" for name in names if (found := version_of(name))]
    return f"CPU: {this_cpu()}; kind {this_cpu().kind}\nversions: {', '.join(installed)}"


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _accelerate_begins_anew():
    """A Trainer leaves its precision behind in the process, and Accelerate refuses another to the next run."""
    yield
    if (state := sys.modules.get("accelerate.state")) and state.AcceleratorState._shared_state:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


#: how the run of each kind that ``deployed`` makes is asked for; long contexts come in windows
KINDS = {
    "squad": ("task=squad", "task.max_length=32", "task.doc_stride=8"),
    "squad_v2": ("task=squad_v2",),
    "sst2": ("task=sst2",),
    "pairs": ("task=mnli",),
    "several": ("task=sst2", "task.problem=multi_label", "task.classes=[blames,praises,insists]"),
    "numbers": ("task=sst2", "task.problem=regression", "task.classes=[]"),
    "conll2003": ("task=conll2003",),
    "reranking": ("task=custom_reranking",),
    "embedding": ("task=custom_embedding", "task.prompt_pair='the '"),
}


@pytest.fixture(scope="module")
def trained_only():
    """For a module whose runs need no exported file."""
    from tests.runs import without_export

    with without_export():
        yield


@pytest.fixture(scope="session")
def deployed(tmp_path_factory):
    """A finished run of a kind: ``deployed("squad")`` is its directory, made when asked for first. Do not touch it."""
    from sparse_xp.run import run
    from tests.runs import SHORT, configure

    # The processes of pytest-xdist share them: the folder above is that of the whole session.
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(kind):
        place = base / "deployed" / kind
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(str(place / "lock")):
            if not (place / "run/result.json").exists():
                words = (*KINDS[kind], "recipe=gradual80", "teacher=none", f"data.cache={place}/cache")
                run(configure(*SHORT, *words), place / "run")
        return place / "run"

    return get


@pytest.fixture
def folder(deployed, tmp_path):
    """A copy of the deployment folder of a kind, to be changed."""

    def get(kind):
        return Path(shutil.copytree(deployed(kind) / "deployment", tmp_path / kind))

    return get
