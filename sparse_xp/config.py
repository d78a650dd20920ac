"""The configuration of a run: ``Config`` holds one dataclass for each group of ``conf/``.

``register`` gives Hydra the schemas, ``compose.to_object`` makes a ``Config`` from what Hydra composed, and
``recipe.file.resolve`` reads a recipe file into it. ``result_hash`` identifies a run by everything that its numbers
depend on.

torch is not imported: composing a configuration must not load it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from sparse_xp.clock import TimeSpec
from sparse_xp.errors import UserError, shortened
from sparse_xp.hyperparameters import resolve_hyperparameter
from sparse_xp.modifiers import (
    MODIFIERS,
    Distillation,
    LearningRate,
    Modifier,
    WeightDecay,
)
from sparse_xp.modifiers.learning_rate import RateModifier
from sparse_xp.places import CONF
from sparse_xp.promises import Composed, Promise, broken_promise
from sparse_xp.run_names import LABELS, NOT_IN_RESULT, run_name
from sparse_xp.settings import Data, Export, Log, Model, TeacherSource, TinyModel, Train
from sparse_xp.tasks import TASKS, Task


@dataclass(kw_only=True)
class Teacher(TeacherSource):
    """The teacher of a run.

    The other options are those of ``TeacherSource``.

    Attributes:
        distillation: How the student is trained on the teacher's logits. None: not at all.
    """

    distillation: Distillation | None = field(default_factory=Distillation)


@dataclass(kw_only=True)
class RecipeSettings:
    """The recipe: its numbers, the learning rate and weight decay, and modifiers that no other group has.

    A SparseML recipe (``path``) replaces the modifiers and the length of the run.

    Attributes:
        name: The name in the table of results.
        sparsity: The fraction of zeros to reach or to keep, in [0, 1). The options of the group ``sparsity`` refer to
            it.
        start_sparsity: The fraction of zeros that the starting checkpoint must have, in [0, 1).
        quantization_start: The time at which quantization-aware training begins. The options of the group
            ``quantization`` refer to it.
        observers_end: The time at which the ranges of quantization-aware training are frozen. The options of the group
            ``quantization`` refer to it.
        learning_rate: Segments of the learning rate, by name.
        weight_decay: The weight decay. None: 0.
        modifiers: Further modifiers by name, added with ``+modifier@recipe.modifiers.NAME=CLASS``.
        inherit: Go on with the 8 bits and without the layers that ``recipe.yaml`` beside the checkpoint's weights says.
            False: that file is not read.
        path: A SparseML recipe: a file (.md, .yaml) or a ``zoo:`` stub.
        args: Values for the variables of the file, by name, as ``{num_epochs: 8}`` or as JSON.
        anchors: Whether ``args`` also replace values referenced through YAML aliases (``*name``).
        strict: Whether a value of ``args`` that has no effect is an error.
        promise: What the name of the recipe says about a result. Recipes set it, not users.
        remarks: Warnings from parsing the recipe. They are set by ``recipe.file.resolve``, not by users.
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
    promise: Promise | None = None
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

    Attributes:
        task: The data set and how to learn it: one option of the group ``task``.
        model: The encoder that is trained: one option of the group ``model``.
        teacher: The teacher: one option of the group ``teacher``.
        sparsity: The modifier that prunes weights: one option of the group ``sparsity``. None: dense.
        quantization: The modifier that quantizes: one option of the group ``quantization``. None: floating point.
        recipe: What is done to the model, and when: one option of the group ``recipe``.
        train: Length, batches, numerics and checkpoints.
        data: Where rows come from.
        export: The exported file and the tolerances of its check.
        log: Logging: one option of the group ``log``.
        zoo: A file that maps stubs of the SparseZoo to paths or hub ids, in addition to conf/zoo.yaml.
        profile: The name of the profile (the size of the run and of its data), for the table of results.
        seed: The seed of initialization, shuffling and dropout, from 0 to 2^32 - 1.
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


def composed(config: Config, words: Iterable[str] = ()) -> Composed:
    """Return what a run is composed of, as far as its recipe promises something about it. ``words``: the overrides."""
    return Composed(config.recipe.name, config.recipe.sparsity, tuple(config.modifiers().values()), tuple(words))


