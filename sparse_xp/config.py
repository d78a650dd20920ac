"""The configuration of a run: ``Config`` holds one dataclass for each group of ``conf/``.

``register`` gives Hydra the schemas, ``compose.to_object`` makes a ``Config`` from what Hydra composed, and
``recipe.file.resolve`` reads a recipe file into it. ``run_name`` and ``result_hash`` identify a run: by the name of its
directory, and by everything that its numbers depend on.

torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from sparse_xp.clock import TimeSpec
from sparse_xp.hyperparameters import resolve_hyperparameter
from sparse_xp.modifiers import (
    MODIFIERS,
    Distillation,
    LearningRate,
    Modifier,
    WeightDecay,
)
from sparse_xp.modifiers.learning_rate import RateModifier
from sparse_xp.settings import Data, Export, Log, Model, TeacherSource, TinyModel, Train
from sparse_xp.tasks import TASKS, Task


@dataclass(kw_only=True)
class Teacher(TeacherSource):
    """The teacher of a run. Options as in ``TeacherSource``, and:

    ``distillation``: how the student is trained on the teacher's logits. None: not at all.
    """

    distillation: Distillation | None = field(default_factory=Distillation)


@dataclass(kw_only=True)
class RecipeSettings:
    """The recipe: its numbers, the learning rate and weight decay, and modifiers that no other group has.

    ``name``: the name in the table of results.
    ``sparsity``: the fraction of zeros to reach or to keep, in [0, 1). The options of the group ``sparsity`` refer to
    it.
    ``start_sparsity``: the fraction of zeros that the starting checkpoint must have, in [0, 1).
    ``quantization_start``, ``observers_end``: the times at which quantization-aware training begins and at which its
    ranges are frozen. The options of the group ``quantization`` refer to them.
    ``learning_rate``: segments of the learning rate, by name.
    ``weight_decay``: the weight decay. None: 0.
    ``modifiers``: further modifiers by name, added with ``+modifier@recipe.modifiers.NAME=CLASS``.
    ``inherit``: go on with the 8 bits and without the layers that ``recipe.yaml`` beside the checkpoint's weights says.
    False: that file is not read.

    A SparseML recipe replaces the modifiers and the length of the run:

    ``path``: a file (.md, .yaml) or a ``zoo:`` stub.
    ``args``: values for its variables, by name.
    ``anchors``: arguments also replace values referenced through YAML aliases (``*name``).
    ``strict``: an argument that has no effect is an error.
    ``remarks``: warnings from parsing the recipe. They are set by ``recipe.file.resolve``, not by users.
    """

    name: str
    sparsity: float = 0.0
    start_sparsity: float = 0.0
    quantization_start: TimeSpec = "70%"
    observers_end: TimeSpec = "90%"
    learning_rate: dict[str, LearningRate] = field(default_factory=dict)
    weight_decay: WeightDecay | None = field(default_factory=WeightDecay)
    modifiers: dict[str, Modifier] = field(default_factory=dict)
    inherit: bool = True
    path: str | None = None
    args: Any = None
    anchors: bool = False
    strict: bool = False
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("sparsity", "start_sparsity"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"recipe.{name}={value}: expected a fraction in [0, 1)"
                    f"{f', such as {value / 100:g} for {value:g} %' if 1 < value < 100 else ''}."
                )
        if not self.learning_rate and not any(drives_rate(modifier) for modifier in self.modifiers.values()):
            raise ValueError("recipe.learning_rate is empty: expected at least one segment.")


def drives_rate(modifier: Modifier) -> bool:
    """Return whether a modifier sets the learning rate."""
    return isinstance(modifier, RateModifier)


@dataclass(kw_only=True)
class Config:
    """One run.

    ``sparsity``, ``quantization``: a modifier of weights, and one of numbers. None: dense, and floating point.
    ``zoo``: a file that maps stubs of the SparseZoo to paths or hub ids, in addition to conf/zoo.yaml.
    ``profile``: the name of the profile (the size of the run and of its data), for the table of results.
    ``seed``: the seed of initialization, shuffling and dropout, from 0 to 2^32 - 1.
    """

    task: Task = MISSING
    model: Model = MISSING
    teacher: Teacher = field(default_factory=Teacher)
    sparsity: Modifier | None = None
    quantization: Modifier | None = None
    recipe: RecipeSettings = MISSING
    train: Train = field(default_factory=Train)
    data: Data = field(default_factory=Data)
    export: Export = field(default_factory=Export)
    log: Log = field(default_factory=Log)
    zoo: str | None = None
    profile: str = "full"
    seed: int = 42

    def __post_init__(self) -> None:
        self.export.check(self.task.name, self.task.max_length)

    def modifiers(self) -> dict[str, Modifier]:
        """Return every modifier of the run by its key in the configuration."""
        named: dict[str, Modifier] = {f"recipe.learning_rate.{k}": v for k, v in self.recipe.learning_rate.items()}
        if self.recipe.weight_decay:
            named["recipe.weight_decay"] = self.recipe.weight_decay
        named |= {f"recipe.modifiers.{k}": v for k, v in self.recipe.modifiers.items()}
        if self.sparsity:
            named["sparsity"] = self.sparsity
        if self.quantization:
            named["quantization"] = self.quantization
        if self.teacher.given and self.teacher.distillation:
            named["teacher.distillation"] = self.teacher.distillation
        return named


def with_teacher(config: Config, path: Path) -> Config:
    """Return the configuration with its teacher at ``path``."""
    return replace(config, teacher=replace(config.teacher, source="checkpoint", path=str(path)))


#: keys (of an option or of a whole group) that affect no number of a result: neither the name nor the hash of a run
#: depends on them
NOT_IN_RESULT = (
    "log",
    "data.cache",
    "data.max_rows",
    "data.max_gigabytes",
    "export.max_abs_diff",
    "export.max_metric_diff",
    "export.max_rms_diff_int8",
    "export.max_metric_diff_int8",
    "export.target_cpu",
)


def affects_result(key: str) -> bool:
    """Return whether the value of this key can change a number of the result."""
    return not f"{key}.".startswith(tuple(f"{name}." for name in NOT_IN_RESULT))


def result_hash(config: Config) -> str:
    """Return ten hex digits over everything that can change a number of the result.

    ``NOT_IN_RESULT`` and the zoo file are excluded. As this leaves out the tolerances of the export, a run that the
    export gate stopped can continue with larger ones.
    """
    fields = asdict(config)
    for key in (*NOT_IN_RESULT, "zoo"):  # zoo: the name of a run has it, the paths that it leads to are hashed
        group, _, name = key.rpartition(".")
        del (fields[group] if group else fields)[name]
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_name(choices: Any, overrides: Any, profile: str, seed: int) -> str:
    """Return the directory name of a run: task, model, recipe, what else was overridden, and the seed.

    ``choices``: Hydra's group choices. ``overrides``: those of the command line; their order does not matter. Paths are
    shortened to their last part (``recipe.path``: two), so two runs may share a name; their ``result_hash`` differs.
    """
    named = ("task", "model", "recipe", "profile", "seed")
    extra = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key not in named and affects_result(key):
            value = value.strip("'\"")
            if value.count("/") > 1 or value[:1] in "./":
                last = 2 if key == "recipe.path" else 1  # every project has a recipe.yaml
                value = "/".join(value.rstrip("/").split("/")[-last:])
            extra.append(f"{key}={value}")
    parts = [
        str(choices["task"]),
        str(choices["model"]),
        str(choices["recipe"]),
        *([profile] if profile != "full" else []),
    ]
    parts += [re.sub(r"[^\w.=+~%-]+", "_", part) for part in sorted(extra)]
    name = ",".join(parts)
    if len(name.encode()) > 180:  # file systems stop at 255 bytes
        name = f"{name.encode()[:160].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    return f"{name},seed={seed}"


def register() -> None:
    """Give Hydra the schemas under the names that ``conf/`` refers to, and the resolvers that it uses."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("hyperparameters", resolve_hyperparameter, replace=True)
    store = ConfigStore.instance().store
    store(name="schema", node=Config)
    for name, task in TASKS.items():
        store(group="task/kind", name=name, node=task)
    for name, modifier in MODIFIERS.items():
        store(group="modifier", name=name, node=modifier)
    store(group="model/kind", name="Checkpoint", node=Model)
    store(group="model/kind", name="Tiny", node=TinyModel)
