"""``hydra/launcher=slots``: cells side by side on one machine, each in a process and on a device of its own.

Hydra imports this module for every command: what only a sweep needs is imported in its functions.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class SlotLauncherConf:
    """The options under ``hydra.launcher``.

    ``devices``: a slot for each, by its value for CUDA_VISIBLE_DEVICES (``0``, ``'2,3'``), or ``cpu``.
    """

    _target_: str = "hydra_plugins.sparse_xp.slots.SlotLauncher"
    devices: list[str] = field(default_factory=lambda: ["cpu", "cpu"])


ConfigStore.instance().store(group="hydra/launcher", name="slots", node=SlotLauncherConf, provider="sparse_xp")


class SlotLauncher(Launcher):
    """Gives the next cell to a free slot. Each cell is a process of its own: if it crashes, the others go on."""

    def __init__(self, devices: Iterable[str]):
        self.devices = [str(device) for device in devices]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in self.devices:
            free.put(device)

        def work(overrides: Sequence[str]) -> JobReturn:
            device = free.get()
            try:
                return self.run(list(overrides), device)
            finally:
                free.put(device)

        with ThreadPoolExecutor(len(self.devices)) as pool:
            return list(pool.map(work, job_overrides))

    def run(self, overrides: list[str], device: str) -> JobReturn:
        """Run one cell in a process on ``device``; its output goes to ``log.txt`` in its directory."""
        from sparse_xp.console import say
        from sparse_xp.errors import UserError
        from sparse_xp.run_directory import ERROR, claim_run, write_error

        directory = self.directory_of(overrides)
        try:
            claim_run(directory)
        except UserError as error:
            say(str(error))
            return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
        (directory / ERROR).unlink(missing_ok=True)  # of an earlier attempt
        command = [sys.executable, "-m", "sparse_xp", *common_arguments(sys.argv[1:]), *overrides]
        command += ["hydra.mode=RUN", f"hydra.run.dir={directory}"]
        say(f"{directory}: begins on {device}")
        code = run_logged(command, directory / "log.txt", device)
        if code and not (directory / ERROR).exists():  # the process was killed before it could write it
            write_error(directory, f"The process ended with code {code}.", " ".join(command))
        say(f"{directory}: {'finished' if code == 0 else f'failed, see {ERROR} and log.txt'}")
        return job_return(overrides, directory, code)

    def directory_of(self, overrides: list[str]) -> Path:
        """Return the run directory of a cell."""
        composed = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = 0
        return Path(composed.hydra.sweep.dir) / str(composed.hydra.sweep.subdir)


def run_logged(command: list[str], log: Path, device: str) -> int:
    """Run a command on a device, append its output to ``log``, and return its exit code."""
    from sparse_xp.sweep.commands import CELL

    visible = "" if device == "cpu" else device
    environment = os.environ | {CELL: "1", "CUDA_VISIBLE_DEVICES": visible}
    with log.open("a", encoding="utf-8") as file:
        return subprocess.run(command, stdout=file, stderr=file, check=False, env=environment).returncode


def job_return(overrides: list[str], directory: Path, code: int) -> JobReturn:
    """Return what Hydra and the sweepers expect of a job that ended with an exit code: its score or its error."""
    from sparse_xp.errors import UserError
    from sparse_xp.result import RESULT, Result
    from sparse_xp.run_directory import ERROR

    job = JobReturn(
        overrides=overrides,
        hydra_cfg=OmegaConf.create({"hydra": {"runtime": {"output_dir": str(directory)}}}),
        status=JobStatus.COMPLETED if code == 0 else JobStatus.FAILED,
    )
    if code == 0:
        result = Result.read(directory / RESULT)
        job.return_value = result.metrics[result.metric]
    else:
        job.return_value = UserError(f"{directory} failed, see {ERROR} and log.txt there.")
    return job


def common_arguments(arguments: list[str]) -> list[str]:
    """Return what the cells of a sweep need of its command: the paths of configurations and Hydra's own options."""
    arguments = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    common = []
    for number, argument in enumerate(arguments):
        is_value = number > 0 and arguments[number - 1] in ("--config-dir", "--config-name", "-cd", "-cn")
        if is_value or argument.startswith(("-", "hydra")):
            common.append(argument)
    return common
