"""Runs for tests: composed as the command line would, executed in this process or in one that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sparse_xp.compose import to_object
from sparse_xp.config import Config, register
from sparse_xp.places import CONF
from sparse_xp.recipe.file import resolve
from sparse_xp.result import Deployment

#: seconds after which a process is taken to hang, on a machine however slow and busy
HANGS = 900

#: small enough for a test, long enough for every schedule to have a beginning, a middle and an end
SHORT = (
    "profile=embedded",
    "log=none",
    "data.embedded_train_rows=128",
    "data.embedded_eval_rows=32",
    "train.epochs=3",
    "train.batch_size=16",
    "log.every=1",
)


def configure(*overrides: str) -> Config:
    """The configuration that a command with these words would have."""
    GlobalHydra.instance().clear()
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(to_object(compose("config", overrides=list(overrides)), overrides))


@contextmanager
def without_export() -> Iterator[None]:
    """Runs end with the trained model: the exporter takes most of a short run's time, and is proven elsewhere."""

    def skip(subject: object, directory: Path, settings: object, expected: dict[str, float]) -> Deployment:
        (directory / "model.onnx").write_bytes(b"skipped")
        return Deployment(metrics=expected, max_abs_diff=0.0, bytes=1, compressed_bytes=1)

    with (
        mock.patch("sparse_xp.delivery.export_checked", skip),
        mock.patch("sparse_xp.deployment.bundle.write_card_and_recipe", return_value=None),
    ):
        yield


#: files that tell of times, commands and places
TELLING = ("report.md", "deployment/model_card.md", ".hydra/hydra.yaml")


def left_by(run: Path) -> dict[str, bytes]:
    """Everything that a run leaves, by its place, without what time and the command say."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = json.loads(found["result.json"])
    del result["training"]["seconds"], result["training"]["samples_per_second"], result["provenance"]["command"]
    found["result.json"] = json.dumps(result).encode()
    cards = [name for name in found if name.endswith("checksums.txt")]
    for name in cards:
        lines = found[name].splitlines(True)
        found[name] = b"".join(line for line in lines if not line.endswith((b"model_card.md\n", b"hydra.yaml\n")))
    return found | dict.fromkeys(TELLING, b"")


def difference(one: Path, other: Path) -> list[str]:
    """The files that differ in what two runs leave, to the last byte, where time does not touch it."""
    ours, theirs = left_by(one), left_by(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sparse_xp", *words]


def start(directory: Path, *words: str) -> subprocess.Popen:
    """A real process that runs in ``directory``'s parent and writes into ``directory``."""
    log = (directory.parent / f"{directory.name}.log").open("a")
    return subprocess.Popen(
        command(*words, f"hydra.run.dir={directory}"), cwd=directory.parent, stdout=log, stderr=subprocess.STDOUT
    )


def history(directory: Path) -> list[dict]:
    text = (directory / "history.jsonl").read_text() if (directory / "history.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
