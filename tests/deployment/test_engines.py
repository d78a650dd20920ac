"""Which engines there are, that they compute the same, and that it is what the integers say."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparse_xp.deployment import engines
from sparse_xp.deployment.engines import (
    check_graph,
    choose_engines,
    engine_versions,
    onnxruntime_call,
    open_session,
    openvino_call,
    pad_to_shape,
)
from sparse_xp.deployment.graph import inspect_graph
from sparse_xp.deployment.onnx_file import check_self_contained, library_errors
from sparse_xp.errors import UserError
from sparse_xp.functional.saturation import saturating_product


def test_names_that_there_are_not():
    with pytest.raises(UserError, match=r"engine=onxruntime: expected onnxruntime or openvino\. Did you mean"):
        choose_engines(["onxruntime"])


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose_engines(None) == ["onnxruntime"]
    with pytest.raises(UserError, match=r"engine=openvino is not installed: pip install 'sparse-xp\[openvino\]'"):
        choose_engines(["onnxruntime", "openvino"])


def test_a_batch_is_filled_up_to_the_shape_of_a_file():
    batch = {"input_ids": np.array([[7, 8]]), "attention_mask": np.array([[1, 1]])}
    filled = pad_to_shape(batch, (2, 3))
    assert filled["input_ids"].tolist() == [[7, 8, 0], [0, 0, 0]]
    assert filled["attention_mask"].tolist() == [[1, 1, 0], [0, 0, 0]]
    assert pad_to_shape(batch, (None, None))["input_ids"].tolist() == [[7, 8]]
    with pytest.raises(UserError, match=r"2 tokens: the file was exported for 1 \(export\.sequence\)"):
        pad_to_shape(batch, (None, 1))


def test_both_compute_what_the_samples_say(deployed):
    pytest.importorskip("openvino")
    assert choose_engines(None) == ["onnxruntime", "openvino"]
    assert set(engine_versions(choose_engines(None))) == {"onnxruntime", "openvino"}
    folder = deployed("squad") / "deployment"
    inputs, wanted = (dict(np.load(folder / f"samples/{what}-0000.npz")) for what in ("inp", "out"))
    for call in (onnxruntime_call, openvino_call):
        found = call(folder / "model.onnx", 1)(inputs)
        values = list(found.values() if hasattr(found, "values") else found)
        for value, each in zip(values, wanted.values(), strict=True):
            np.testing.assert_allclose(value, each, atol=1e-4)


# Files that are not to be trusted


def elsewhere(path, location, where="initializer"):
    """A graph that adds four numbers, which are in the file ``location``."""
    values = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value=location)
    nodes, stored = [helper.make_node("Add", ["x", "w"], ["y"])], [values]
    if where == "constant":
        nodes, stored = [helper.make_node("Constant", [], ["w"], value=values), *nodes], []
    elif where == "branch":
        out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, [4])]
        branch = helper.make_graph([helper.make_node("Identity", ["w"], ["b"])], "b", [], out, [values])
        yes = numpy_helper.from_array(np.array(True), "yes")
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
        stored = [yes]
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [given], [found], stored)
    path.write_bytes(helper.make_model(graph, ir_version=9).SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["../secret", "{}/secret", "link", "inside", "nowhere"])
def test_weights_in_other_files_are_refused(tmp_path, location, where):
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (tmp_path / "secret", folder / "inside"):
        place.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (folder / "link").symlink_to(tmp_path / "secret")
    elsewhere(folder / "model.onnx", location.format(tmp_path), where)
    calls = [open_session, inspect_graph, lambda path: openvino_call(path, 1), lambda path: onnxruntime_call(path, 1)]
    for read in calls:
        if read is calls[2] and not engines.is_installed("openvino"):
            continue
        with pytest.raises(UserError, match=r"model\.onnx has weights in other files than"):
            read(folder / "model.onnx")


def test_a_whole_file_cut_anywhere_is_refused_in_words(deployed, tmp_path):
    whole = (deployed("sst2") / "deployment/model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    chance = np.random.default_rng(0)
    for place in (0, 1, 2, 10, *(int(each) for each in chance.integers(10, len(whole), 20))):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError, match=r"model\.onnx"):
            open_session(path)
    for _ in range(20):
        path.write_bytes(chance.bytes(100))
        with pytest.raises(UserError, match=r"model\.onnx"):
            open_session(path)
    check_self_contained(deployed("sst2") / "deployment/model.onnx")


def test_a_graph_that_is_no_encoder(deployed, tmp_path):
    path = tmp_path / "product.onnx"
    pairs_that_overflow(path)
    with pytest.raises(UserError, match=r"takes values tensor\(float\) .*; expected rows and tokens of input_ids"):
        check_graph(path, open_session(path), ("product",))
    session = open_session(deployed("sst2") / "deployment/model.onnx")
    check_graph(path, session, ("logits",))
    with pytest.raises(UserError, match=r"has the outputs logits, and no start_logits as task\.json says"):
        check_graph(path, session, ("start_logits",))


def test_what_ends_a_process_is_no_error_of_a_file(tmp_path):
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(error), library_errors(tmp_path):
            raise error
    panic = type("PanicException", (BaseException,), {})
    for error in (panic("in Rust\nat line 3"), RuntimeError("in Rust\nat line 3"), MemoryError("in Rust")):
        with (
            pytest.raises(UserError, match=r"cannot be used \(in Rust\)\. The folder is damaged") as raised,
            library_errors(tmp_path),
        ):
            raise error
        assert raised.value.__cause__ is error


# What the integers say, on every CPU


def pairs_that_overflow(path, most=127):
    """A product of uint8 and int8 whose neighbouring pairs go beyond 16 bits, and what it is exactly."""
    chance = np.random.default_rng(0)
    weights = chance.choice([-most, most], (64, 48)).astype(np.int8)
    one, zero, scale = np.float32(1), np.uint8(0), np.ones(48, np.float32)
    names = {"one": one, "zero": zero, "weights": weights, "scale": scale}
    nodes = [
        helper.make_node("QuantizeLinear", ["values", "one", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "one", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["weights", "scale"], ["matrix"], axis=1),
        helper.make_node("MatMul", ["rounded", "matrix"], ["product"]),
    ]
    shapes = {"values": ["rows", 3, 64], "product": ["rows", 3, 48]}
    given, found = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items())
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in names.items()]
    graph = helper.make_graph(nodes, "product", [given], [found], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    values = chance.choice([0, 254, 255], (2, 3, 64)).astype(np.uint8)
    exact = values.astype(np.int64) @ weights.astype(np.int64)
    return {"values": values.astype(np.float32)}, exact, saturating_product(values, weights)


def test_a_session_of_ours_is_exact_on_every_cpu(tmp_path):
    batch, exact, saturated = pairs_that_overflow(tmp_path / "product.onnx")
    assert (exact != saturated).mean() > 0.3
    assert (open_session(tmp_path / "product.onnx").run(None, batch)[0] == exact).all()
    # The engine's default is one or the other, by the CPU: the model of the saturating product is that of its kernel.
    default = open_session(tmp_path / "product.onnx", exact=False).run(None, batch)[0]
    assert any((default == known).all() for known in (exact, saturated))
    assert (open_session(tmp_path / "product.onnx", optimized=False).run(None, batch)[0] == exact).all()


def test_with_7_bits_any_session_is_exact(tmp_path):
    batch, exact, saturated = pairs_that_overflow(tmp_path / "product.onnx", most=63)
    assert (exact == saturated).all()
    assert (open_session(tmp_path / "product.onnx", exact=False).run(None, batch)[0] == exact).all()


@pytest.mark.parametrize(("most", "exact_call"), [(127, True), (63, False)])
def test_openvino_is_exact_too(tmp_path, most, exact_call):
    pytest.importorskip("openvino")
    batch, exact, _ = pairs_that_overflow(tmp_path / "product.onnx", most)
    found = openvino_call(tmp_path / "product.onnx", 1, exact=exact_call)(batch)
    assert (next(iter(found.values())) == exact).all()


@pytest.mark.parametrize(
    ("kind", "highest", "kept"),
    [("avx2", "", True), ("avx512", "", True), ("vnni", "", False), ("vnni", "AVX2", True), ("arm_dot", "", False)],
)
def test_openvino_keeps_integers_where_they_are_exact(monkeypatch, kind, highest, kept):
    monkeypatch.setattr(engines, "this_cpu", lambda: SimpleNamespace(kind=kind))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", highest)
    assert engines.openvino_saturates() == kept


@pytest.mark.parametrize("zero", [0, 128])
@pytest.mark.parametrize("call", [onnxruntime_call, openvino_call])
def test_a_product_of_two_activations_is_exact(tmp_path, zero, call):
    if call is openvino_call:
        pytest.importorskip("openvino")
    constants = {"one": np.float32(1), "none": np.uint8(0), "zero": np.uint8(zero)}
    nodes = [
        helper.make_node(kind, [source, "one", point], [made])
        for value, point in (("a", "none"), ("b", "zero"))
        for kind, source, made in (
            ("QuantizeLinear", value, f"q{value}"),
            ("DequantizeLinear", f"q{value}", f"d{value}"),
        )
    ]
    nodes.append(helper.make_node("MatMul", ["da", "db"], ["product"]))
    shapes = {"a": ["rows", 16, 64], "b": ["rows", 64, 16], "product": ["rows", 16, 16]}
    *given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "product", given, [found], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "x.onnx")
    chance = np.random.default_rng(0)
    a = chance.choice([0, 254, 255], (2, 16, 64)).astype(np.float32)
    b = chance.choice([0, 1, 254, 255], (2, 64, 16)).astype(np.float32) - zero
    answer = call(tmp_path / "x.onnx", 1)({"a": a, "b": b})
    values = next(iter(answer.values() if hasattr(answer, "values") else answer))
    assert (values == a.astype(np.int64) @ b.astype(np.int64)).all()
