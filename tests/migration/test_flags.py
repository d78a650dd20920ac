"""Commands of the old scripts, as typed, are answered with a command of ours that composes."""

from __future__ import annotations

import json
import shlex

import pytest

from sparse_xp.choices import overrides_in
from sparse_xp.cli import quote_paths
from sparse_xp.migration.command import answer_flags
from sparse_xp.migration.flags import FLAGS
from sparse_xp.places import CONF
from sparse_xp.recipe.file import resolve
from tests.runs import configure

ZOO = "zoo:nlp/masked_language_modeling"
PRUNED80 = f"{ZOO}/bert-base/pytorch/huggingface/bookcorpus_wikitext/12layer_pruned80-none"
VNNI = f"{ZOO}/bert-base/pytorch/huggingface/wikipedia_bookcorpus/12layer_pruned80_quant-none-vnni"
DENSE = f"{ZOO}/bert-base/pytorch/huggingface/wikipedia_bookcorpus/base-none"
OBERT90 = f"{ZOO}/obert-base/pytorch/huggingface/wikipedia_bookcorpus/pruned90-none"
OBERT = f"{ZOO}/obert-base/pytorch/huggingface/wikipedia_bookcorpus/base-none"
SQUAD = "zoo:nlp/question_answering/obert-base/pytorch/huggingface/squad"
EXAMPLES = "python transformers/examples/pytorch"
TRAINS = "--do_train --do_eval --evaluation_strategy epoch"
TRANSFER = f"--model_name_or_path {PRUNED80} --distill_teacher models/teacher {TRAINS} --learning_rate 5e-5 --fp16"
SAVES = f"--num_train_epochs 5 --save_strategy epoch --save_total_limit 2 --recipe {PRUNED80}?recipe_type=transfer"
SHIFTS = (
    "--train_file squadshifts-train.json --validation_file squadshifts-val.json --do_train --do_eval "
    "--evaluation_strategy epoch --logging_strategy epoch --save_steps 1000 --preprocessing_num_workers 32 "
    "--per_device_train_batch_size 8 --per_device_eval_batch_size 32 --gradient_accumulation_steps 2 "
    "--max_seq_length 384 --doc_stride 128 --seed 42"
)
ARGUMENTS = """--recipe_args '{"num_epochs":8, "qat_start_epoch":4.0, "observer_epoch":7.0}'"""