def check_promise(config: Config, words: Iterable[str]) -> None:
    """Raise UserError for a run that contradicts the name of its recipe. ``words``: the overrides as typed."""
    check_teacher(config)
    check_unlabeled(config, words)
    run, promise = composed(config, words), config.recipe.promise
    if config.recipe.path is not None and promise is not None and run.name == promise.recipe:
        raise UserError(
            f"recipe={run.name} and recipe.path={shortened(config.recipe.path, 80)} are two recipes. Write recipe=file "
            "for the file, or leave recipe.path out."
        )
    if message := broken_promise(promise, run):
        raise UserError(message)
    named = run.typed("recipe.name")
    if named and run.name in recipe_names() and (promise is None or promise.recipe != run.name):
        raise UserError(f"{named}: {run.name} is the name of another recipe. Choose a name of your own.")


def recipe_names() -> list[str]:
    """Return the names of the recipes in ``conf/``."""
    return [path.stem for path in (CONF / "recipe").glob("*.yaml")]


def with_teacher(config: Config, path: Path) -> Config:
    """Return the configuration with its teacher at ``path``."""
    return replace(config, teacher=replace(config.teacher, source="checkpoint", path=str(path)))


def with_default_teacher(config: Config, words: Iterable[str]) -> Config:
    """Return the configuration with the teacher that is usual for its task, unless a word of the command names one.

    ``words``: the overrides as typed.
    """
    usual = config.task.default_teacher
    typed = any(word.lstrip("+~").partition("=")[0] in ("teacher", "teacher.source") for word in words)
    if usual is None or typed or config.teacher.source not in ("none", "dense"):
        return config
    return replace(config, teacher=replace(config.teacher, source=usual))


def check_teacher(config: Config) -> None:
    """Raise UserError for rows that only a teacher could make use of, and a run that does not learn from one."""
    distils = any(isinstance(modifier, Distillation) and modifier.hardness for modifier in config.modifiers().values())
    if config.task.needs_teacher and not (config.teacher.given and distils):
        raise UserError(
            f"task {config.task.name} has texts alone, which teach nothing without a teacher. Leave teacher= out for "
            "the checkpoint itself (teacher=self), name one with teacher=checkpoint teacher.path=DIR, or give pairs: "
            "task.text_pair=COLUMN, with scores also task.label=COLUMN."
        )


def check_unlabeled(config: Config, words: Iterable[str]) -> None:
    """Raise UserError for rows without labels (``data.unlabeled``) in a run that cannot learn from them.

    ``words``: the overrides as typed.
    """
    path, train = config.data.unlabeled, config.train
    if path is None:
        if typed := [word for word in words if word.lstrip("+").startswith("train.unlabeled_share=")]:
            raise UserError(f"{typed[-1]} needs data.unlabeled=FILE, a file of rows without labels.")
        return
    given = f"data.unlabeled={shortened(path, 80)}"
    if not config.task.takes_unlabeled:
        raise UserError(
            f"{given}: task {config.task.name} is pretraining, which learns from any text without labels. Give the "
            "text with data.train= (task=custom_text)."
        )
    if not 0 < train.unlabeled_rows < train.batch_size:
        raise UserError(
            f"train.unlabeled_share={train.unlabeled_share:g} of train.batch_size={train.batch_size} are "
            f"{train.unlabeled_rows} rows without labels and {train.labelled_rows} with: a batch needs one of each at "
            f"least. Write another share, or leave {'it' if train.unlabeled_share else 'data.unlabeled'} out."
        )
    modifiers = config.modifiers().values()
    if not (config.teacher.given and any(modifier.learns_from_teacher for modifier in modifiers)):
        raise UserError(
            f"{given}: rows without labels are learnt from a teacher alone, and this run learns from none. Write "
            "teacher=dense, teacher=self, or teacher=checkpoint teacher.path=DIR, with teacher.distillation.hardness "
            "above 0."
        )
    if any(isinstance(modifier, Distillation) and modifier.tokens == "targets" for modifier in modifiers):
        raise UserError(
            f"{given}: Distillation.tokens=targets compares the tokens with a label, and these rows have none. Write "
            "tokens=all."
        )


def with_job(config: Config, job: str) -> Config:
    """Return the configuration with the tracker's kind of job, unless the user has named one."""
    return replace(config, log=replace(config.log, job_type=config.log.job_type or job))


def result_hash(config: Config) -> str:
    """Return ten hex digits over everything that can change a number of the result.

    ``NOT_IN_RESULT``, ``LABELS`` and the zoo file are excluded. As this leaves out the tolerances of the export, a run
    that the export gate stopped can continue with larger ones.
    """
    fields = asdict(config)
    # zoo: the name of a run has it, the paths that it leads to are hashed
    for key in (*NOT_IN_RESULT, *LABELS, "zoo"):
        group, _, name = key.rpartition(".")
        del (fields[group] if group else fields)[name]
    text = json.dumps(fields, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


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
