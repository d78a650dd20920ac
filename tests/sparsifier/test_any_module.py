"""Recipes on modules of every kind: what works on all of them, and what says that it needs an encoder."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers import T5Config, T5ForConditionalGeneration

from sparse_xp.errors import UserError
from sparse_xp.functional.quant_modules import QuantEmbedding, QuantLinear
from sparse_xp.functional.selection import select_parameters
from sparse_xp.modifiers import (
    ACDCPruning,
    AttentionDistillation,
    ConstantPruning,
    Distillation,
    EmbeddingPruning,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    RewoundLearningRate,
    SetParam,
    SoftMovementPruning,
    StructuredPruning,
    TrainableParams,
    WeightDecay,
)
from tests.sparsifier.loops import MODELS, STEPS, Cnn, forward, make_batches, make_model, sparsify, train

ALL = ["__ALL_PRUNABLE__"]
SOME = ("mlp", "cnn", "gpt2")


def zeros(model: nn.Module) -> tuple[int, int]:
    """Return the zeros in all matrices that can be pruned, and their elements; not in tied embeddings."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    weights = [each for each in select_parameters(model, ALL).values() if id(each) not in tables]
    return sum(int((each == 0).sum()) for each in weights), sum(each.numel() for each in weights)


PRUNING: dict[str, Modifier] = {
    "magnitude": MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%"),
    "regrowing": MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%", regrow=True),
    "global": MagnitudePruning(final_sparsity=0.5, params=ALL, end="50%", global_sparsity=True),
    "movement": MovementPruning(final_sparsity=0.5, params=ALL, start="2 steps", end="50%"),
    "second order": OBSPruning(final_sparsity=0.5, params=ALL, end="50%", num_grads=4, damp=1e-3),
    "ac/dc": ACDCPruning(compression_sparsity=0.5, params=ALL, update_frequency="2 steps"),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [*((kind, "magnitude") for kind in MODELS), *((kind, name) for kind in SOME for name in PRUNING)],
)
def test_pruning_leaves_the_zeros_of_its_target(kind: str, name: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    sparsifier = sparsify(model, [PRUNING[name]], batches=batches)
    train(sparsifier, model, batches)
    [modifier] = sparsifier.modifiers.values()
    for target, mask in modifier.masks.items():  # type: ignore[attr-defined]
        assert not model.get_parameter(target)[~mask].any()
    sparsifier.finalize()
    pruned, total = zeros(model)
    assert abs(pruned / total - 0.5) < 0.02


@pytest.mark.parametrize("kind", SOME)
def test_soft_movement_prunes_what_it_decides_to(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    recipe = SoftMovementPruning(params=ALL, end="75%", final_threshold=0.45, final_lambda=0.0, score_learning_rate=0.1)
    sparsifier = sparsify(model, [recipe])
    train(sparsifier, model, batches)
    sparsifier.finalize()
    assert 0 < zeros(model)[0] < zeros(model)[1]


@pytest.mark.parametrize("kind", MODELS)
def test_zeros_of_a_sparse_model_stay_and_others_move(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    with torch.no_grad():
        for weight in select_parameters(model, ALL).values():
            weight.mul_(torch.rand_like(weight) < 0.3)
    before = copy.deepcopy(model)
    sparsifier = sparsify(model, [ConstantPruning(params=ALL, min_sparsity=0.5)])
    train(sparsifier, model, batches)
    sparsifier.finalize()
    for name in sparsifier.modifiers["ConstantPruning"].masks:  # type: ignore[attr-defined]
        old, new = before.get_parameter(name), model.get_parameter(name)
        assert torch.equal(old == 0, new == 0)
        assert not torch.equal(old, new)


def test_the_default_prunes_the_linears_of_an_encoder_of_pytorch_with_its_fused_attention() -> None:
    model, batches = make_model("torch encoder"), make_batches("torch encoder")
    sparsifier = sparsify(model, [MagnitudePruning(final_sparsity=0.5)])
    train(sparsifier, model, batches)
    fused = model.encoder.layers[0].self_attn.in_proj_weight
    assert int((fused == 0).sum()) == fused.numel() // 2
    assert bool((model.head.weight != 0).all())


@pytest.mark.parametrize("kind", ["cnn", "recurrent"])
@pytest.mark.parametrize("token", ["__ENCODER__", "__BODY__"])
def test_a_token_of_linears_does_not_leave_convolutions_dense_silently(kind: str, token: str) -> None:
    with pytest.raises(UserError, match=r"has 2 other matrices .*params=\['__ALL_PRUNABLE__'\]"):
        sparsify(make_model(kind), [MagnitudePruning(final_sparsity=0.5, params=[token])])


def test_a_network_whose_layers_are_called_layers_is_asked_too() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Linear(4, 4)])
    with pytest.raises(UserError, match=r"1 other matrices \(layers.0.weight\)"):
        sparsify(model, [MagnitudePruning(final_sparsity=0.5)])


@pytest.mark.parametrize("mask_type", ["block4", [1, 4], "2:4"])
def test_tiles_are_refused_for_convolutions_and_for_transposed_weights(mask_type: Any) -> None:
    recipe = [MagnitudePruning(final_sparsity=0.5, params=ALL, mask_type=mask_type)]
    with pytest.raises(UserError, match=r"'conv1.weight' of shape \(8, 3, 3, 3\) is no matrix.*mask_type=unstructured"):
        sparsify(make_model("cnn"), recipe)
    with pytest.raises(UserError, match=r"c_attn.weight' is stored as \[in, out\].*mask_type=unstructured"):
        sparsify(make_model("gpt2"), recipe)
    head = [MagnitudePruning(final_sparsity=0.5, params=["head.weight"], mask_type=mask_type)]
    model, batches = make_model("cnn"), make_batches("cnn")
    sparsifier = sparsify(model, head)
    train(sparsifier, model, batches)
    sparsifier.finalize()
    assert int((model.head.weight == 0).sum()) == 32


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, {}) for kind in MODELS),
        *(
            (kind, words)
            for kind in SOME
            for words in ({"dynamic": True}, {"weight_bits": 4}, {"calibration_rows": 16})
        ),
    ],
)
def test_linears_and_embeddings_are_quantized(kind: str, words: dict[str, Any]) -> None:
    model, batches = make_model(kind), make_batches(kind)
    start = {} if "calibration_rows" in words else {"start": "50%"}
    sparsifier = sparsify(model, [Quantization(**start, **words)], batches=batches)
    train(sparsifier, model, batches)
    sparsifier.finalize()
    modules = [each for each in model.modules() if isinstance(each, QuantLinear | QuantEmbedding)]
    assert modules
    for module in modules:
        assert module.quant.scale is not None
    if "dynamic" not in words:
        ranges = [each.quant.input_observer for each in modules if isinstance(each, QuantLinear)]
        assert all(each is not None and each.low is not None for each in ranges)


