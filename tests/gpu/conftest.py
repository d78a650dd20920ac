"""Failures are printed when they happen: a machine that is there for minutes may be gone before pytest's summary."""

from __future__ import annotations

import os
import sys

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:  # the process that collects the reports prints them
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}", file=sys.__stderr__, flush=True)