#: a training command, and words that the answer has
TRAINING = {
    f"{EXAMPLES}/question-answering/run_qa.py --model_name_or_path bert-base-uncased --dataset_name squad {TRAINS} "
    "--per_device_train_batch_size 16 --max_seq_length 384 --doc_stride 128 --output_dir models/teacher --seed 2021": (
        "task=squad model=bert_base recipe=dense train.eval_every=1 train.batch_size=16 task.max_length=384 "
        "task.doc_stride=128 hydra.run.dir=models/teacher seed=2021"
    ),
    f"{EXAMPLES}/text-classification/run_glue.py --model_name_or_path bert-base-uncased --task_name mnli {TRAINS}": (
        "task=mnli model=bert_base recipe=dense"
    ),
    f"{EXAMPLES}/token-classification/run_ner.py --model_name_or_path bert-base-uncased --dataset_name conll2003 "
    f"{TRAINS} --preprocessing_num_workers 16": "task=conll2003 recipe=dense data.workers=16",
    f"{EXAMPLES}/question-answering/run_qa.py {TRANSFER} --dataset_name squad {SAVES}-SQuAD": (
        "task=squad model=bert_base_pruned80 recipe=file teacher=checkpoint teacher.path=models/teacher "
        "train.precision=auto train.epochs=5 train.save_every=1 train.keep_checkpoints=2"
    ),
    f"{EXAMPLES}/text-classification/run_glue.py {TRANSFER} --task_name qqp --warmup_steps 11000 {SAVES}-QQP": (
        "task=qqp model=bert_base_pruned80 recipe=file 'train.warmup=11000 steps'"
    ),
    f"{TRANSFER} --task_name mnli --warmup_steps 12000 {SAVES}-MNLI": "task=mnli model=bert_base_pruned80",
    f"{TRANSFER} --dataset_name conll2003 {SAVES}-CoNLL2003": "task=conll2003 model=bert_base_pruned80",
    f"{TRANSFER} --task_name sst2 --warmup_steps 2000 {SAVES}-SST2": "task=sst2 model=bert_base_pruned80",
    f"sparseml.transformers.train.question_answering --dataset_name squad --model_name_or_path {OBERT90} "
    f"--recipe {SQUAD}/pruned90_quant-none --distill_teacher {SQUAD}/base-none --output_dir out --do_train --do_eval "
    "--evaluation_strategy epoch --logging_steps 1000 --save_steps 1000": (
        "task=squad model=bert_base_pruned90 recipe=file teacher=checkpoint log.every=1000 "
        "'train.save_every=1000 steps'"
    ),
    f"sparseml.transformers.train.question_answering --recipe {SQUAD}/pruned90_quant-none {ARGUMENTS} "
    f"--model_name_or_path {OBERT90} --distill_teacher disable {SHIFTS}": (
        "task=custom_qa data.train=squadshifts-train.json data.validation=squadshifts-val.json teacher=disable "
        """'recipe.args={"num_epochs": 8, "qat_start_epoch": 4.0, "observer_epoch": 7.0}'"""
    ),
    f"--recipe {SQUAD}/base-none --recipe_args '{{\"num_epochs\":5, \"init_lr\":0.0002}}' --model_name_or_path {OBERT} "
    f"--distill_teacher disable {SHIFTS} --output_dir dense_teacher": "task=custom_qa model=bert_base recipe=file",
    f"--recipe {SQUAD}/pruned90_quant-none {ARGUMENTS} --model_name_or_path {OBERT90} "
    f"--distill_teacher ./dense_teacher {SHIFTS}": "teacher=checkpoint teacher.path=./dense_teacher",
    "sparseml.transformers.question_answering --model_name_or_path bert-base-uncased --dataset_name squad --do_train "
    "--do_eval --output_dir ./output --cache_dir cache --distill_teacher disable --recipe "
    "zoo:nlp/question_answering/bert-base/pytorch/huggingface/squad/pruned-aggressive_98": (
        "task=squad model=bert_base recipe=file teacher=disable hydra.run.dir=./output"
    ),
    f"sparseml.transformers.question_answering --model_name_or_path {VNNI} --dataset_name squad --do_train --do_eval "
    f"--distill_teacher disable --recipe {VNNI}?recipe_type=transfer-question_answering": "model=bert_base_pruned80",
    f"sparseml.transformers.question_answering --model_name_or_path {DENSE} --dataset_name squad --do_train --do_eval "
    f"--output_dir models/teacher --recipe {DENSE}?recipe_type=transfer-question_answering": "model=bert_base",
    # what these scripts take besides
    "--model_name_or_path distilbert-base-uncased --dataset_name glue --dataset_config_name sst2 --do_train "
    "--warmup_ratio 0.06 --weight_decay 0.01 --bf16 --max_train_samples 500 --max_eval_samples=100 --max_steps 50 "
    "--lr_scheduler_type cosine --group_by_length False --no_cuda --report_to none --load_best_model_at_end True "
    "--metric_for_best_model eval_accuracy --overwrite_output_dir --pad_to_max_length": (
        "task=sst2 model=distilbert train.warmup=6% recipe.weight_decay.weight_decay=0.01 train.precision=bf16 "
        "task.max_train_samples=500 task.max_eval_samples=100 train.steps=50 recipe.learning_rate.decay.shape=cosine "
        "train.group_by_length=false train.device=cpu log=none train.keep_best=true task.metric=accuracy"
    ),
    "--dataset_name squad_v2 --version_2_with_negative --do_train --eval_strategy steps --eval_steps 250 "
    "--lr_scheduler_type constant_with_warmup": (
        "task=squad_v2 task.version_2_with_negative=true 'train.eval_every=250 steps'"
    ),
    "--train_file train.json --text_column_name words --label_column_name pos_tags --task token-classification "
    "--do_train --model_name_or_path 'my model, v=2'": (
        "task=custom_ner task.tokens=words task.tags=pos_tags 'model.checkpoint=\"my model, v=2\"'"
    ),
}  # fmt: skip


def answered(line: str) -> tuple[list[str], str]:
    """The words of the command in the answer, and the lines below it."""
    first, empty, command, *notes = answer_flags(shlex.split(line)).split("\n")
    assert first.endswith("The same command here:")
    assert empty == ""
    return shlex.split(command), "\n".join(notes)


