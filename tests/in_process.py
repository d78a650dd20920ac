"""The command run in the process of a test, which is seconds faster than in one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hydra.core.global_hydra import GlobalHydra

from sparse_xp.__main__ import cli


@dataclass
class Answer:
    """What the command left: exit code, standard output, and all that it said about an error."""

    code: int
    out: str
    message: str


Command = Callable[..., Answer]


def command_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command as a function of its words."""

    def run(*words: str) -> Answer:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["sparse_xp", *words])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # cli() sets it; here it is taken back after the test
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        capsys.readouterr()
        try:
            cli()
            code, said = 0, ""
        except SystemExit as stop:
            code, said = (1, stop.code) if isinstance(stop.code, str) else (stop.code or 0, "")
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err + said)

    return run
