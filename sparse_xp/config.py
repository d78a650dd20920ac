"""What a run is made of. Every group of ``conf/`` is values over one of these dataclasses.

Nothing here imports torch: a configuration is composed, checked and refused in the time Hydra takes.
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
from sparse_xp.modifiers.learning_rate import DrivesRate
from sparse_xp.settings import Data, Export, Log, Model, TeacherSource, TinyModel, Train
from sparse_xp.tasks import TASKS, Task


@dataclass(kw_only=True)
class Teacher(TeacherSource):
    """Where the teacher comes from, and the distillation that uses it."""

    distillation: Distillation | None = field(default_factory=Distillation)


@dataclass(kw_only=True)
class RecipeSettings:
    """The method: a name, its headline numbers, and the modifiers that no other group owns.

    ``sparsity``: the target (or kept) fraction of zeros, which the options of the group ``sparsity`` refer to.
    ``start_sparsity``: the zeros that the recipe needs in the checkpoint it starts from. ``quantization_start``,
    ``observers_end``: when training in 8 bits begins and its ranges are frozen, to which ``quantization`` refers.
    ``learning_rate``: named segments. ``modifiers``: any others, by ``/modifier@recipe.modifiers.NAME``.

    ``path``: a SparseML recipe (.md, .yaml, a zoo: stub), whose modifiers and length take the place of all these;
    ``args``: values for its variables. ``anchors``: they also reach what it says by ``*name``. ``strict``: an argument
    that reaches nothing is an error. ``remarks``: what its reading had to tell.
    """

    name: str
    sparsity: float = 0.0
    start_sparsity: float = 0.0
    quantization_start: TimeSpec = "70%"
    observers_end: TimeSpec = "90%"
    learning_rate: dict[str, LearningRate] = field(default_factory=dict)
    weight_decay: WeightDecay | None = field(default_factory=WeightDecay)
    modifiers: dict[str, Modifier] = field(default_factory=dict)
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
                    f"recipe.{name}={value}: want a fraction in [0, 1)"
                    f"{f', such as {value / 100:g} for {value:g} %' if 1 < value < 100 else ''}."
                )
        if not self.learning_rate and not any(drives_rate(modifier) for modifier in self.modifiers.values()):
            raise ValueError("recipe.learning_rate is empty: a run needs at least one segment.")


def drives_rate(modifier: Modifier) -> bool:
    """Whether a modifier writes the learning rate."""
    return isinstance(modifier, DrivesRate)


@dataclass(kw_only=True)
class Config:
    """One run. ``zoo``: a file with places for stubs of the SparseZoo, beside those of conf/zoo.yaml."""

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
        """Every modifier of the run by its name in the configuration."""
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


#: the keys that change no number of a result, by how they begin
HARMLESS = ("export.max_", "export.target_cpu", "data.max_")


def result_hash(config: Config) -> str:
    """Ten hex digits over all that can change a number of the result.

    Not the log, the cache's place, how much a file of rows may hold, the CPU that the exported file is for, and what
    the gate of the export allows: a run that it stopped may be given more.
    """
    fields = asdict(config)
    numbers = (name for name in fields["export"] if name != "target_cpu" and not name.startswith("max_"))
    fields["export"] = {name: fields["export"][name] for name in numbers}
    del fields["log"]
    del fields["zoo"]
    for name in ("cache", "max_rows", "max_gigabytes"):
        del fields["data"][name]
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_name(choices: Any, overrides: Any, profile: str, seed: int) -> str:
    """Return the directory name of a run: task, model, recipe, what else was overridden, and the seed.

    ``choices``: Hydra's group choices. ``overrides``: the words of the command line. The same for the same command
    whatever the order of its words; of a path only the last part is taken, of ``recipe.path`` the last two
    (``config_hash`` tells two runs apart).
    """
    named = ("task", "model", "recipe", "profile", "seed", "log", "data.cache")
    extra = []
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key not in named and not key.startswith(("log.", *HARMLESS)):
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
    parts += [re.sub(r"[^\w.=+~%-]+", "_", word) for word in sorted(extra)]
    name = ",".join(parts)
    if len(name.encode()) > 180:  # file systems stop at 255 bytes
        name = f"{name.encode()[:160].decode(errors='ignore')}~{hashlib.sha256(name.encode()).hexdigest()[:10]}"
    return f"{name},seed={seed}"


def register() -> None:
    """Store the schemas under the names that ``conf/`` refers to."""
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