def test_a_model_without_linears_cannot_be_quantized() -> None:
    with pytest.raises(UserError, match=r"Quantization: Sequential has no Linear and no Embedding"):
        sparsify(nn.Sequential(nn.Conv2d(3, 4, 3)), [Quantization()])


def test_the_encoder_of_pytorch_evaluates_as_it_trains_once_it_is_quantized() -> None:
    model, batches = make_model("torch encoder"), make_batches("torch encoder")
    sparsifier = sparsify(model, [Quantization(observers_end="50%", weight_bits=2)])
    train(sparsifier, model, batches)
    sparsifier.finalize()
    with torch.no_grad():
        trained, evaluated = model.train()(batches[0][0]), model.eval()(batches[0][0])
    assert torch.allclose(trained, evaluated, atol=1e-6)


def test_modules_that_share_names_with_attention_have_ranges_of_their_own() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.query(inputs) + self.key(100 * inputs)

    model = Crossed()
    sparsifier = sparsify(model, [Quantization()])
    train(sparsifier, model, make_batches("mlp"))
    narrow, wide = (module.quant.input_observer.high for module in (model.query, model.key))  # type: ignore[union-attr]
    assert wide > 50 * narrow  # type: ignore[operator]


@pytest.mark.parametrize("kind", MODELS)
def test_distillation_compares_plain_tensors_and_outputs_of_transformers(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    teacher = make_model(kind, seed=5).eval()
    sparsifier = sparsify(model, [Distillation(hardness=1.0, temperature=1.0)], teacher=teacher)
    model.train()
    loss, outputs = forward(model, batches[0])
    total = sparsifier.loss(loss, outputs, batches[0])
    assert total > 0
    if isinstance(outputs, torch.Tensor):
        wanted = teacher(batches[0][0]).log_softmax(-1)
        assert torch.allclose(total, (wanted.exp() * (wanted - outputs.log_softmax(-1))).sum(-1).mean(), atol=1e-6)


def test_a_distillation_loss_of_ones_own_gets_all_as_it_is() -> None:
    model, batches, seen = make_model("cnn"), make_batches("cnn"), []

    def compare(student: Any, teacher: Any, batch: Any) -> torch.Tensor:
        seen.append((student, teacher, batch))
        return (student - teacher).abs().mean()

    sparsifier = sparsify(model, [Distillation(hardness=1.0)], teacher=make_model("cnn", seed=5), distillation=compare)
    model.train()
    loss, outputs = forward(model, batches[0])
    total = sparsifier.loss(loss, outputs, batches[0])
    [(student, teacher, batch)] = seen
    assert student is outputs
    assert batch is batches[0]
    assert torch.equal(total, (outputs - teacher).abs().mean())


def test_a_teacher_of_other_classes_is_refused() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    sparsifier = sparsify(model, [Distillation()], teacher=nn.Linear(8, 1))
    model.train()
    loss, outputs = forward(model, batches[0])
    with pytest.raises(UserError, match=r"'logits' is \(8, 4\) for the model and \(8, 1\) for the teacher"):
        sparsifier.loss(loss, outputs, batches[0])


def test_outputs_that_are_no_logits_are_compared_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"features": self.linear(inputs)}

    model, batch = Named(), make_batches("mlp")[0]
    chosen = sparsify(model, [Distillation(outputs=["features"])], teacher=Named())
    outputs = model(batch[0])
    assert chosen.loss(torch.zeros(()), outputs, batch) > 0
    chosen.finalize(unfinished=True)
    unnamed = sparsify(model, [Distillation()], teacher=Named())
    model(batch[0])
    with pytest.raises(UserError, match="The model returns features: no logits"):
        unnamed.loss(torch.zeros(()), outputs, batch)


