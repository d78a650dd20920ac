"""The model and the recipes of ``data/sparseml_traces.json``: what SparseML 1.7's manager did in every step.

The file was written by ``ScheduledModifierManager.from_yaml(recipe)``, ``manager.modify(model, optimizer,
steps_per_epoch)`` and a loop of ``train_step`` below with the optimizer's own ``step``. It has, after each step, the
learning rates and weight decays of both groups, zeros, and the frozen parameters.
"""

from __future__ import annotations

import math

import torch
import yaml
from torch import Tensor, nn

STEPS_PER_EPOCH = 4

GRADUAL = "init_sparsity: 0.05, final_sparsity: 0.85, start_epoch: 0.5, end_epoch: 2.25, update_frequency"
ALL = "params: ['re:.*encoder.layer.*weight']"
RATE = (
    "!LearningRateFunctionModifier {lr_func: linear, init_lr: 0.001, final_lr: 0.00001, start_epoch: 0, end_epoch: 3}"
)
TO = "!EpochRangeModifier {start_epoch: 0, end_epoch: 4}"


def text(*tags: str) -> str:
    """A recipe of these tags."""
    return "modifiers:\n" + "".join(map(block, (TO, *tags)))


def block(tag: str) -> str:
    """A tag with a field in each line: SparseML could not read a tag with a point behind it in its line."""
    name, _, fields = tag.partition(" ")
    lines = [f"      {key}: {flow(value)}\n" for key, value in yaml.safe_load(fields).items()]
    return "".join([f"  - {name}\n", *lines])


def flow(value: object) -> str:
    """A value in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


RECIPES = {
    "gradual": text(RATE, f"!GMPruningModifier {{{ALL}, {GRADUAL}: 0.25}}", "!SetWeightDecayModifier {weight_decay: 0.01}"),
    "linear, dropped at the end": text(
        f"!GMPruningModifier {{{ALL}, {GRADUAL}: 0.5, inter_func: linear, leave_enabled: False}}"
    ),
    "inverse cubic, every step": text(f"!MagnitudePruningModifier {{{ALL}, {GRADUAL}: -1, inter_func: inverse_cubic}}"),
    "blocks of four": text(f"!GMPruningModifier {{{ALL}, {GRADUAL}: 0.25, mask_type: block4}}"),
    "global": text(f"!GlobalMagnitudePruningModifier {{{ALL}, {GRADUAL}: 0.25}}"),
    "movement": text(f"!MovementPruningModifier {{{ALL}, {GRADUAL}: 0.5}}"),
    "two levels": text(
        "!GMPruningModifier {params: [], init_sparsity: 0.05, start_epoch: 0.5, end_epoch: 2.25, update_frequency: 0.5, "
        "final_sparsity: {0.5: ['re:.*layer.0.*dense.weight'], 0.75: ['re:.*layer.1.*query.weight']}}"
    ),
    "from the checkpoint": text(
        f"!GMPruningModifier {{{ALL}, init_sparsity: __FROM_PARAM__, final_sparsity: 0.9, start_epoch: 1, end_epoch: 3, "
        "update_frequency: 0.5}"
    ),
    "constant": text(f"!ConstantPruningModifier {{{ALL}}}", RATE),
    "ac/dc": text(
        f"!ACDCPruningModifier {{{ALL}, compression_sparsity: 0.8, start_epoch: 0, end_epoch: 4, update_frequency: 1, "
        "global_sparsity: False}"
    ),
    "steps of the rate": text(
        "!LearningRateModifier {lr_class: StepLR, lr_kwargs: {step_size: 1, gamma: 0.5}, init_lr: 0.01, start_epoch: 0, "
        "end_epoch: 4}"
    ),
    "milestones": text(
        "!LearningRateModifier {lr_class: MultiStepLR, lr_kwargs: {milestones: [1, 2.5], gamma: 0.1}, init_lr: 0.01, "
        "start_epoch: 0, end_epoch: 4}"
    ),
    "exponential": text(
        "!LearningRateModifier {lr_class: ExponentialLR, lr_kwargs: {gamma: 0.9}, init_lr: 0.01, start_epoch: 1, "
        "end_epoch: 4}"
    ),
    "cosine and cycles": text(
        "!LearningRateFunctionModifier {lr_func: cosine, init_lr: 0.01, final_lr: 0.0001, start_epoch: 0, end_epoch: 2}",
        "!LearningRateFunctionModifier {lr_func: cyclic_linear, cycle_epochs: 0.5, init_lr: 0.001, final_lr: 0.00001, "
        "start_epoch: 2, end_epoch: 4}",
    ),
    "set once, frozen": text(
        "!SetLearningRateModifier {learning_rate: 0.0003, start_epoch: 1.5}",
        "!TrainableParamsModifier {params: ['re:.*word_embeddings.*'], trainable: False, start_epoch: 1, end_epoch: 2}",
    ),
}  # fmt: skip

#: the matrices whose zeros are counted one by one
WATCHED = (
    "bert.encoder.layer.0.intermediate.dense.weight",
    "bert.encoder.layer.1.attention.self.query.weight",
    "classifier.weight",
)
#: recipes that start from a model with zeros
SPARSE = {"constant": 0.8, "from the checkpoint": 0.4}


class Layer(nn.Module):
    """A layer of BERT, one head of width 8, with BERT's names."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.attention = nn.Module()
        self.attention.self, self.attention.output = nn.Module(), nn.Module()
        for name in ("query", "key", "value"):
            setattr(self.attention.self, name, nn.Linear(width, width))
        self.attention.output.dense = nn.Linear(width, width)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.output.dense = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = (getattr(self.attention.self, name)(hidden) for name in ("query", "key", "value"))
        hidden = hidden + self.attention.output.dense(torch.softmax(query @ key.transpose(1, 2), -1) @ value)
        return hidden + self.output.dense(torch.relu(self.intermediate.dense(hidden)))


