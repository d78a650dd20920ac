"""Every file of conf/ and sweeps/ becomes a Config, and every number can be changed from the command line."""

from __future__ import annotations

import itertools
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from sparse_xp.compose import to_object
from sparse_xp.config import Config, RecipeSettings, Teacher, result_hash
from sparse_xp.modifiers import (
    ConstantPruning,
    Distillation,
    LearningRate,
    MagnitudePruning,
    ScheduledLearningRate,
    WeightDecay,
)
from sparse_xp.places import CONF, GROUPS
from sparse_xp.recipe.file import resolve
from sparse_xp.run_names import affects_result
from sparse_xp.settings import Data, Export, Log, Model, TinyModel, Train
from sparse_xp.sweep.grid import expand_grid, to_override
from sparse_xp.sweep.published import check_published, read_published
from sparse_xp.sweep.search import parse_space
from sparse_xp.tasks import QuestionAnswering
from tests.runs import configure

SWEEPS = CONF.parent / "sweeps"
GOLDEN = Path(__file__).parent / "golden" / "default_config.yaml"
PROFILES = sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "profile")
#: What an option asks for beside itself, because it cannot know it.
FROM_FILE = ["recipe.path=zoo:nlp/question_answering/obert-base/pytorch/huggingface/squad/base-none"]
COMPANIONS = {
    "teacher=checkpoint": ["teacher.path=some/model"],
    "recipe=file": FROM_FILE,
    "schedule=none": ["recipe=obert80"],
}


@pytest.fixture(autouse=True)
def _no_hydra_left_over():
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def compose(*words: str, name: str = "config", folder: Path = CONF, hydra_too: bool = False) -> DictConfig:
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        return hydra.compose(name, overrides=list(words), return_hydra_config=hydra_too)


# ---- everything composes ----


def test_groups_are_the_folders_of_conf():
    assert sorted(GROUPS) == sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "local")


@pytest.mark.parametrize(
    ("option", "profile"),
    [
        pytest.param(option, profile, marks=[] if (number + other) % 2 else pytest.mark.slow)
        for number, option in enumerate(OPTIONS)
        for other, profile in enumerate(PROFILES)
    ],
)
def test_every_option_becomes_a_config(option, profile):
    group, name = option.split("=")
    words = [option, f"profile={profile}", *COMPANIONS.get(option, [])]
    if group == "sparsity":
        words.append("recipe.sparsity=0.5")  # the options of `sparsity` prune to what the recipe says
    config = configure(*words)
    assert config.profile == profile
    if group in ("task", "model", "recipe") and option != "recipe=file":
        assert getattr(config, group).name == name


@pytest.mark.parametrize(
    ("task", "recipe", "profile"),
    [
        pytest.param(*each, marks=[] if number % 11 == 0 else pytest.mark.slow)
        for number, each in enumerate(
            itertools.product(
                sorted(path.stem for path in (CONF / "task").glob("*.yaml")),
                sorted(path.stem for path in (CONF / "recipe").glob("*.yaml")),
                PROFILES,
            )
        )
    ],
)
def test_every_task_goes_with_every_recipe(task, recipe, profile):
    config = configure(
        f"task={task}", f"recipe={recipe}", f"profile={profile}", *(FROM_FILE if recipe == "file" else [])
    )
    assert (config.task.name, config.profile) == (task, profile)
    assert config.recipe.name == (recipe if recipe != "file" else "obert_base_squad")
    assert config.data.source == {"full": "hub", "embedded": "embedded"}[profile]


