"""``python -m sparse_xp.verify``: a folder that answers as it did, and every way in which it may not."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from sparse_xp import Pipeline, verify
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.bundle import read_deployment
from sparse_xp.deployment.onnx_file import EXPORT_AGAIN
from sparse_xp.deployment.samples import check_samples, write_arrays
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import write_checksums
from sparse_xp.verify import main


def change(folder, name, **values):
    """Other values in a file of JSON, with checksums that fit."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    write_checksums(folder)


def test_a_folder_answers_as_where_it_was_made(folder, capsys):
    place = folder("sst2")
    capsys.readouterr()
    main([str(place)])
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert shown.out.startswith(f"{place}: {this_cpu().short} answers as {this_cpu()} did: onnxruntime logits of 4 ")
    assert not shown.err
    origin = read_deployment(place)
    assert (origin.integers, origin.portable, origin.limits.max_abs_diff) == (False, True, 1e-3)


def test_of_a_run(deployed, capsys):
    main([f"run={deployed('sst2')}", str(deployed("conll2003"))])
    assert capsys.readouterr().out.count(" answers as ") == 2


def test_other_logits(folder, capsys):
    place = folder("squad")
    path = place / "samples/out-0002.npz"
    values = dict(np.load(path))
    values["start_logits"][0, 1] += 0.01
    write_arrays(path, values)
    write_checksums(place)
    with pytest.raises(SystemExit) as stopped:
        main([str(place)])
    assert stopped.value.code == 1
    told = capsys.readouterr().err
    assert f"{place}: this machine, {this_cpu().short}, does not answer as {this_cpu()} did: the logits of 4 " in told
    assert "0.01 (limit 0.001)" in told
    with pytest.raises(UserError, match="does not answer as"):
        Pipeline(place, verify=True)
    Pipeline(place)
    Pipeline(place, verify=False)


def test_a_limit_for_integers(folder):
    place = folder("squad")
    change(place, "deployment.json", integers=True, limits={"max_abs_diff": None, "max_rms_diff": 0.03})
    recorded = {path.name: dict(np.load(path)) for path in sorted((place / "samples").glob("out-*"))}
    spread = np.concatenate([value.ravel() for each in recorded.values() for value in each.values()]).std()

    def forward(off):
        answers = iter(recorded.values())
        return lambda batch: {name: value + off * spread for name, value in next(answers).items()}

    assert check_samples(place, forward(0.029)) == "logits of 4 samples within 0.029 of their spread (limit 0.03)"
    for off in (0.031, float("nan")):
        with pytest.raises(UserError, match=r"differ by .* of their spread \(limit 0.03\)"):
            check_samples(place, forward(off))


def test_tokens_that_only_fill_up_do_not_count(folder):
    place = folder("squad")
    recorded = []
    for path in sorted((place / "samples").glob("inp-*")):
        batch = dict(np.load(path))
        batch["attention_mask"][0, -2:] = 0
        write_arrays(path, batch)
        recorded.append(dict(np.load(path.with_name(path.name.replace("inp", "out")))))

    def forward(off):
        answers = iter(recorded)

        def call(batch):
            found = {name: value.copy() for name, value in next(answers).items()}
            for value in found.values():
                value[0, -1] += 5.0
                value[0, 0] += off
            return found

        return call

    assert "within 0 (limit 0.001)" in check_samples(place, forward(0.0))
    with pytest.raises(UserError, match=r"differ by 0\.01"):
        check_samples(place, forward(0.01))
    assert "(limit 0.002)" in check_samples(place, forward(0.0015), tolerance_factor=2)


def test_another_file_and_one_that_is_missing(folder, capsys):
    place = folder("sst2")
    (place / "samples/inp-0000.npz").write_bytes(b"no zip")
    with pytest.raises(SystemExit):
        main([str(place)])
    assert "inp-0000.npz is not what was written (sha256)" in capsys.readouterr().err
    for path in (place / "samples").iterdir():
        path.unlink()
    write_checksums(place)
    with pytest.raises(UserError, match=r"checksums\.txt does not list samples/inp-0000\.npz"):
        verify.verify(place)
    with pytest.raises(UserError, match=r"has no samples/: copy the whole folder"):
        Pipeline(place, check=False, verify=True)
    (place / "deployment.json").unlink()
    write_checksums(place)
    with pytest.raises(UserError, match=r"checksums\.txt does not list deployment\.json"):
        verify.verify(place)
    with pytest.raises(UserError, match=r"deployment\.json is missing\."):
        Pipeline(place, check=False, verify=True)


DAMAGE = {
    "empty": lambda old: b"",
    "cut": lambda old: old[: len(old) // 2],
    "noise": lambda old: np.random.default_rng(0).bytes(3000),
    "list": lambda old: b"[]",
    "object": lambda old: b"{}",
    "number": lambda old: b"3",
    "latin-1": lambda old: old[:50] + b"\xff" + old[50:],
    "utf-16": lambda old: old.decode("utf-8", "replace").encode("utf-16"),
    "deep": lambda old: b"[" * 5000 + b"]" * 5000,
    "a long number": lambda old: b'{"a": ' + b"9" * 5000 + b"}",
    "missing": None,
    "a directory": None,
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    "name",
    [
        *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "task.json", "deployment.json"),
        *("samples/inp-0000.npz", "samples/out-0000.npz"),
    ],
)
def test_damage_is_an_error_in_words(folder, name, how):
    place = folder("sst2")
    path = place / name
    old = path.read_bytes()
    path.unlink()
    if DAMAGE[how]:
        path.write_bytes(DAMAGE[how](old))
    elif how == "a directory":
        path.mkdir()
    with pytest.raises(UserError, match=path.name):
        verify.verify(place)
    with pytest.raises(UserError, match=path.name):
        Pipeline(place)
    if name == "tokenizer_config.json":  # for transformers alone
        assert Pipeline(place, check=False)(text="a")["label"]
        return
    with pytest.raises(UserError, match=path.name) as raised:
        Pipeline(place, check=False, verify=True)
    assert len(str(raised.value).splitlines()) == 1
    if path.is_file():
        write_checksums(place)
        needed = name not in ("config.json", "tokenizer.json")  # texts and their tokens are not looked at
        assert verified(place) == (f"{place}/{name}" if needed else "")