def test_numbers_of_rows_are_compared_by_their_squared_error() -> None:
    model, teacher = (nn.Sequential(nn.Linear(8, 1), nn.Flatten(0)) for _ in range(2))
    batch = make_batches("mlp")[0]
    sparsifier = sparsify(model, [Distillation(hardness=1.0)], teacher=teacher)
    outputs = model(batch[0])
    total = sparsifier.loss(torch.zeros(()), outputs, batch)
    assert torch.allclose(total, (outputs - teacher(batch[0])).square().mean())


def test_a_batch_that_only_the_loop_understands_is_refused_before_training() -> None:
    batches = [(inputs, inputs, labels) for inputs, labels in make_batches("mlp")]
    with pytest.raises(UserError, match="A batch is a tuple of 3: expected"):
        sparsify(make_model("mlp"), [Quantization(calibration_rows=8)], batches=batches)


def test_an_encoder_with_a_decoder_has_ranges_for_each_of_its_attentions() -> None:
    config = T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    torch.manual_seed(0)
    model, teacher = T5ForConditionalGeneration(config), T5ForConditionalGeneration(config)
    batches = make_batches("llama")
    recipe = [MagnitudePruning(final_sparsity=0.5, end="50%"), Distillation(), Quantization(calibration_rows=16)]
    sparsifier = sparsify(model, recipe, teacher=teacher, batches=batches)
    train(sparsifier, model, batches)
    sparsifier.finalize()
    attention: Any = model.decoder.block[0].layer[1].EncDecAttention
    query, key = (each.quant.input_observer for each in (attention.q, attention.k))
    assert query.high != key.high


def test_logits_of_images_need_a_function() -> None:
    model = nn.Conv2d(3, 4, 1)
    sparsifier = sparsify(model, [Distillation()], teacher=nn.Conv2d(3, 4, 1))
    images = torch.randn(2, 3, 5, 5)
    with pytest.raises(UserError, match=r"logits of images.*distillation=FUNCTION"):
        sparsifier.loss(torch.zeros(()), model(images), (images, None))


