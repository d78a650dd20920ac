"""Where the time of a training step goes: ``log.profile_steps=N`` (``debug=profile``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from sparse_xp.console import say
from sparse_xp.files.writing import write_text

#: what the profiler leaves in the directory of the run
TABLE, TRACE = "profile.txt", "profile_trace.json"
#: rows of the table
ROWS = 30


@contextmanager
def profiled(steps: int, directory: Path) -> Iterator[None]:
    """Record ``steps`` optimizer steps with PyTorch's profiler; 0 records none.

    The first step is left out, as it allocates memory and starts threads. Afterwards ``directory`` has a table of the
    operations by their time, and a trace for chrome://tracing or ui.perfetto.dev.
    """
    if not steps:
        yield
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)

    def write(profile: torch.profiler.profile) -> None:
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        write_text(
            directory / TABLE, profile.key_averages().table(sort_by=order, row_limit=ROWS, max_name_column_width=60)
        )
        profile.export_chrome_trace(str(directory / TRACE))
        say(f"profile of {steps} steps: {directory / TABLE}, {directory / TRACE}")

    schedule = torch.profiler.schedule(wait=1, warmup=1, active=steps, repeat=1)
    with torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write) as profile:
        hook = register_optimizer_step_post_hook(lambda *_: profile.step())
        try:
            yield
        finally:
            hook.remove()
