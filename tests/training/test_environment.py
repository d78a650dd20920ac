"""Where a run computes, in which precision and how exactly: named, chosen, refused, and put back afterwards."""

from __future__ import annotations

import os
from contextlib import suppress

import onnxruntime
import pytest
import torch

from sparse_xp.errors import UserError
from sparse_xp.run import run
from sparse_xp.settings import Train
from sparse_xp.training.environment import PATIENCE, determinism, devices, find_device
from sparse_xp.training.precision import Numerics, choose_precision
from tests.runs import SHORT, configure

CPU, CUDA, XPU = map(torch.device, ("cpu", "cuda", "xpu"))


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: capability >= (8, 0))


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_what_a_gpu_computes_natively(monkeypatch, capability, precision):
    pretend_gpu(monkeypatch, capability)
    chosen, reason = choose_precision("auto", CUDA)
    assert chosen == precision
    assert f"compute capability {capability[0]}.{capability[1]}" in reason
    assert choose_precision("fp16", CUDA) == ("fp16", "")


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_other_devices(monkeypatch, native):
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: "An Intel GPU")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native)
    assert choose_precision("auto", XPU)[0] == choose_precision("auto", CPU)[0] == ("bf16" if native else "fp32")


def test_a_precision_that_the_device_lacks(monkeypatch):
    pretend_gpu(monkeypatch, (7, 0))
    with pytest.raises(
        UserError, match=r"train\.precision=bf16: A GPU does not compute bf16\. Write train\.precision="
    ):
        choose_precision("bf16", CUDA)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_continues_in_the_precision_of_the_beginning(monkeypatch, precision):
    pretend_gpu(monkeypatch, (8, 6))
    for device in (CPU, CUDA):
        continued, reason = choose_precision("auto", device, Numerics(precision, "cpu"))
        assert (continued, reason) == (precision, "in which the run began on cpu")


def test_auto_continues_in_no_precision_that_the_device_lacks():
    with pytest.raises(UserError, match=r"began in fp16 on cuda, and this CPU does not compute fp16\. Continue it on"):
        choose_precision("auto", CPU, Numerics("fp16", "cuda"))


@pytest.mark.parametrize("name", ["cuda:1", "cuda", "xpu:0"])
def test_a_device_that_is_not_there(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"train\.device={name}: PyTorch .* finds no such device here\. It finds cpu"):
        find_device(name)


def test_devices_are_named_by_their_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(find_device(name)) for name in ("auto", "cpu", "cuda", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:1"]
    with pytest.raises(UserError, match="It finds cpu, cuda:0, cuda:1"):
        find_device("cuda:2")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # accelerate launch --cpu
    assert str(find_device("auto")) == "cpu"


def test_several_processes_need_a_device_each(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"each of the 2 processes needs a device of its own.*CUDA_VISIBLE_DEVICES"):
        devices(Train(device="cuda:1")).__enter__()
    with pytest.raises(UserError, match=r"train\.device=mps is one device, and there are 2 processes"):
        devices(Train(device="mps")).__enter__()


def test_a_process_waits_longer_than_rank_0_works_alone():
    assert PATIENCE.total_seconds() > 12 * 3600


def test_engines_keep_to_the_threads_of_the_run(tmp_path, monkeypatch):
    cores, open_anew = [], onnxruntime.InferenceSession

    def opened(path, options, **more):
        cores.append(options.intra_op_num_threads)
        return open_anew(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    before = torch.get_num_threads()
    words = [*SHORT, "task=sst2", "recipe=dense", "train.epochs=1", "train.threads=2", f"data.cache={tmp_path}/cache"]
    run(configure(*words), tmp_path / "run")
    torch.set_num_threads(before)
    assert set(cores) == {2}


def flags() -> list[object]:
    cudnn = torch.backends.cudnn
    return [
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic, cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    ]  # fmt: skip


@pytest.mark.parametrize("workspace", [None, ":16:8", ":4096:2:16:8"])
def test_determinism_begins_and_ends_with_the_run(monkeypatch, workspace):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = flags()
    with determinism(Train()):
        assert flags() == before
    with suppress(UserError), determinism(Train(deterministic=True)):
        assert flags() == [True, False, True, False, ":16:8" if workspace == ":16:8" else ":4096:8"]
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        raise UserError("stop")
    assert flags() == before


def test_a_deterministic_run_quantizes_and_exports(tmp_path):
    words = [*SHORT, "task=sst2", "recipe=gradual80", "teacher=none", "quantization=int8", "train.epochs=1"]
    result = run(configure(*words, "train.deterministic=true", f"data.cache={tmp_path}/cache"), tmp_path / "run")
    assert result.deployment.integers
    assert not torch.are_deterministic_algorithms_enabled()
