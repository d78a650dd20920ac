"""``hydra/launcher=slots``: cells side by side on one machine, each in a process and on a device of its own."""

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class SlotLauncherConf:
    """``devices``: a slot each, what CUDA_VISIBLE_DEVICES is to be (``0``, ``'2,3'``), or ``cpu``."""

    _target_: str = "hydra_plugins.sparse_xp.slots.SlotLauncher"
    devices: list[str] = field(default_factory=lambda: ["cpu", "cpu"])


ConfigStore.instance().store(group="hydra/launcher", name="slots", node=SlotLauncherConf, provider="sparse_xp")


class SlotLauncher(Launcher):
    """A free slot takes the next cell. A cell that crashes takes nothing with it: its process is its own."""

    def __init__(self, devices: Any):
        self.devices = [str(device) for device in devices]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in self.devices:
            free.put(device)

        def work(words: Sequence[str]) -> JobReturn:
            device = free.get()
            try:
                return self.run(list(words), device)
            finally:
                free.put(device)

        with ThreadPoolExecutor(len(self.devices)) as pool:
            return list(pool.map(work, job_overrides))

    def run(self, words: list[str], device: str) -> JobReturn:
        """One cell: its output goes to ``log.txt`` in its folder."""
        from sparse_xp.console import say
        from sparse_xp.errors import UserError
        from sparse_xp.result import Result
        from sparse_xp.run_directory import ERROR, claim_run, write_error
        from sparse_xp.sweep.commands import CELL

        composed = self.context.config_loader.load_sweep_config(self.config, words)
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = 0
        directory = Path(composed.hydra.sweep.dir) / composed.hydra.sweep.subdir
        try:
            claim_run(directory)
        except UserError as error:
            say(str(error))
            return JobReturn(overrides=words, status=JobStatus.FAILED, _return_value=error)
        (directory / ERROR).unlink(missing_ok=True)  # of an earlier attempt
        command = [sys.executable, "-m", "sparse_xp", *kept(sys.argv[1:]), *words]
        command += ["hydra.mode=RUN", f"hydra.run.dir={directory}"]
        visible = "" if device == "cpu" else device
        say(f"{directory}: begins on {device}")
        with (directory / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(
                command,
                stdout=log,
                stderr=log,
                check=False,
                env=os.environ | {CELL: "1", "CUDA_VISIBLE_DEVICES": visible},
            )
        finished = directory / "result.json"
        if done.returncode and not (directory / ERROR).exists():  # killed, so that it could not say so itself
            write_error(directory, f"The process ended with code {done.returncode}.", " ".join(command))
        say(f"{directory}: {'finished' if done.returncode == 0 else f'failed, see {ERROR} and log.txt'}")
        result = JobReturn(
            overrides=words,
            hydra_cfg=OmegaConf.create({"hydra": {"runtime": {"output_dir": str(directory)}}}),
            status=JobStatus.COMPLETED if done.returncode == 0 else JobStatus.FAILED,
        )
        if done.returncode == 0:
            read = Result.read(finished)
            result.return_value = read.metrics[read.metric]
        else:
            result.return_value = UserError(f"{directory} failed, see {ERROR} and log.txt there.")
        return result


def kept(arguments: list[str]) -> list[str]:
    """Of a sweep's own command what its cells need too: where configurations are, and Hydra's settings."""
    found, arguments = [], [each for each in arguments if each not in ("-m", "--multirun")]
    for number, each in enumerate(arguments):
        follows = number > 0 and arguments[number - 1] in ("--config-dir", "--config-name", "-cd", "-cn")
        if follows or each.startswith(("-", "hydra")):
            found.append(each)
    return found
