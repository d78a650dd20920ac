#!/usr/bin/env bash
# A job for a machine that has a GPU and no network; README.md beside this file says what it does.
#   bash benchmarks/gpu/job.sh prepare DATA MINILM [TEXTS]    where there is a network: fills .gpu/ of the checkout
#   bash benchmarks/gpu/job.sh run [--minutes 9 ...]          there: installs the wheels beside what is there, and runs
# PYTHON: the interpreter that has torch and transformers (python3). OUT: where results go (gpu_results).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
inputs=.gpu
python=${PYTHON:-python3}

# What such a machine lacks, for its Python 3.12. The last two have no wheel of their own and are built.
wheels="hydra-core==1.3.8 omegaconf==2.3.1 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 evaluate==0.4.6
    backports.zstd==1.8.0 sentencex==1.0.32 docstring-parser==0.18.0"
built="antlr4-python3-runtime==4.9.3 seqeval==1.2.2"

prepare() {
    mkdir -p "$inputs/wheels"
    for name in $wheels; do
        "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
            --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
            -d "$inputs/wheels" "$name"
    done
    # shellcheck disable=SC2086
    "$python" -m pip wheel -q --no-deps -w "$inputs/wheels" $built
    "$python" -m benchmarks.gpu.prepare "$1" "$2" "$inputs" "${@:3}"
    du -sh "$inputs"/*
}

run() {
    site=${TMPDIR:-/tmp}/gpu_job_site
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" \
        "$inputs"/wheels/*.whl
    export PYTHONPATH=$PWD:$site PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
    export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=offline TOKENIZERS_PARALLELISM=false
    exec "$python" -m benchmarks.gpu.job --inputs "$inputs" --out "${OUT:-gpu_results}" "$@"
}

"$@"