def sweep_points(name: str) -> list[list[str]]:
    """The words of each run of a sweep, one set of values for a search."""
    swept = compose(f"hydra.searchpath=[file://{CONF}]", name=name, folder=SWEEPS, hydra_too=True).hydra
    assert swept.mode.name == "MULTIRUN"
    assert swept.sweep.dir == f"outputs/{name}"
    params = OmegaConf.to_container(swept.sweeper.params)
    if "n_trials" in swept.sweeper:
        space = parse_space([to_override(key, value) for key, value in params.items()])
        return [[*space.fixed.values(), *(f"{key}={sweep.start}" for key, sweep in space.searched.items())]]
    return [words for _, words in expand_grid(params, OmegaConf.to_container(swept.sweeper.cells), [])]


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("*.yaml")))
def test_every_run_of_every_sweep_becomes_a_config(name):
    points = sweep_points(name)
    points = points[:: max(1, len(points) // 12)]  # a dozen of each
    configs = []
    for words in (words for words in points if not {"seed=2", "seed=3", "seed=5144"} & set(words)):
        configs.append(
            resolve(to_object(compose(*words, f"hydra.searchpath=[file://{CONF}]", name=name, folder=SWEEPS)))
        )
    assert len({result_hash(config) for config in configs}) == len(configs) > 0


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_published_number_stands_beside_a_run(path):
    swept = compose(f"hydra.searchpath=[file://{CONF}]", name=path.stem, folder=SWEEPS, hydra_too=True).hydra
    runs = expand_grid(OmegaConf.to_container(swept.sweeper.params), OmegaConf.to_container(swept.sweeper.cells), [])
    check_published(read_published(path), path, runs, {"task": "none", "recipe": "none"})


def test_default_config_has_not_changed_unseen():
    """After a change that is meant: python -m sparse_xp --cfg job > tests/golden/default_config.yaml"""
    assert OmegaConf.to_yaml(compose()).strip() == GOLDEN.read_text(encoding="utf-8").strip()


# ---- what a recipe picks ----


def test_pruned80_keeps_the_zeros_of_a_sparse_checkpoint():
    config = configure("recipe=pruned80")
    assert config.model.name == "bert_base_pruned80"
    assert isinstance(config.sparsity, ConstantPruning)
    assert config.sparsity.min_sparsity == 0.8
    assert (config.teacher.source, config.teacher.model) == ("dense", "bert_base")


def test_gradual80_prunes_a_dense_checkpoint_to_80_percent():
    config = configure("recipe=gradual80")
    assert config.model.name == "bert_base"
    assert isinstance(config.sparsity, MagnitudePruning)
    assert config.sparsity.final_sparsity == 0.8
    assert config.teacher.source == "dense"
    assert isinstance(config.modifiers()["teacher.distillation"], Distillation)


def test_dense_has_nothing_but_learning_rate_and_weight_decay():
    config = configure("recipe=dense")
    assert (config.sparsity, config.quantization, config.teacher.source) == (None, None, "none")
    assert sorted(config.modifiers()) == [
        "recipe.learning_rate.decay",
        "recipe.learning_rate.warmup",
        "recipe.weight_decay",
    ]
    assert config.train.warmup == 0


@pytest.mark.parametrize(("recipe", "sparsity"), [("pruned80", 0.8), ("gradual80", 0.0), ("dense", 0.0)])
def test_embedded_starts_from_a_tiny_model_as_sparse_as_the_recipe_needs(recipe, sparsity):
    config = configure(f"recipe={recipe}", "profile=embedded")
    assert isinstance(config.model, TinyModel)
    assert (config.model.name, config.model.checkpoint, config.model.sparsity) == ("tiny", None, sparsity)
    assert config.data.source == "embedded"


def test_a_mirror_is_read_even_with_the_embedded_profile():
    assert configure("profile=embedded", "data.root=mirror").data.source == "local"


# ---- the command line has the last word ----


def segment(config: Config, name: str) -> LearningRate:
    return config.recipe.learning_rate[name]


def test_the_recipes_sparsity_arrives_in_the_modifier():
    config = configure("recipe=gradual80", "recipe.sparsity=0.9")
    assert isinstance(config.sparsity, MagnitudePruning)
    assert config.sparsity.final_sparsity == 0.9


def test_the_recipes_start_sparsity_arrives_in_modifier_and_tiny_model():
    config = configure("recipe=pruned80", "profile=embedded", "recipe.start_sparsity=0.6")
    assert isinstance(config.sparsity, ConstantPruning)
    assert isinstance(config.model, TinyModel)
    assert (config.sparsity.min_sparsity, config.model.sparsity) == (0.6, 0.6)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_learning_rate_arrives_in_every_segment(profile):
    config = configure("recipe=pruned80", f"profile={profile}", "train.learning_rate=0.25")
    warmup, decay = segment(config, "warmup"), segment(config, "decay")
    assert (warmup.init_lr, warmup.final_lr) == (0.0, 0.25)
    assert (decay.init_lr, decay.final_lr) == (0.25, 0.0)


@pytest.mark.parametrize("profile", PROFILES)
def test_any_number_of_recipe_train_and_profile_can_be_overridden(profile):
    config = configure(
        "recipe=gradual80",
        f"profile={profile}",
        "train.epochs=3.5",
        "train.batch_size=7",
        "sparsity.end=70%",
        "sparsity.update_frequency=2 steps",
        "teacher.distillation.hardness=0.25",
        "recipe.weight_decay.weight_decay=0.125",
        "recipe.learning_rate.warmup.end=50 steps",
        "task.max_train_samples=11",
        "seed=3",
    )
    assert (config.train.epochs, config.train.batch_size, config.seed) == (3.5, 7, 3)
    assert isinstance(config.sparsity, MagnitudePruning)
    assert (config.sparsity.end, config.sparsity.update_frequency) == ("70%", "2 steps")
    assert (config.teacher.distillation.hardness, config.teacher.distillation.temperature) == (0.25, 2.0)
    assert config.recipe.weight_decay.weight_decay == 0.125
    assert segment(config, "warmup").end == "50 steps"
    assert config.task.max_train_samples == 11


def test_groups_given_on_the_command_line_beat_the_recipe_and_the_profile():
    config = configure("recipe=gradual80", "profile=embedded", "recipe.sparsity=0.75", "sparsity=n_m", "model=minilm")
    assert isinstance(config.sparsity, MagnitudePruning)
    assert (config.sparsity.mask_type, config.sparsity.final_sparsity) == ("1:4", 0.75)
    assert config.model.name == "minilm"


def test_distillation_can_be_switched_off():
    config = configure("recipe=gradual80", "teacher=none")
    assert config.teacher.source == "none"
    assert "teacher.distillation" not in config.modifiers()
    assert "sparsity" in config.modifiers()


def test_a_learning_rate_segment_can_be_removed_and_another_added():
    assert list(configure("recipe=gradual80", "~recipe.learning_rate.warmup").recipe.learning_rate) == ["decay"]
    config = configure(
        "recipe=dense",
        "recipe.learning_rate.decay.end=50%",
        "+modifier@recipe.learning_rate.again=LearningRate",
        "recipe.learning_rate.again.start=50%",
        "recipe.learning_rate.again.shape=constant",
        "recipe.learning_rate.again.init_lr=0.5",
    )
    assert (segment(config, "again").start, segment(config, "again").final_lr) == ("50%", 0.5)


def test_a_modifier_can_be_added_by_name():
    config = configure(
        "recipe=dense",
        "+modifier@recipe.modifiers.head=MagnitudePruning",
        "recipe.modifiers.head.final_sparsity=0.5",
        "recipe.modifiers.head.params=['re:classifier.*']",
    )
    head = config.modifiers()["recipe.modifiers.head"]
    assert isinstance(head, MagnitudePruning)
    assert (head.final_sparsity, head.params) == (0.5, ["re:classifier.*"])


def test_a_scheduler_can_stand_in_for_all_segments():
    words = [
        "recipe=dense",
        "~recipe.learning_rate.warmup",
        "~recipe.learning_rate.decay",
        "+modifier@recipe.modifiers.rate=ScheduledLearningRate",
        "recipe.modifiers.rate.lr_class=MultiStepLR",
        "+recipe.modifiers.rate.lr_kwargs={milestones: [0.5, 1], gamma: 0.1}",
        "recipe.modifiers.rate.init_lr=1e-4",
    ]
    rate = configure(*words).modifiers()["recipe.modifiers.rate"]
    assert isinstance(rate, ScheduledLearningRate)
    assert (rate.lr_kwargs, rate.init_lr) == ({"milestones": [0.5, 1], "gamma": 0.1}, 1e-4)
    with pytest.raises(ValueError, match=r"recipe\.learning_rate is empty"):
        RecipeSettings(name="x", modifiers={"decay": WeightDecay()})


# ---- values that cannot be ----


def squad(**fields: Any) -> QuestionAnswering:
    return QuestionAnswering(name="squad", dataset="squad", folder="squad", **fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Train(epochs=0), "train.epochs=0"),
        (lambda: Train(batch_size=0), "train.batch_size=0"),
        (lambda: Train(keep_checkpoints=-1), "train.keep_checkpoints=-1"),
        (lambda: Train(keep_states=0), "train.keep_states=0"),
        (lambda: Train(max_grad_norm=0), "train.max_grad_norm=0"),
        (
            lambda: Train(device="cpuu"),
            "train.device=cpuu: expected one of auto, cpu, cuda, mps, xpu. Did you mean 'cpu'?",
        ),
        (lambda: Train(device="cuda1"), "train.device=cuda1: expected one of auto, cpu, cuda, mps, xpu. Did you mean"),
        (lambda: Train(device="cuda:x"), "train.device=cuda:x: expected cuda, or a number such as cuda:1 or xpu:0."),
        (lambda: Train(device="cuda:"), "train.device=cuda:: expected cuda, or a number such as cuda:1"),
        (lambda: Train(device="cpu:0"), "train.device=cpu:0: expected cpu, or a number"),
        (lambda: Train(eval_every="2weeks"), "train.eval_every='2weeks' is not a time"),
        (lambda: Train(save_every=0), "train.save_every=0: expected a time above 0"),
        (lambda: RecipeSettings(name="x", start_sparsity=-0.1), "recipe.start_sparsity=-0.1"),
        (lambda: RecipeSettings(name="x"), "recipe.learning_rate is empty"),
        (lambda: Model(name="x", checkpoint="x", dropout=1), "model.dropout=1"),
        (lambda: Model(name="x", checkpoint="x", attn_implementation="spda"), "Did you mean 'sdpa'?"),
        (lambda: TinyModel(name="x", sparsity=1), "model.sparsity=1"),
        (lambda: TinyModel(name="x", hidden=10, heads=4), "model.hidden=10 is not a multiple of model.heads=4"),
        (
            lambda: Teacher(source="denze"),
            "teacher.source=denze: expected one of none, disable, dense, checkpoint, self",
        ),
        (lambda: Teacher(path="x"), "teacher.path=x is not used by teacher=none; write teacher=checkpoint."),
        (lambda: Log(tracker="wandbb"), "Did you mean 'wandb'?"),
        (lambda: Log(mode="on"), "log.mode=on: expected one of offline, online."),
        (lambda: Log(every=0), "log.every=0"),
        (lambda: squad(max_train_samples=0), "task.max_train_samples=0"),
        (lambda: squad(max_length=128, doc_stride=128), "task.doc_stride=128: expected 0 to task.max_length=128"),
        (lambda: squad(metric="accuracy"), "task.metric='accuracy': expected one of f1, exact_match."),
        (lambda: Distillation(hardness=2), "hardness=2"),
        (lambda: LearningRate(end="200%", final_lr=0.0), "end='200%' is after the end of the run: at most 100%."),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# ---- the hash of a configuration ----


def test_hydra_uses_the_run_name_for_runs_and_sweeps():
    cfg = compose("task=sst2", "train.epochs=4", "profile=embedded", hydra_too=True)
    assert cfg.hydra.run.dir == "outputs/sst2,tiny,dense,embedded,train.epochs=4,seed=42"
    assert cfg.hydra.sweep.subdir == "sst2,tiny,dense,embedded,train.epochs=4,seed=42"


def test_result_hash_ignores_the_log_and_the_place_of_the_cache():
    plain = configure("recipe=gradual80")
    told = configure(
        "recipe=gradual80",
        "log=tensorboard",
        "log.every=3",
        "log.tags=[a]",
        "data.cache=elsewhere",
        "export.max_abs_diff=1",
        "export.target_cpu=vnni",
    )
    assert plain != told
    assert result_hash(plain) == result_hash(told)


def test_every_limit_is_left_out_of_the_result():
    for group in (Data, Export):
        limits = {f"{group.__name__.lower()}.{field.name}" for field in fields(group) if field.name.startswith("max_")}
        assert limits
        assert not any(map(affects_result, limits))


@pytest.mark.parametrize("key", ["log", "log.every", "data.cache", "export.target_cpu", "train.threads", "data.root"])
def test_keys_below_a_group_are_left_out_with_it(key):
    assert not affects_result(key)


@pytest.mark.parametrize("key", ["zoo", "logs", "data", "data.train", "export", "export.opset"])
def test_other_keys_affect_the_result(key):
    assert affects_result(key)


def test_result_hash_sees_every_other_value():
    config = configure("recipe=gradual80")
    changed: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"profile": "embedded"},
        {"train": replace(config.train, epochs=9.0)},
        {"task": replace(config.task, max_length=256)},
        {"task": replace(config.task, name="other")},
        {"model": replace(config.model, checkpoint="other")},
        {"teacher": replace(config.teacher, path="some/run", source="checkpoint")},
        {"teacher": replace(config.teacher, distillation=Distillation(temperature=3.0))},
        {"sparsity": None},
        {"sparsity": MagnitudePruning(final_sparsity=0.7)},
        {"recipe": replace(config.recipe, learning_rate={"decay": segment(config, "decay")})},
        {"data": replace(config.data, train="rows.csv")},
        {"export": replace(config.export, opset=21)},
    ]
    assert len({result_hash(replace(config, **fields)) for fields in changed}) == len(changed)


