"""The exported graph of integers: what is in it, what onnxruntime makes of it, and that it computes the same.

What a CPU computes that adds products in 16 bits is computed here by NumPy, so that both kinds are tested on each.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from datasets import Dataset
from onnx import numpy_helper

from sparse_xp.deployment.export import infer, open_session
from sparse_xp.deployment.graph import inspect_graph
from sparse_xp.deployment.integer_graph import (
    IntegerLinear,
    Requantize,
    dequantize,
    integer_copy,
    requantize,
    requantize_dynamic,
)
from sparse_xp.deployment.onnx_export import to_onnx
from sparse_xp.evaluation import EvalContext
from sparse_xp.functional.fake_quant import fake_quantize_activation
from sparse_xp.functional.quant_attention import prepare_attention
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_modules import QuantEmbedding, QuantLinear, freeze, prepare
from sparse_xp.functional.saturation import saturating_product
from tests.tiny import WORDS, make_tokenizer

# The operators


def test_requantize_by_hand():
    values = torch.tensor([-9.0, -1.0, -0.004, 0.016, 1.55, 9.0])
    found = requantize(values, torch.tensor(0.01), torch.tensor(100, dtype=torch.uint8))
    assert found.tolist() == pytest.approx([-1.0, -1.0, 0.0, 0.02, 1.55, 1.55])


def test_requantize_dynamic_by_hand():
    found = requantize_dynamic(torch.tensor([[-1.0, 0.016], [0.204, 1.55]]))  # scale 0.01, zero point 100
    assert found.flatten().tolist() == pytest.approx([-1.0, 0.02, 0.2, 1.55])


def test_dequantize_by_hand():
    values = torch.tensor([[1, -2, 3], [127, 0, -127]], dtype=torch.int8)
    scales = torch.tensor([0.5, 1.0, 2.0])
    assert dequantize(values, scales).tolist() == [[0.5, -2, 6], [63.5, 0, -254]]
    assert dequantize(values, torch.tensor(2.0)).tolist() == [[2, -4, 6], [254, 0, -254]]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_fewer_bits_are_cut_off(bits):
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    made, values = Requantize(low, high, bits), torch.linspace(-3, 4, 141) + 0.011
    expected = fake_quantize_activation(values, made.scale, made.zero_point.int(), bits)
    assert made(values).tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert len(set(made(values).tolist())) <= 2**bits


# Whole models

SIZES = {"vocab_size": len(WORDS), "max_position_embeddings": 16, "num_labels": 2}
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, **SIZES}
DISTILBERT = {"dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, **SIZES}


class Exported(SimpleNamespace):
    model: torch.nn.Module
    modules: dict[str, QuantLinear | QuantEmbedding]
    graph: onnx.GraphProto
    optimized: onnx.GraphProto
    session: onnxruntime.InferenceSession


def exported(place, architecture, config, quant_config, zero="", attention=False, **words):
    """A model that has seen three batches, its file, and that file as onnxruntime rewrites it."""
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).train()
    mode = QuantMode(active=True)
    modules = prepare(model, quant_config, mode, **words)
    if attention:
        prepare_attention(model, quant_config, mode)
    if zero:
        model.get_submodule(zero).weight.data[::2] = 0
        model.get_submodule(zero).weight.data[1, 3:6] = 0
    for i in range(3):
        model(torch.randint(5, len(WORDS), (4, 6), generator=torch.Generator().manual_seed(i)))
    freeze(modules)
    task = SimpleNamespace(outputs=("logits",), further_outputs=(), padding={})
    features = Dataset.from_dict({"input_ids": [[2, 5, 3]] * 2, "attention_mask": [[1, 1, 1]] * 2})
    context = EvalContext(
        task=task, tokenizer=make_tokenizer(), model=model, eval_rows=features, eval_features=features,
        eval_batch_size=2, device=torch.device("cpu"),
    )  # fmt: skip
    path = place / "model.onnx"
    to_onnx(context, path, 20)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(place / "optimized.onnx"), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Exported(
        model=model.eval(), modules=modules, graph=onnx.load(path).graph,
        optimized=onnx.load(place / "optimized.onnx").graph, session=open_session(path), path=path,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Three architectures, and with them what else can differ."""
    position = {**BERT, "max_position_embeddings": 20}  # RoBERTa counts positions from 2 on
    return {
        "bert": exported(
            tmp_path_factory.mktemp("bert"), "BertForMaskedLM", transformers.BertConfig(**BERT),
            QuantConfig(), "bert.encoder.layer.0.output.dense",
        ),
        "distilbert": exported(
            tmp_path_factory.mktemp("distilbert"), "DistilBertForSequenceClassification",
            transformers.DistilBertConfig(**DISTILBERT), QuantConfig(dynamic=True, per_channel=False),
        ),
        "roberta": exported(
            tmp_path_factory.mktemp("roberta"), "RobertaForTokenClassification",
            transformers.RobertaConfig(**position, pad_token_id=0),
            QuantConfig(weight_bits=5, activation_bits=6), linear_outputs=True,
        ),
        "bert of 7 bits": exported(
            tmp_path_factory.mktemp("seven"), "BertForMaskedLM", transformers.BertConfig(**BERT),
            QuantConfig(reduce_range=True),
        ),
        "bert with its attention": exported(
            tmp_path_factory.mktemp("attention"), "BertForMaskedLM", transformers.BertConfig(**BERT),
            QuantConfig(reduce_range=True), attention=True,
        ),
    }  # fmt: skip