class Encoder(nn.Module):
    """Two layers with embeddings and a classifier. Its weights are a formula, the same with every version of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = nn.Module()
        self.bert.embeddings, self.bert.encoder = nn.Module(), nn.Module()
        self.bert.embeddings.word_embeddings = nn.Embedding(20, 8)
        self.bert.encoder.layer = nn.ModuleList([Layer(), Layer()])
        self.classifier = nn.Linear(8, 2)
        for number, parameter in enumerate(self.parameters()):
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            values = 0.3 * torch.sin(1.7 * places + number) + 0.01 * torch.cos(places * math.sqrt(2))
            parameter.data.copy_(values.reshape(parameter.shape))

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.bert.embeddings.word_embeddings(input_ids)
        for layer in self.bert.encoder.layer:
            hidden = layer(hidden)
        return self.classifier(hidden[:, 0])


def make_model(sparsity: float) -> Encoder:
    """The model, with the smallest weights of each matrix of its layers pruned."""
    model = Encoder()
    for name, weight in model.named_parameters():
        if "encoder" in name and weight.ndim == 2:
            smallest = weight.detach().abs().flatten().argsort()[: round(weight.numel() * sparsity)]
            weight.data.view(-1)[smallest] = 0
    return model


def make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """AdamW with a group of matrices and a group of vectors."""
    groups = [[p for p in model.parameters() if (p.ndim > 1) == matrices] for matrices in (True, False)]
    return torch.optim.AdamW([{"params": group} for group in groups], lr=2e-3, weight_decay=0.0)


def batch_of(step: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels of a step."""
    tokens = (torch.arange(24).reshape(4, 6) * (2 * step + 3) + step) % 20
    return tokens, tokens[:, 0] % 2


def observed(model: Encoder, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What a recipe has done so far."""
    return {
        "lr": [round(group["lr"], 12) for group in optimizer.param_groups],
        "weight_decay": [group["weight_decay"] for group in optimizer.param_groups],
        "zeros": [int((model.get_parameter(name) == 0).sum()) for name in WATCHED],
        "all_zeros": sum(int((weight == 0).sum()) for weight in model.bert.encoder.parameters()),
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
    }
