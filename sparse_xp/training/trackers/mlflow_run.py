"""A run in MLflow."""

from __future__ import annotations

import os
from typing import Any

import mlflow
from accelerate.tracking import MLflowTracker
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from sparse_xp.training.trackers.tracked_run import TrackedRun, flatten, numbers_in, remember_run_id, run_id

STORE = "MLFLOW_TRACKING_URI"


class MlflowRun(MLflowTracker):  # type: ignore[misc]
    """A run in MLflow: in the store of ``MLFLOW_TRACKING_URI``, by default one beside the runs of the sweep.

    A resumed run continues under its id. Points that the store has already are not logged again.
    """

    def __init__(self, this: TrackedRun):
        self.this, self.known = this, set[tuple[str, int]]()
        self.default_store = not os.environ.get(STORE)
        tags = {"group": this.group, "job_type": this.job, **dict.fromkeys(this.tags, "")}
        super().__init__(this.project, run_id=run_id(this, "mlflow"), run_name=this.name, tags=tags)

    def start(self) -> None:
        """Open the run, and log what is new of its configuration."""
        if self.default_store:
            mlflow.set_tracking_uri(f"sqlite:///{self.this.directory.parent.resolve()}/mlflow.db")
        super().start()
        client, identity = mlflow.MlflowClient(), self.active_run.info.run_id
        remember_run_id(self.this, "mlflow", identity)
        data = client.get_run(identity).data
        self.known = {
            (name, point.step) for name in data.metrics for point in client.get_metric_history(identity, name)
        }
        # A parameter cannot be changed; those of the first part of the run stay.
        new = {name: str(value) for name, value in flatten(self.this.config).items() if name not in data.params}
        rows = [(name, value) for name, value in new.items() if len(value) <= MAX_PARAM_VAL_LENGTH]
        for first in range(0, len(rows), MAX_PARAMS_TAGS_PER_BATCH):
            mlflow.log_params(dict(rows[first : first + MAX_PARAMS_TAGS_PER_BATCH]))

    def complete(self) -> None:
        """Do nothing more."""

    def has(self, name: str, step: int) -> bool:
        """Return whether the store has this point."""
        return (name, step) in self.known

    def summarize(self, values: dict[str, Any], step: int) -> None:
        """Log the numbers of ``values`` as metrics of the last step, and its words as tags."""
        numbers = numbers_in(values)
        self.log(numbers, step)
        mlflow.set_tags({name: str(value) for name, value in values.items() if name not in numbers})

    def finish(self) -> None:
        """End the run, and leave the choice of the store to the next one."""
        super().finish()
        if self.default_store:
            mlflow.set_tracking_uri("")
            os.environ.pop(STORE, None)  # MLflow sets it for the processes that it may start
