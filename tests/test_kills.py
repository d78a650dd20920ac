"""A run that is killed before any file operation of its own ends, when it is continued, as one that was not killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.runs import HANGS

#: one of each kind, in the order of a run: what it claims, what it keeps on the way, what it delivers, what it removes
OPERATIONS = (
    "rename:cache/features/sst2-train",
    "rename:run/config.yaml",
    "open:run/history.jsonl:3",
    "rename:run/checkpoints/.step-00000002.tmp/.sparse_xp",
    "rename:run/checkpoints/step-00000002",
    "remove:state.pt",
    "rename:run/best",
    "rename:run/model",
    "rename:run/deployment",
    "rename:run/result.json",
    "rmdir:run/checkpoints",
)


def killed(place, kind, *operations):
    """What ``tests.kills`` says of each trial."""
    words = [sys.executable, "-m", "tests.kills", str(place), kind, *operations]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=HANGS, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")][1:]


def test_kills_before_file_operations(tmp_path):
    trials = killed(tmp_path / "trials", "integers", *OPERATIONS)
    assert [trial["operation"] for trial in trials] == list(OPERATIONS)
    for trial in trials:
        assert trial["killed"], trial
        assert trial["codes"] == [-9, 0], trial
        assert trial["difference"] == [], trial
        assert trial["left"] == [], trial
