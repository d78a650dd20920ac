# Everything a developer or a newcomer types. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup run table prune-ofa test golden torture mutate check dist clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/ready ## a ready .venv/ with the tested versions

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup ## train, prune, distil, export and check on the embedded data; ends in a table
	$(BIN)/python -m sparse_xp --multirun --config-dir sweeps --config-name demo
	$(BIN)/python -m sparse_xp.report outputs/demo

table: setup ## NAME=sparse_transfer [PROFILE=embedded] [ARGS="seed=1 train.threads=1"]: a published table, anew
	@test -f 'sweeps/$(NAME).yaml' || { echo 'NAME=$(NAME): want one of $(basename $(notdir $(wildcard sweeps/*.yaml)))'; exit 2; }
	$(BIN)/python -m sparse_xp --multirun --config-dir sweeps --config-name $(NAME) $(if $(PROFILE),profile=$(PROFILE)) \
		$(ARGS); made=$$?; $(BIN)/python -m sparse_xp.report outputs/$(NAME) && exit $$made

EMBEDDED = $(BIN)/python -m sparse_xp profile=embedded log=none
OFA := outputs/prune_ofa_embedded

prune-ofa: setup ## Prune Once for All on the embedded data: prepare, prune at 90 %, transfer, 8 bits; and pruning downstream
	$(EMBEDDED) task=wikipedia recipe=teacher_preparation hydra.run.dir=$(OFA)/teacher
	$(EMBEDDED) task=wikipedia recipe=pruneofa90 model.checkpoint=$(OFA)/teacher hydra.run.dir=$(OFA)/student
	$(EMBEDDED) task=sst2 recipe=dense model.checkpoint=$(OFA)/teacher hydra.run.dir=$(OFA)/dense
	$(EMBEDDED) task=sst2 recipe=pruneofa_transfer model.checkpoint=$(OFA)/student teacher=checkpoint teacher.path=$(OFA)/dense hydra.run.dir=$(OFA)/transfer
	$(EMBEDDED) task=sst2 recipe=pruneofa_quant model.checkpoint=$(OFA)/transfer teacher=checkpoint teacher.path=$(OFA)/dense hydra.run.dir=$(OFA)/quant train.epochs=3 train.learning_rate=5e-4
	$(EMBEDDED) task=sst2 recipe=gradual80 recipe.sparsity=0.9 model.checkpoint=$(OFA)/teacher teacher=checkpoint teacher.path=$(OFA)/dense hydra.run.dir=$(OFA)/downstream
	$(BIN)/python -m sparse_xp.report $(OFA)

test: setup ## [ARGS="-m slow"]: the test suite (offline, CPU, a few minutes)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10 $(ARGS)

golden: setup ## record the losses that tests/test_golden_losses.py compares with, anew
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.golden_losses

torture: setup ## [ARGS="kills=30 recipes=1000"]: kills, damaged recipes, files and texts by the thousand (docs/reliability.md)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.torture $(ARGS)

mutate: setup ## [ARGS="mutants=300 seed=2"]: change the core at random and list the changes that no test notices
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutate]'
	$(BIN)/python -m tests.mutate $(ARGS)

check: setup ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: setup ## wheel and source distribution in dist/, checked (docs/release.md)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean: ## remove outputs and caches, keep .venv
	rm -rf outputs .mypy_cache .ruff_cache .pytest_cache build dist