# ---- files of one's own, outside this repository ----


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory with a task and a recipe as a user would write them."""
    files: dict[str, str] = {
        "task/trivia.yaml": """
            defaults:
              - kind@_here_: QuestionAnswering
              - _self_
            name: trivia
            dataset: me/trivia
            folder: trivia
            max_length: 256
            """,
        "recipe/half.yaml": """
            # @package _global_
            defaults:
              - override /sparsity: gradual
            recipe:
              name: half
              sparsity: 0.5
              learning_rate:
                decay: {shape: linear, init_lr: "${train.learning_rate}", final_lr: 0.0}
            train:
              epochs: 3
            """,
    }
    for name, text in files.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True)
        lines = text.strip("\n").splitlines()
        path.write_text("\n".join(line[12:] for line in lines) + "\n", encoding="utf-8")
    return tmp_path / "own"


def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The configuration that the command prints with ``--cfg job``."""
    from sparse_xp.__main__ import cli

    monkeypatch.setattr("sys.argv", ["sparse_xp", "--cfg", "job", *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # cli() sets it; here it is taken back after the test
    cli()
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_own_task_and_recipe_live_outside_the_repository(way, own, monkeypatch, capsys):
    place = ["--config-dir", str(own)] if way == "--config-dir" else [f"hydra.searchpath=[file://{own}]"]
    words = ["task=trivia", "recipe=half", "profile=embedded", "recipe.sparsity=0.6"]
    printed = run_command(monkeypatch, capsys, *place, *words)
    task = printed["task"]
    assert (task["name"], task["max_length"], task["n_best_size"]) == ("trivia", 256, 20)
    assert (printed["recipe"]["name"], printed["recipe"]["sparsity"]) == ("half", 0.6)
    assert printed["sparsity"]["final_sparsity"] == "${recipe.sparsity}"


def test_own_task_and_recipe_become_objects(own):
    config = configure(f"hydra.searchpath=[file://{own}]", "task=trivia", "recipe=half")
    assert isinstance(config.task, QuestionAnswering)
    assert isinstance(config.sparsity, MagnitudePruning)
    assert (config.sparsity.final_sparsity, config.train.epochs) == (0.5, 3.0)
    assert segment(config, "decay").init_lr == config.train.learning_rate
