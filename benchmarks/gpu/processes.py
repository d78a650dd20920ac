"""Commands side by side, each in a process of its own, until a time at which what still runs is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WAITING, RUNNING, ENDED, FAILED, STOPPED, LEFT_OUT = "waiting", "running", "ended", "failed", "stopped", "left out"
#: seconds between two looks at what runs
PAUSE = 0.2


@dataclass
class Job:
    """A command whose output goes to ``log``.

    ``after``: the job that must have ended well before. ``expected``: the seconds that it takes, as far as known; it
    does not begin with less time left. ``seconds``: those that it took. ``note``: why it is in its ``state``.
    """

    name: str
    command: list[str]
    log: Path
    after: Job | None = None
    expected: float = 0.0
    state: str = WAITING
    seconds: float = 0.0
    note: str = ""
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the command, as the leader of its own group of processes."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        self.state, self.seconds = RUNNING, -time.monotonic()

    def look(self) -> None:
        """Note whether the command has ended."""
        if self.process is not None and self.process.poll() is not None:
            self.seconds += time.monotonic()
            self.state = FAILED if self.process.returncode else ENDED
            self.note = f"exit code {self.process.returncode}" if self.process.returncode else ""

    def stop(self) -> None:
        """Kill the command and its children."""
        if self.process is not None and self.state == RUNNING:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.seconds += time.monotonic()
            self.state, self.note = STOPPED, "no time left"

    def last_lines(self, count: int = 12) -> list[str]:
        """Return the end of its output."""
        return self.log.read_text(errors="replace").splitlines()[-count:] if self.log.exists() else []


def run_all(jobs: Sequence[Job], slots: int, until: float, told: Callable[[Job], None]) -> None:
    """Run ``jobs`` in strict order, ``slots`` at a time, until all are over or the time ``until`` has come.

    ``until``: of ``time.monotonic``. ``told``: called with each job that is over. What runs when this returns or
    raises is stopped.
    """
    try:
        while any(job.state in (WAITING, RUNNING) for job in jobs) and time.monotonic() < until:
            for job in [job for job in jobs if job.state == RUNNING]:
                job.look()
                if job.state != RUNNING:
                    told(job)
            for job in [job for job in jobs if job.state == WAITING]:
                start_or_leave_out(job, sum(job.state == RUNNING for job in jobs) < slots, until)
                if job.state == WAITING:
                    break  # what comes later matters less, and has to wait too
            time.sleep(PAUSE)
    finally:
        for job in jobs:
            job.stop()
            if job.state == WAITING:
                job.state, job.note = LEFT_OUT, "no time left"


def start_or_leave_out(job: Job, free: bool, until: float) -> None:
    """Begin ``job`` if a slot is free and it can end in time, or leave it out if it never can."""
    before = job.after.state if job.after else ENDED
    if before in (FAILED, STOPPED, LEFT_OUT):
        job.state, job.note = LEFT_OUT, f"{job.after.name} has not ended well" if job.after else ""
    elif time.monotonic() + job.expected > until:
        job.state, job.note = LEFT_OUT, f"no time left: it takes about {job.expected:.0f} s"
    elif before == ENDED and free:
        job.begin()
