"""The flags of SparseML's commands and of Hugging Face's ``run_qa.py``, ``run_glue.py`` and ``run_ner.py``.

Each has words of ours, with ``{}`` for its value, or a note that says why it needs none. ``command`` handles those that
depend on others: the model, the recipe, the teacher, the task and the times.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """A flag. ``words``: what it is here. ``note``: more to say about it. ``switch``: it needs no value."""

    words: str = ""
    note: str = ""
    switch: bool = False


TRAINS = "every run trains, evaluates, exports and checks its file"
ADAMW = "the optimizer is AdamW with PyTorch's betas and epsilon, as in the old scripts by default"
BY_LENGTH = "batches are padded to their longest row; export.sequence=N fixes the length of the exported file's inputs"
WRITTEN = "a finished run is not made again and an unfinished one continues; delete its directory to start anew"
CACHED = "features are cached in data.cache; a changed task or model makes them anew"
DIRECTORY = "checkpoints of the hub are cached where HF_HOME says, for every program alike"
LOADERS = "batches are made in the training process"

FLAGS: dict[str, Flag] = {
    # what `command` puts together
    "model_name_or_path": Flag(),
    "model_path": Flag(),
    "distill_teacher": Flag(),
    "recipe": Flag(),
    "recipe_args": Flag(),
    "task": Flag(),
    "task_name": Flag(),
    "dataset_name": Flag(),
    "dataset_config_name": Flag(),
    "train_file": Flag("data.train={}"),
    "validation_file": Flag("data.validation={}"),
    "output_dir": Flag("hydra.run.dir={}"),
    "onnx_export_path": Flag(),
    "export_onnx_path": Flag(),
    "evaluation_strategy": Flag(),
    "eval_strategy": Flag(),
    "eval_steps": Flag(),
    "save_strategy": Flag(),
    "save_steps": Flag(),
    "warmup_ratio": Flag(),
    "report_to": Flag(),
    "metric_for_best_model": Flag(),
    "lr_scheduler_type": Flag(),
    "do_train": Flag(note=TRAINS, switch=True),
    "do_eval": Flag(note=TRAINS, switch=True),
    "do_predict": Flag(note="answers come from the exported file: python -m sparse_xp.predict", switch=True),
    # what has a word of its own
    "num_train_epochs": Flag("train.epochs={}"),
    "max_steps": Flag("train.steps={}"),
    "learning_rate": Flag("train.learning_rate={}"),
    "warmup_steps": Flag("train.warmup={} steps"),
    "weight_decay": Flag("recipe.weight_decay.weight_decay={}"),
    "max_grad_norm": Flag("train.max_grad_norm={}"),
    "per_device_train_batch_size": Flag("train.batch_size={}"),
    "per_device_eval_batch_size": Flag("train.eval_batch_size={}"),
    "per_gpu_train_batch_size": Flag("train.batch_size={}"),
    "per_gpu_eval_batch_size": Flag("train.eval_batch_size={}"),
    "gradient_accumulation_steps": Flag("train.gradient_accumulation_steps={}"),
    "group_by_length": Flag("train.group_by_length={}", switch=True),
    "seed": Flag("seed={}"),
    "save_total_limit": Flag("train.keep_checkpoints={}"),
    "load_best_model_at_end": Flag("train.keep_best={}", switch=True),
    "bf16": Flag("train.precision=bf16", switch=True),
    "fp16": Flag("train.precision=auto", "bf16 on a GPU from Ampere on, else fp16; train.precision=fp16 insists", True),
    "no_cuda": Flag("train.device=cpu", switch=True),
    "use_cpu": Flag("train.device=cpu", switch=True),
    "logging_steps": Flag("log.every={}"),
    "max_seq_length": Flag("task.max_length={}"),
    "max_length": Flag("task.max_length={}"),
    "doc_stride": Flag("task.doc_stride={}"),
    "version_2_with_negative": Flag("task.version_2_with_negative={}", switch=True),
    "null_score_diff_threshold": Flag("task.null_score_diff_threshold={}"),
    "n_best_size": Flag("task.n_best_size={}"),
    "max_answer_length": Flag("task.max_answer_length={}"),
    "max_train_samples": Flag("task.max_train_samples={}"),
    "max_eval_samples": Flag("task.max_eval_samples={}"),
    "max_val_samples": Flag("task.max_eval_samples={}"),
    "mlm_probability": Flag("task.mlm_probability={}"),
    "preprocessing_num_workers": Flag("data.workers={}"),
    "tokenizer_name": Flag("model.tokenizer={}"),
    "model_revision": Flag("model.revision={}"),
    "distill_hardness": Flag("teacher.distillation.hardness={}"),
    "distill_temperature": Flag("teacher.distillation.temperature={}"),
    "text_column_name": Flag(),
    "label_column_name": Flag(),
    # what needs no word
    "overwrite_output_dir": Flag(note=WRITTEN, switch=True),
    "resume_from_checkpoint": Flag(note="the same command continues an interrupted run", switch=True),
    "overwrite_cache": Flag(note=CACHED, switch=True),
    "cache_dir": Flag(note=DIRECTORY),
    "pad_to_max_length": Flag(note=BY_LENGTH, switch=True),
    "logging_strategy": Flag(note="history.jsonl has a line every log.every steps, and one for each evaluation"),
    "logging_first_step": Flag(note="log.every=1 has a line for every step", switch=True),
    "logging_dir": Flag(note="everything about a run is in its directory"),
    "run_name": Flag(note="a run is called as its directory"),
    "greater_is_better": Flag(note="of every metric of a task the higher value is better", switch=True),
    "test_file": Flag(note="evaluate on other rows: python -m sparse_xp.predict or another data.validation"),
    "max_predict_samples": Flag(note="answers come from the exported file: python -m sparse_xp.predict"),
    "max_test_samples": Flag(note="answers come from the exported file: python -m sparse_xp.predict"),
    "fp16_full_eval": Flag(note="evaluation is in fp32", switch=True),
    "bf16_full_eval": Flag(note="evaluation is in fp32", switch=True),
    "fp16_opt_level": Flag(note="mixed precision is PyTorch's own"),
    "fp16_backend": Flag(note="mixed precision is PyTorch's own"),
    "adam_beta1": Flag(note=ADAMW),
    "adam_beta2": Flag(note=ADAMW),
    "adam_epsilon": Flag(note=ADAMW),
    "optim": Flag(note=ADAMW),
    "adafactor": Flag(note=ADAMW, switch=True),
    "label_smoothing_factor": Flag(note="there is no label smoothing"),
    "return_entity_level_metrics": Flag(note="result.json has the scores of every class", switch=True),
    "label_all_tokens": Flag(note="the first sub-word of a word is trained on, as by default there", switch=True),
    "dataloader_num_workers": Flag(note=LOADERS),
    "dataloader_drop_last": Flag(note="the last batch of an epoch is used, weighted by its rows", switch=True),
    "local_rank": Flag(note="accelerate launch or torchrun start the processes"),
    "use_auth_token": Flag(note="huggingface-cli login, or HF_TOKEN", switch=True),
    "token": Flag(note="huggingface-cli login, or HF_TOKEN"),
    "trust_remote_code": Flag(note="no code of a checkpoint or of a data set is run", switch=True),
    "use_fast_tokenizer": Flag(note="tokenizers are the fast ones", switch=True),
    "use_slow_tokenizer": Flag(note="tokenizers are the fast ones", switch=True),
    "ignore_mismatched_sizes": Flag("model.new_head={}", switch=True),
    "push_to_hub": Flag(note="the delivered model/ is uploaded with huggingface-cli upload", switch=True),
    "disable_tqdm": Flag(note="the progress bar shows on a terminal only", switch=True),
    "remove_unused_columns": Flag(note="columns that a task does not name are not read", switch=True),
    # of sparseml.transformers.export_onnx
    "sequence_length": Flag("export.sequence={}"),
    "opset": Flag("export.opset={}"),
    "onnx_file_name": Flag(note="the file is deployment/model.onnx"),
    "no_convert_qat": Flag(note="an 8-bit model is exported with integer weights and products", switch=True),
    "num_export_samples": Flag(note="deployment/ holds sample inputs and outputs"),
    "finetuning_task": Flag(note="a run knows its task"),
}