@pytest.mark.parametrize("line", TRAINING)
def test_the_answer_to_a_training_command_composes(line):
    words, _ = answered(line)
    assert words[:3] == ["python", "-m", "sparse_xp"]
    assert set(shlex.split(TRAINING[line])) <= set(words)
    overrides = [word for word in overrides_in(quote_paths(words[3:])) if not word.startswith("hydra.")]
    config = resolve(configure(*overrides))
    assert len(config.recipe.modifiers) > 0 or "recipe=dense" in words


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            f"{EXAMPLES}/question-answering/run_qa.py --model_name_or_path models/m --dataset_name squad --do_eval "
            "--max_seq_length 384 --output_dir models/m/eval --onnx_export_path models/m/onnx",
            "python -m sparse_xp.export run=models/m out=models/m/onnx",
        ),
        (
            "sparseml.transformers.export_onnx --model_path ./output --task 'question-answering'",
            "python -m sparse_xp.export run=./output",
        ),
        ("--model_path output --task question_answering", "python -m sparse_xp.export run=output"),
        (
            f"--model_path {SQUAD}/base-none --task question_answering --dataset_name squad --sequence_length 384",
            "python -m sparse_xp.export task=squad model.checkpoint=neuralmagic/oBERT-teacher-squadv1 out=exported "
            "export.sequence=384",
        ),
    ],
)
def test_an_export_is_answered_with_the_export_command(line, command):
    words, _ = answered(line)
    assert shlex.join(words) == command


def test_a_model_without_a_public_copy_is_answered_with_the_nearest():
    _, notes = answered(f"--model_name_or_path {PRUNED80} --task_name sst2 --do_train")
    assert f"{PRUNED80} has no public copy; the nearest is Intel/" in notes


def test_a_task_that_cannot_be_known_is_asked_for(tmp_path):
    words, notes = answered("--train_file rows.json --do_train --learning_rate 3e-5")
    assert "task=TASK" in words
    assert "task=custom_qa, custom_classification, custom_ner or custom_text" in notes
    (tmp_path / "rows.json").write_text(json.dumps({"data": [{"question": "?", "context": "", "answers": []}]}))
    words, notes = answered(f"--train_file {tmp_path}/rows.json --do_train")
    assert "task=custom_qa" in words


def test_flags_without_a_counterpart_say_why():
    _, notes = answered("--dataset_name squad --do_train --cache_dir cache --overwrite_output_dir --pad_to_max_length")
    for name in ("do_train", "cache_dir", "overwrite_output_dir", "pad_to_max_length"):
        [line] = [line for line in notes.splitlines() if line.startswith(f"--{name}: ")]
        assert line == f"--{name}: {FLAGS[name].note}."


def test_unknown_flags_are_named_with_the_nearest():
    words, notes = answered("--dataset_name squad --do_train --num_train_epoch 5 --learning_rate=1e-4 --zzz")
    assert "train.learning_rate=1e-4" in words
    assert "--num_train_epoch: unknown, and left out. Did you mean --num_train_epochs?" in notes
    assert "--zzz: unknown, and left out." in notes
    _, notes = answered("--num_train_epoch 5")
    assert "Did you mean --num_train_epochs?" in notes


def test_words_of_ours_come_first_and_hydras_options_stay():
    words, _ = answered(
        "--config-dir mine -m --num_train_epochs 3 --dataset_name squad train.epochs=4 recipe=gradual80"
    )
    assert words[3:] == ["task=squad", "--config-dir", "mine", "-m", "train.epochs=4", "recipe=gradual80"]


@pytest.mark.parametrize(
    "line",
    ["task=squad recipe=dense", "-m recipe=dense,pruned80", "--cfg job", "--task squad", "--seed 42", "--x\x07 1"],
)
def test_other_commands_are_not_answered(line):
    assert answer_flags(line.split()) is None


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_on_the_page_and_has_an_answer(name):
    page = CONF.parent / "docs" / "migration.md"
    if page.exists():
        assert f"`--{name}" in page.read_text(encoding="utf-8")
    line = f"--dataset_name squad --do_train --{name} {'' if FLAGS[name].switch else '1'}"
    assert answer_flags(line.split()) is not None