def test_hidden_layers_of_plain_modules_are_compared_over_all_rows() -> None:
    model, teacher, batches = make_model("mlp"), make_model("mlp", seed=5), make_batches("mlp")
    recipe = PerLayerDistillation(
        gain=1.0, normalize=False, project_features=False, student_layer_names=["2"], teacher_layer_names=["2"]
    )
    sparsifier = sparsify(model, [recipe], teacher=teacher, batches=batches)
    model.train()
    loss, outputs = forward(model, batches[0])
    total = sparsifier.loss(loss, outputs, batches[0])
    inputs = batches[0][0]
    assert torch.allclose(total - loss, (model[:3](inputs) - teacher[:3](inputs)).square().mean())


@pytest.mark.parametrize("kind", MODELS)
def test_all_linears_of_any_module_can_be_compared(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    sparsifier = sparsify(model, [PerLayerDistillation()], teacher=make_model(kind, seed=5), batches=batches)
    train(sparsifier, model, batches)
    assert sparsifier.logs()["loss_layers"] > 0
    sparsifier.finalize()


def test_modules_that_give_no_tensors_are_not_compared() -> None:
    recipe = PerLayerDistillation(student_layer_names=["lstm"], teacher_layer_names=["re:.*lstm"])
    model, batches = make_model("recurrent"), make_batches("recurrent")
    sparsifier = sparsify(model, [recipe], teacher=make_model("recurrent", seed=5), batches=batches)
    train(sparsifier, model, batches, range(2))  # the first of its outputs counts
    with pytest.raises(UserError, match="has no Linear whose outputs could be compared"):
        sparsify(nn.Conv2d(3, 3, 1), [PerLayerDistillation()], teacher=nn.Conv2d(3, 3, 1), batches=make_batches("cnn"))
    with pytest.raises(UserError, match="give batches=LOADER"):
        sparsify(make_model("mlp"), [PerLayerDistillation()], teacher=make_model("mlp", seed=5))


NEEDS_ENCODER: dict[str, tuple[Modifier, str]] = {
    "heads": (StructuredPruning(final_sparsity=0.5, start="2 steps"), "StructuredPruning: "),
    "embeddings": (EmbeddingPruning(final_sparsity=0.5), "EmbeddingPruning: "),
    "layers": (LayerPruning(layers=["re:.*layers.0$"]), "LayerPruning: "),
    "attention": (AttentionDistillation(), "AttentionDistillation: "),
    "products": (Quantization(attention_products=True), "Quantization: "),
}


@pytest.mark.parametrize("kind", [kind for kind in MODELS if "bert" not in kind])
@pytest.mark.parametrize("name", NEEDS_ENCODER)
def test_what_needs_an_encoder_says_so(kind: str, name: str) -> None:
    modifier, beginning = NEEDS_ENCODER[name]
    model = make_model(kind)
    teacher = {"teacher": "self"} if name == "attention" else {}
    with pytest.raises(UserError) as caught:
        sparsify(model, [modifier], **teacher)
    assert str(caught.value).startswith(beginning)
    assert type(model).__name__ in str(caught.value)
    assert "BERT" in str(caught.value) or "MagnitudePruning" in str(caught.value)


@pytest.mark.parametrize("kind", MODELS)
def test_rates_decay_and_single_parameters(kind: str) -> None:
    model, batches = make_model(kind), make_batches(kind)
    bias = next(name for name, weight in model.named_parameters() if weight.dim() == 1)
    name = next(name for name, weight in model.named_parameters() if weight.dim() > 1)
    frozen = model.get_parameter(name).detach().clone()
    recipe = [
        LearningRate(init_lr=0.01, final_lr=0.0),
        WeightDecay(weight_decay=0.2),
        SetParam(params=[bias], val=3.0),
        TrainableParams(params=[name], trainable=False),
    ]
    sparsifier = sparsify(model, recipe)
    train(sparsifier, model, batches, range(1))
    assert torch.allclose(model.get_parameter(bias), torch.tensor(3.0), atol=0.05)
    train(sparsifier, model, batches, range(1, STEPS))
    assert torch.equal(model.get_parameter(name), frozen)
    [group] = sparsifier.context.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.01 / STEPS)
    assert group["weight_decay"] == 0.2


