"""``python -m sparse_xp``: compose a configuration, make it an object, run it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_xp.config import CONF, Config, register, with_teacher
from sparse_xp.errors import UserError, explain, welcome

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """One run, and before it the run of its teacher if that is to be made."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = to_object(cfg)
        from sparse_xp.run import run

        if config.teacher.source == "dense":
            dense, place = dense_run(config)
            run(dense, place)
            config = with_teacher(config, place)
        run(config, directory)
    except UserError:
        # Hydra has made the directory before anything was checked; a run that never began leaves none.
        if {path.name for path in directory.iterdir()} <= {".hydra"}:
            shutil.rmtree(directory)
        raise


def to_object(cfg: DictConfig) -> Config:
    """The dataclasses of a composed configuration, checked. Raises UserError for a value that cannot be."""
    try:
        config = OmegaConf.to_object(cfg)
    except ValueError as error:
        raise UserError(str(error)) from error
    assert isinstance(config, Config)
    return config


def dense_run(config: Config) -> tuple[Config, Path]:
    """The configuration and the directory that ``recipe=dense`` would have for the task of ``config``.

    It takes over what the command line says of task, data, profile and log, and of the model if it is the same one;
    the numbers of training are its own recipe's, changed by ``teacher.overrides``.
    """
    hydra_config = HydraConfig.get()
    student = str(hydra_config.runtime.choices["model"])
    model = config.teacher.model or student
    groups = ["task", "data", "profile", "log", *(["model"] if model == student else [])]
    words = [word for word in hydra_config.overrides.task if word.lstrip("+~").split("=")[0].split(".")[0] in groups]
    words = [word for word in words if not word.startswith("model=")]
    words += [f"model={model}", "recipe=dense", f"seed={config.teacher.seed}", *config.teacher.overrides]
    composed = hydra.compose(hydra_config.job.config_name, overrides=words, return_hydra_config=True)
    place = Path(composed.hydra.run.dir)
    with_hydra = OmegaConf.create(composed)
    OmegaConf.set_struct(with_hydra, False)
    del with_hydra["hydra"]
    return to_object(with_hydra), place


def cli() -> None:
    """The command: help for no arguments, one short message for an error that the user can mend."""
    if len(sys.argv) == 1:
        print(welcome(CONF))
        return
    asked = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra would print and exit by itself; with this it raises, and every error goes through the lines below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
    except (CompactHydraException, OmegaConfBaseException) as error:
        if asked:
            raise
        sys.exit(f"\n{explain(error)}\n(HYDRA_FULL_ERROR=1 shows where it happened.)")


if __name__ == "__main__":
    cli()