def verified(place):
    """Nothing, or the beginning of the message up to the name of a file."""
    try:
        verify.verify(place)
    except UserError as error:
        return str(error).split(" ")[0]
    return ""


def packed(path):
    """Thirty megabytes of zeros in thirty kilobytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("logits.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 23)})
        file.write(bytes(1 << 25))


def larger_than_it_is(path):
    """An array that says it has terabytes."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("logits.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1, 1 << 40)})


MARK = []


class Pickled:
    """What unpickling would run."""

    def __reduce__(self):
        return MARK.append, (1,)


def sample(**changes):
    """Writes arrays that are those of the sample but for some."""

    def write(path):
        arrays = dict(np.load(path)) | changes
        write_arrays(path, {name: value for name, value in arrays.items() if value is not None})

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("out", packed, "cannot be used .it is packed, and samples are not"),
        ("out", larger_than_it_is, "cannot be used"),
        ("out", lambda path: np.savez(path, logits=np.array([Pickled()])), "cannot be used .*allow_pickle=False"),
        ("inp", lambda path: np.save(path.open("wb"), np.zeros(3)), "cannot be used .File is not a zip file"),
        ("inp", lambda path: write_arrays(path, {}), "holds no tokens and their mask"),
        ("out", lambda path: write_arrays(path, {}), "holds no logits"),
        ("inp", sample(input_ids=np.zeros((1, 4), np.float32)), "holds no tokens"),
        ("inp", sample(input_ids=np.zeros((1, 4), np.int64)), "holds no tokens"),
        ("inp", sample(attention_mask=None), "holds no tokens"),
        ("inp", sample(token_type_ids=None), "cannot be used"),
        ("out", sample(logits=np.zeros((2, 2), np.float32)), "is not what the file computes: logits"),
        ("out", sample(logits=np.zeros((1, 2), "S4")), "holds no logits"),
        ("out", sample(logits=None, other=np.zeros((1, 2), np.float32)), "is not what the file computes: other"),
    ],
)
def test_samples_that_are_none(folder, name, write, message):
    place = folder("sst2")
    path = place / f"samples/{name}-0001.npz"
    write(path)
    write_checksums(place)
    with pytest.raises(UserError, match=rf"{path} {message}.*{EXPORT_AGAIN}"):
        verify.verify(place)
    assert not MARK


def test_tokens_beyond_the_vocabulary(folder):
    place = folder("sst2")
    path = place / "samples/inp-0001.npz"
    shape = np.load(path)["input_ids"].shape
    sample(input_ids=np.full(shape, 10**6))(path)
    write_checksums(place)
    with pytest.raises(UserError, match=rf"{path} cannot be used"):
        verify.verify(place)


def test_recorded_logits_that_are_no_numbers(folder):
    place = folder("sst2")
    sample(logits=np.full((1, 2), np.nan, np.float32))(place / "samples/out-0001.npz")
    write_checksums(place)
    with pytest.raises(UserError, match="does not answer as"):
        verify.verify(place)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_damage_to_the_format_of_openvino(folder, name):
    pytest.importorskip("openvino")
    from sparse_xp.deployment.onnx_export import to_openvino

    place = folder("sst2")
    to_openvino(place / "model.onnx")
    (place / name).write_bytes(b"x")
    write_checksums(place)
    with pytest.raises(UserError, match=r"model\.xml cannot be used"):
        verify.verify(place)


def test_no_folder(capsys):
    with pytest.raises(SystemExit):
        main(["nowhere"])
    assert "nowhere holds no model.onnx: no such folder." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "portable", "told"), [("avx2", False, True), ("avx2", True, False), ("vnni", False, False)]
)
def test_a_file_that_is_not_portable_says_what_other_sessions_need(folder, monkeypatch, kind, portable, told):
    place = folder("sst2")
    change(place, "deployment.json", portable=portable)
    monkeypatch.setattr(verify, "this_cpu", lambda: SimpleNamespace(kind=kind, short="a CPU"))
    assert ("Sessions of your own need session.x64quantprecision=1 here" in verify.verify(place)) == told


def test_the_format_of_openvino_is_computed_too(folder):
    pytest.importorskip("openvino")
    from sparse_xp.deployment.onnx_export import to_openvino

    place = folder("sst2")
    to_openvino(place / "model.onnx")
    write_checksums(place)
    assert "; OpenVINO logits of 4 samples within" in verify.verify(place)


LIGHT = """
import sys
from sparse_xp.verify import main
main(sys.argv[1:])
assert not {"torch", "transformers", "datasets", "accelerate"} & set(sys.modules), sorted(sys.modules)
"""


def test_the_command_needs_neither_torch_nor_transformers(deployed):
    subprocess.run([sys.executable, "-c", LIGHT, str(deployed("sst2"))], check=True)
    done = subprocess.run([sys.executable, "-m", "sparse_xp.verify", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