def test_the_rewound_rate_meets_a_plain_module() -> None:
    model, batches = make_model("mlp"), make_batches("mlp")
    sparsifier = sparsify(model, [RewoundLearningRate(peak_lr=0.01, warmup="3 steps")])
    train(sparsifier, model, batches, range(2))
    assert sparsifier.logs()["lr"] == pytest.approx(0.01 / 3)


def test_frozen_tied_and_unused_weights_are_no_obstacle() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.frozen, self.unused = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.again, self.head = self.used, nn.Linear(8, 4)
            self.frozen.requires_grad_(False)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(self.again(self.frozen(self.used(inputs))))

    for recipe in ([PRUNING["magnitude"]], [PRUNING["movement"]], [PRUNING["second order"]], [Quantization()]):
        torch.manual_seed(0)
        model, batches = Odd(), make_batches("mlp")
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        sparsifier = sparsify(model, recipe, torch.optim.AdamW(trained, lr=0.01), batches=batches)
        train(sparsifier, model, batches)
        sparsifier.finalize()
        assert sum(
            name.endswith("weight") for name in getattr(sparsifier.context.modifiers(Modifier)[0], "masks", {})
        ) in (0, 4)


def test_a_tied_head_stays_dense_and_tied() -> None:
    model, batches = make_model("llama"), make_batches("llama")
    sparsifier = sparsify(model, [PRUNING["magnitude"], Quantization(start="50%")])
    train(sparsifier, model, batches)
    sparsifier.finalize()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert bool((model.lm_head.weight != 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision(dtype: torch.dtype) -> None:
    model, batches = make_model("mlp").to(dtype), make_batches("mlp")
    batches = [(inputs.to(dtype), labels) for inputs, labels in batches]
    sparsifier = sparsify(
        model, [PRUNING["magnitude"], Quantization(start="50%")], torch.optim.SGD(model.parameters(), 0.1)
    )
    train(sparsifier, model, batches)
    sparsifier.finalize()
    assert zeros(model)[0] == zeros(model)[1] // 2
    assert model(batches[0][0]).dtype == dtype


def test_computed_weights_are_not_left_dense_silently() -> None:
    model = make_model("mlp")
    parametrizations.weight_norm(model[2])
    with pytest.raises(UserError, match=r"2.weight of Sequential is computed by a parametrization"):
        sparsify(model, [MagnitudePruning(final_sparsity=0.5)])
    sparsify(model, [MagnitudePruning(final_sparsity=0.5, params=["0.weight"])])


def test_a_recipe_that_was_refused_leaves_the_model_as_it_was() -> None:
    model = make_model("mlp")
    with pytest.raises(UserError, match="expected at least 50%"):
        sparsify(model, [Quantization(), ConstantPruning(params=ALL, min_sparsity=0.5, start="50%")])
    sparsifier = sparsify(model, [Quantization()])
    train(sparsifier, model, make_batches("mlp"))
    sparsifier.finalize()
    assert isinstance(model[0], QuantLinear)
    with pytest.raises(UserError, match="not quantized already"):
        sparsify(model, [Quantization()])


def test_models_without_values_are_refused() -> None:
    with torch.device("meta"):
        empty = Cnn()
    masked = make_model("mlp")
    prune.l1_unstructured(masked[0], "weight", 0.5)
    optimizer = torch.optim.SGD(make_model("mlp").parameters(), 0.1)
    for model, reason in (
        (empty, "conv1.weight of Cnn has no values yet"),
        (nn.Sequential(nn.LazyLinear(3)), "0.weight of Sequential has no values yet"),
        (nn.ReLU(), "ReLU has no parameters"),
        (masked, r"0.weight is pruned by torch.nn.utils.prune.*prune.remove"),
    ):
        with pytest.raises(UserError, match=reason):
            sparsify(model, [MagnitudePruning(final_sparsity=0.5, params=ALL)], optimizer)