NAMES = ("bert", "distilbert", "roberta", "bert of 7 bits", "bert with its attention")


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_computes_the_same_for_every_shape(cells, name):
    cell, worst, size = cells[name], 0.0, 0.0
    for rows, tokens in [(1, 2), (1, 9), (3, 6), (7, 16)]:
        words = torch.randint(5, len(WORDS), (rows, tokens), generator=torch.Generator().manual_seed(rows))
        mask = torch.ones_like(words)
        mask[0, tokens // 2 + 1 :] = 0
        with torch.no_grad():
            ours = cell.model(input_ids=words, attention_mask=mask).logits
            copied = integer_copy(cell.model)(input_ids=words, attention_mask=mask).logits
        theirs = infer(cell.session, {"input_ids": words.numpy(), "attention_mask": mask.numpy()})["logits"]
        assert theirs.shape == tuple(ours.shape)
        for other in (copied.numpy(), theirs):
            worst = max(worst, float(np.abs(ours.numpy() - other).max()))
        size = max(size, float(ours.abs().max()))
    # A value halfway between two integers may be rounded to either: a step of one, here and there.
    assert worst < 0.05 * size
    if name != "roberta":  # whose steps of 6 bits are four times as wide
        assert worst < 0.02 * size


def exact_product(activations, weights):
    return activations.astype(np.int32) @ weights.astype(np.int32)


def with_kernel(model, product):
    """A copy of a model whose Linears multiply integers by ``product``, as an engine does."""
    found = integer_copy(model)
    for module in found.modules():
        if isinstance(module, IntegerLinear):
            module.forward = kernel_of(module, product)
    return found


def kernel_of(module, product):
    scale, zero, weights = module.inputs.scale, int(module.inputs.zero_point), module.weight.numpy()

    def forward(values):
        activations = ((values / scale).round() + zero).clamp(0, 255).to(torch.uint8).numpy()
        sums = torch.from_numpy(product(activations, weights) - zero * weights.astype(np.int32).sum(0))
        return sums * (scale * module.scale) + module.bias

    return forward


@pytest.mark.parametrize(("name", "same"), [("bert", False), ("bert of 7 bits", True)])
def test_a_cpu_that_saturates_computes_the_same_of_7_bits_and_something_else_of_8(cells, name, same):
    cell = cells[name]
    words = torch.randint(5, len(WORDS), (3, 9), generator=torch.Generator().manual_seed(7))
    inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    with torch.no_grad():
        ours = cell.model(**inputs).logits
        exact, saturated = (
            with_kernel(cell.model, product)(**inputs).logits for product in (exact_product, saturating_product)
        )
    theirs = infer(cell.session, {name: value.numpy() for name, value in inputs.items()})["logits"]
    size = float(ours.abs().max())
    assert float((exact - ours).abs().max()) < 0.02 * size
    assert float(np.abs(exact.numpy() - theirs).max()) < 0.02 * size  # what a session of ours computes on any CPU
    assert torch.equal(exact, saturated) == same
    if not same:
        assert float((saturated - ours).abs().max()) > 0.02 * size


def test_a_product_of_two_activations_is_bounded_by_no_weight(cells):
    """Queries and keys are rounded here. With a zero point of 128 OpenVINO multiplies them as signed numbers."""
    inside = inspect_graph(cells["roberta"].path)
    assert (inside.largest_pair, inside.portable) == (510, False)


@pytest.mark.parametrize(("name", "bits"), [("bert", 8), ("bert of 7 bits", 7)])
def test_that_it_cannot_saturate_is_read_off_the_file(cells, name, bits):
    inside, most = inspect_graph(cells[name].path), 2 ** (bits - 1) - 1
    assert most < inside.largest_pair <= 2 * most
    assert inside.portable == (bits < 8)


def test_a_file_of_7_bits_computes_the_same_in_a_session_of_anybody(cells):
    cell = cells["bert of 7 bits"]
    words = np.random.default_rng(0).integers(5, len(WORDS), (7, 16))
    batch = {"input_ids": words, "attention_mask": np.ones_like(words)}
    plain = onnxruntime.InferenceSession(cell.path, providers=["CPUExecutionProvider"]).run(None, batch)[0]
    ours = infer(cell.session, batch)["logits"]
    assert np.abs(plain - ours).max() < 0.02 * np.abs(ours).max()


def test_tables_that_are_looked_up_keep_8_bits(cells):
    arrays = initializers(cells["bert of 7 bits"])
    table = arrays["model.bert.embeddings.word_embeddings.weight"]
    assert np.abs(table).max() == 127
    assert np.abs(arrays["model.cls.predictions.decoder.weight"]).max() == 63


def linears(cell):
    return sum(isinstance(module, QuantLinear) for module in cell.modules.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_is_an_integer_kernel(cells, name):
    kinds = Counter(node.op_type for node in cells[name].optimized.node)
    # Rounded outputs make another kernel of it; what multiplies in floating point is attention's own two products.
    integer = kinds["MatMulIntegerToFloat"] + kinds["DynamicQuantizeMatMul"] + kinds["QLinearMatMul"]
    # RoBERTa's queries and keys come out as integers here, and so are multiplied.
    products = {"roberta": 1, "bert with its attention": 2}.get(name, 0)
    assert integer - products == linears(cells[name]) > 5
    assert kinds["MatMul"] + kinds["FusedMatMul"] + products == 2
    assert kinds["Gemm"] == 0


def initializers(cell):
    return {each.name: numpy_helper.to_array(each) for each in cell.graph.initializer}


@pytest.mark.parametrize("name", NAMES)
def test_matrices_and_tables_are_int8_and_rows_are_looked_up_before_they_are_scaled(cells, name):
    cell, arrays = cells[name], initializers(cells[name])
    assert sum(array.dtype == np.int8 for array in arrays.values()) == len(cell.modules)
    assert all(array.ndim < 2 for array in arrays.values() if array.dtype == np.float32)
    lookups = [node for node in cell.graph.node if node.op_type == "Gather" and node.input[0] in arrays]
    tables = [node for node in lookups if arrays[node.input[0]].dtype == np.int8]
    assert len(tables) == len(cell.modules) - linears(cell)
    for node in tables:
        [reader] = [other for other in cell.graph.node if node.output[0] in other.input]
        assert reader.op_type == "DequantizeLinear"


@pytest.mark.parametrize("name", NAMES)
def test_query_key_and_value_read_one_conversion(cells, name):
    cell = cells[name]
    made_by = {output: node for node in cell.graph.node for output in node.output}
    sources = Counter()
    for node in cell.graph.node:
        if node.op_type == "MatMul" and all(made_by[x].op_type == "DequantizeLinear" for x in node.input):
            sources[made_by[node.input[0]].input[0]] += 1
    products = 2 * (name == "bert with its attention")
    assert sorted(sources.values(), reverse=True) == [3] + [1] * (linears(cell) - 3 + products)
    quantizers = [node for node in cell.graph.node if "QuantizeLinear" in node.op_type]
    quantizers = [node for node in quantizers if not node.op_type.startswith("De")]
    assert len(quantizers) == linears(cell) - 2 + (linears(cell) if name == "roberta" else 0) + 2 * products


def test_zeros_stay_zeros_in_the_file(cells):
    cell = cells["bert"]
    weight = cell.model.bert.encoder.layer[0].output.dense.weight.detach().numpy()
    stored = initializers(cell)["model.bert.encoder.layer.0.output.dense.weight"]
    assert (weight == 0).sum() >= 4 * 16 + 3
    assert (stored.T[weight == 0] == 0).all()
    assert (stored != 0).any()


def test_tied_weights_are_two_tables_of_one_matrix(cells):
    """The decoder has a scale for each word, the embedding one for all: they share the weight, not its integers."""
    model, arrays = cells["bert"].model, initializers(cells["bert"])
    decoder, table = model.cls.predictions.decoder, model.bert.embeddings.word_embeddings
    assert decoder.weight is table.weight
    assert arrays["model.cls.predictions.decoder.scale"].shape == (len(WORDS),)
    assert arrays["model.bert.embeddings.word_embeddings.scale"].shape == ()


def test_fewer_bits_in_the_file(cells):
    arrays = [array for array in initializers(cells["roberta"]).values() if array.dtype == np.int8]
    assert max(int(np.abs(array).max()) for array in arrays) == 15
    kinds = Counter(node.op_type for node in cells["roberta"].graph.node)
    assert kinds["Clip"] == kinds["QuantizeLinear"]


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_this_machine_is_in_the_file(cells, name):
    data = cells[name].path.read_bytes()
    for trace in (b"/" + b"work", b"/" + b"tmp", b"site-packages", b".py", b"def forward"):
        assert trace not in data


def test_a_module_with_two_names_and_one_that_is_never_run():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.second, self.idle = self.first, torch.nn.Linear(4, 4)

        def forward(self, values):
            return self.second(self.first(values))

    model = Twice()
    modules = prepare(model, QuantConfig(), QuantMode(active=True))
    values = torch.randn(8, 4)
    model(values)
    freeze(modules)
    copied = integer_copy(model)
    assert copied.first is copied.second
    torch.testing.assert_close(copied(values), model.eval()(values), atol=0.02, rtol=0)
