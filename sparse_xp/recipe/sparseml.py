"""The modifiers of SparseML as ours: one function for each tag, over the fields as they stand in the file.

What is done otherwise than SparseML did it is told in ``remarks``; docs/sparseml.md has the reasons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sparse_xp.errors import did_you_mean
from sparse_xp.modifiers import (
    MODIFIERS,
    ACDCPruning,
    ConstantPruning,
    Distillation,
    LayerPruning,
    LearningRate,
    MagnitudePruning,
    Modifier,
    MovementPruning,
    OBSPruning,
    PerLayerDistillation,
    Quantization,
    ScheduledLearningRate,
    SetLearningRate,
    SetParam,
    TrainableParams,
    WeightDecay,
)
from sparse_xp.modifiers.pruning import Pruning
from sparse_xp.recipe.expressions import as_number
from sparse_xp.recipe.fields import REQUIRED, Fields, epoch, flag, mapping, number, selection, text, texts, whole
from sparse_xp.recipe.loader import Tagged
from sparse_xp.recipe.text import Document


@dataclass
class Plan:
    """What a recipe comes to. ``epochs``: the length that it gives a run, None if it gives none.

    ``sources``: the tag that each modifier was made of.
    """

    modifiers: dict[str, Modifier] = field(default_factory=dict)
    sources: dict[str, Tagged] = field(default_factory=dict)
    epochs: float | None = None
    remarks: list[str] = field(default_factory=list)


def plan_of(document: Document) -> Plan:
    """The modifiers of a recipe by name, in its order. Raises RecipeError for a tag or a field that cannot be."""
    plan = Plan(remarks=list(document.remarks))
    ends: list[tuple[float, Tagged]] = []
    for tagged in document.modifiers:
        fields = Fields(document.name, tagged)
        if reason := GONE.get(tagged.name):
            raise fields.wrong("", f"!{tagged.name}: {reason}")
        if tagged.name not in TAGS and tagged.name not in MODIFIERS:
            raise fields.wrong(
                "", f"no modifier !{tagged.name}.{did_you_mean(tagged.name, TAGS)} Known: {', '.join(TAGS)}"
            )
        try:
            made = list(TAGS.get(tagged.name, own)(fields))
        except ValueError as error:
            raise fields.wrong("", f"!{tagged.name}: {error}") from error
        fields.done()
        ends += [(time, tagged) for time in fields.times if time > -1]
        plan.remarks += [remark for remark in fields.remarks if remark not in plan.remarks]
        for modifier in made:
            name = unused(tagged.name.removesuffix("Modifier"), plan.modifiers)
            plan.modifiers[name], plan.sources[name] = modifier, tagged
    last, latest = max(ends, key=lambda each: each[0], default=(0.0, None))
    plan.epochs = float(math.ceil(last)) if last > 0 else None
    meant = max((time for time, tagged in ends if tagged.name == "EpochRangeModifier"), default=last)
    if latest and meant < last:
        plan.remarks.append(
            f"{Path(document.name).name}: EpochRangeModifier ends at {meant:g}, but {latest.name} is in epoch "
            f"{last:g}: the run has {math.ceil(last)} epochs, as in SparseML"
        )
    # Zeros that are kept from the first step on, and that nothing in the recipe makes, have to be in the checkpoint.
    makes = any(isinstance(each, Pruning) and not isinstance(each, ConstantPruning) for each in plan.modifiers.values())
    for name, each in plan.modifiers.items():
        old = plan.sources[name].name == "ConstantPruningModifier"
        if isinstance(each, ConstantPruning) and old and (makes or each.start != 0):
            plan.modifiers[name] = replace(each, min_sparsity=0.0)
    return plan


def unused(name: str, taken: Iterable[str]) -> str:
    """``name``, or with a number behind it if it is taken."""
    number = 2
    wanted = name
    while wanted in taken:
        wanted, number = f"{name}_{number}", number + 1
    return wanted


def epoch_range(f: Fields) -> Iterable[Modifier]:
    f.start(REQUIRED)
    f.end(REQUIRED)
    return ()


def learning_rate_function(f: Fields) -> Iterable[Modifier]:
    f.all_groups()
    shape = f.take("lr_func", text)
    cycle = f.take("cycle_epochs", number, 1.0)
    yield LearningRate(
        shape=shape,
        init_lr=f.take("init_lr", number),
        final_lr=f.take("final_lr", number),
        start=f.start(REQUIRED),
        end=f.end(REQUIRED),
        **({"cycle": cycle} if shape == "cyclic_linear" else {}),
    )


def learning_rate(f: Fields) -> Iterable[Modifier]:
    f.all_groups()
    f.unused("constant_logging")
    yield ScheduledLearningRate(
        lr_class=f.take("lr_class", text),
        lr_kwargs=f.take("lr_kwargs", mapping, {}),
        init_lr=f.take("init_lr", number),
        start=f.start(),
        end=f.end(),
    )


def set_learning_rate(f: Fields) -> Iterable[Modifier]:
    f.all_groups()
    f.unused("constant_logging", "end_epoch")
    yield SetLearningRate(learning_rate=f.take("learning_rate", number), start=f.start())


def set_weight_decay(f: Fields) -> Iterable[Modifier]:
    f.all_groups()
    f.unused("constant_logging", "end_epoch")
    yield WeightDecay(weight_decay=f.take("weight_decay", number), start=f.start(), all_groups=True)


def trainable_params(f: Fields) -> Iterable[Modifier]:
    yield TrainableParams(
        params=f.take("params", selection),
        trainable=f.take("trainable", flag),
        params_strict=f.take("params_strict", flag, True),
        start=f.start(),
        end=f.end(),
    )


def set_param(f: Fields) -> Iterable[Modifier]:
    f.unused("constant_logging", "end_epoch")
    yield SetParam(
        params=f.take("params", selection),
        val=f.take("val", number),
        params_strict=f.take("params_strict", flag, True),
        start=f.start(0.0),
    )


def mask_type(f: Fields) -> Any:
    """``mask_type`` in our words; of a tile with ones behind it ([1, 4, 1, 1]) the first two count."""
    value = f.take("mask_type", lambda value: value, "unstructured")
    if value == "tensorrt":
        return "2:4"
    if value in ("channel", "filter", "block"):
        raise f.wrong(
            "mask_type",
            f"mask_type: {value} has been an error in SparseML since 0.11; want unstructured, block4, [1, 4] or 'N:M'",
        )
    if isinstance(value, list):
        if len(value) < 2 or any(each != 1 for each in value[2:]):
            raise f.wrong("mask_type", f"mask_type: want [out, in], not {value}")
        if value[0] != 1 and value[1] != 1:
            f.remark(
                f"mask_type {value[:2]} are tiles of {value[0]} outputs by {value[1]} inputs; SparseML made runs of "
                f"{value[0] * value[1]} consecutive weights of it"
            )
        return value[:2]
    return value


def schedule(f: Fields) -> dict[str, Any]:
    """What the gradual pruning modifiers have in common, but ``final_sparsity``."""
    from sparse_xp.modifiers.pruning import FROM_PARAM

    f.unused("sparsity_strategy")
    if f.take("phased", flag, False):
        raise f.wrong(
            "phased", "phased: true has been an error in SparseML since 0.9; !ACDCPruningModifier takes turns"
        )
    score = f.take("score_type", text, "magnitude")
    if score != "magnitude":
        way = "!MovementPruningModifier" if score == "movement" else "!OBSPruningModifier"
        raise f.wrong("score_type", f"score_type: {score} went out of SparseML in 0.12; write {way}")
    values = {
        "init_sparsity": f.take("init_sparsity", lambda v: v if v == FROM_PARAM else number(v)),
        "start": f.start(REQUIRED),
        "end": f.end(REQUIRED),
        "update_frequency": f.every(),
        "leave_enabled": f.take("leave_enabled", flag, True),
        "inter_func": f.take("inter_func", text, "cubic"),
        "mask_type": mask_type(f),
    }
    if values["end"] == "100%":
        raise f.wrong("end_epoch", "end_epoch: want the epoch at which final_sparsity is reached, not -1")
    return values


def targets(f: Fields) -> list[dict[str, Any]]:
    """``params`` and ``final_sparsity``, for each level of which there may be several; the lower one wins."""
    final = f.take(
        "final_sparsity",
        lambda v: {number(k): selection(p) for k, p in v.items()} if isinstance(v, dict) else number(v),
    )
    if not isinstance(final, dict):
        return [{"params": f.take("params", selection), "final_sparsity": final}]
    if f.take("params", selection, []):
        raise f.wrong("params", "params: want [] where final_sparsity names the parameters of each level")
    found, taken = [], list[str]()
    for level in sorted(final):
        found.append({"params": final[level], "but": list(taken), "final_sparsity": level})
        taken += final[level]
    return found


def magnitude(global_sparsity: bool | None = None) -> Callable[[Fields], Iterable[Modifier]]:
    def gradual(f: Fields) -> Iterable[Modifier]:
        if global_sparsity is None:
            together = f.take("global_sparsity", flag, False)
        else:
            f.unused("global_sparsity")
            together = global_sparsity
        common = schedule(f)
        return [MagnitudePruning(**target, **common, global_sparsity=together) for target in targets(f)]

    return gradual


def movement(f: Fields) -> Iterable[Modifier]:
    together, common = f.take("global_sparsity", flag, False), schedule(f)
    return [MovementPruning(**target, **common, global_sparsity=together) for target in targets(f)]


def obs(f: Fields) -> Iterable[Modifier]:
    together, common = f.take("global_sparsity", flag, True), schedule(f)
    sampler = f.take("grad_sampler_kwargs", mapping, {})
    if set(sampler) - {"batch_size"}:
        raise f.wrong("grad_sampler_kwargs", "grad_sampler_kwargs: want batch_size alone")
    if "fisher_block_size" not in f.rest:
        f.remark("fisher_block_size is not given: 1, as SparseML's code has it (its documents say 50)")
    options: dict[str, Any] = {
        "num_grads": f.take("num_grads", whole, 1024),
        "damp": f.take("damp", number, 1e-7),
        "fisher_block_size": f.take("fisher_block_size", whole, 1),
        "num_recomputations": f.take("num_recomputations", whole, 1),
        "grad_batch_size": whole(sampler["batch_size"]) if "batch_size" in sampler else None,
    }
    return [OBSPruning(**target, **common, **options, global_sparsity=together) for target in targets(f)]


def constant(f: Fields) -> Iterable[Modifier]:
    f.unused("update_frequency", "leave_enabled")
    yield ConstantPruning(params=f.take("params", selection), start=f.start(), end=f.end(), live=True)


def acdc(f: Fields) -> Iterable[Modifier]:
    yield ACDCPruning(
        compression_sparsity=f.take("compression_sparsity", number),
        start=f.start(REQUIRED),
        end=f.end(REQUIRED),
        update_frequency=f.every(),
        params=f.take("params", selection),
        global_sparsity=f.take("global_sparsity", flag, True),
        leave_enabled=f.take("leave_enabled", flag, True),
        momentum_buffer_reset=f.take("momentum_buffer_reset", flag, True),
        mask_type=mask_type(f),
    )


def layer_pruning(f: Fields) -> Iterable[Modifier]:
    f.unused("update_frequency")
    yield LayerPruning(layers=f.take("layers", texts), start=f.start(), end=f.end())


def distillation(f: Fields) -> Iterable[Modifier]:
    f.unused("update_frequency")
    if f.take("teacher_input_keys", texts, None):
        f.remark("teacher_input_keys is not used: the teacher gets the inputs of the student that it knows")
    f.remark("tokens that are padding are left out of the distillation loss; SparseML counted them")
    yield Distillation(
        hardness=f.take("hardness", number, 0.5),
        temperature=f.take("temperature", number, 2.0),
        outputs=f.take("distill_output_keys", texts, None),
        start=f.start(),
        end=f.end(),
    )


def per_layer_distillation(f: Fields) -> Iterable[Modifier]:
    f.unused("update_frequency")
    yield PerLayerDistillation(
        gain=f.take("gain", number, 1.5),
        normalize=f.take("normalize", flag, True),
        student_layer_names=f.take("student_layer_names", texts, None),
        teacher_layer_names=f.take("teacher_layer_names", texts, None),
        project_features=f.take("project_features", flag, True),
        epsilon=f.take("epsilon", number, 1e-6),
        start=f.start(),
        end=f.end(),
    )


#: fields that make a QuantizationModifier the older of the two classes that had this name
LEGACY = (
    "submodules quantize_embeddings reduce_range quantize_linear_activations quantize_conv_activations "
    "quantize_embedding_activations activation_bits weight_bits exclude_batchnorm exclude_module_types "
    "custom_quantizable_module_types activation_qconfig_kwargs weight_qconfig_kwargs tensorrt"
).split()


def quantization(f: Fields) -> Iterable[Modifier]:
    legacy = any(name in f.rest for name in LEGACY)
    if f.take("end_epoch", epoch, -1) != -1:  # a composed recipe of SparseML has one, and could not be read again
        f.remark("end_epoch is not used: a model stays quantized once it is")
    f.unused("freeze_bn_stats_epoch", "model_fuse_fn_name", "num_calibration_steps", "strict")
    values: dict[str, Any] = {
        "start": f.start(),
        "observers_end": f.take("disable_quantization_observer_epoch", epoch, None),
    }
    if legacy:
        for name in ("activation_qconfig_kwargs", "weight_qconfig_kwargs"):
            if f.take(name, lambda value: value, None):
                raise f.wrong(
                    name, f"{name}: classes of torch.ao, which is not used here; weight_bits and activation_bits are"
                )
        if f.take("tensorrt", flag, False):
            raise f.wrong("tensorrt", "tensorrt: true is not supported: activations are unsigned and asymmetric here")
        if reduce_range := f.take("reduce_range", flag, False):
            f.remark(
                "reduce_range: true narrows the weights to 7 bits; SparseML narrowed the activations. Both rule out "
                "overflow on CPUs without VNNI, and for weights the exported file proves it"
            )
        f.unused("quantize_conv_activations", "exclude_batchnorm", "custom_quantizable_module_types")
        values |= {
            "submodules": f.take("submodules", texts, None),
            "embeddings": f.take("quantize_embeddings", flag, True),
            "embedding_outputs": f.take("quantize_embedding_activations", flag, True),
            "linear_outputs": f.take("quantize_linear_activations", flag, True),
            "exclude": f.take("exclude_module_types", texts, []),
            "weight_bits": f.take("weight_bits", whole, 8),
            "activation_bits": f.take("activation_bits", whole, 8),
            "reduce_range": reduce_range,
        }
    else:
        scheme = f.take("scheme", lambda v: v if isinstance(v, str) else mapping(v), "default")
        if scheme not in ("default", "deepsparse"):
            raise f.wrong("scheme", f"scheme: {scheme!r}; want default (8-bit inputs and weights)")
        values |= {
            "embedding_outputs": False,
            "linear_outputs": False,
            "reduce_range": False,
            "exclude": f.take("ignore", texts, []),
        }
        for kind, other in f.take("scheme_overrides", mapping, {}).items():
            if kind != "Embedding" or other != {"input_activations": None}:
                raise f.wrong(
                    "scheme_overrides",
                    "scheme_overrides: only {Embedding: {input_activations: null}}, which holds here anyway",
                )
    f.remark("LayerNorm and attention's own products stay in floating point, where integers make no engine faster")
    yield Quantization(**values, per_channel=False)


def own(f: Fields) -> Iterable[Modifier]:
    """A modifier under its own name, ``!WeightDecay``: what no tag of SparseML can say (``saved``)."""
    kind = MODIFIERS[f.tagged.name]
    f.known |= {each.name for each in dataclass_fields(kind)}
    values = {name: f.rest.pop(name) for name in list(f.rest) if name in f.known}
    for name in ("start", "end"):
        f.times += [time] if (time := as_number(values.get(name))) else []
    try:
        yield OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), literal(values)))  # type: ignore[misc]
    except OmegaConfBaseException as error:
        raise f.wrong(str(error.key or ""), f"!{f.tagged.name}: {str(error).splitlines()[0]}") from error


def literal(value: Any) -> Any:
    """``value`` with what OmegaConf would take for an interpolation escaped."""
    if isinstance(value, dict):
        return {key: literal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [literal(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    return value


def logging(f: Fields) -> Iterable[Modifier]:
    f.start()
    f.end()
    f.unused("update_frequency")
    f.remark("not needed: sparsity is logged in every run")
    return ()


TAGS: dict[str, Callable[[Fields], Iterable[Modifier]]] = {
    "EpochRangeModifier": epoch_range,
    "LearningRateFunctionModifier": learning_rate_function,
    "LearningRateModifier": learning_rate,
    "SetLearningRateModifier": set_learning_rate,
    "SetWeightDecayModifier": set_weight_decay,
    "TrainableParamsModifier": trainable_params,
    "SetParamModifier": set_param,
    "GMPruningModifier": magnitude(),
    "MagnitudePruningModifier": magnitude(global_sparsity=False),
    "GlobalMagnitudePruningModifier": magnitude(global_sparsity=True),
    "ConstantPruningModifier": constant,
    "ACDCPruningModifier": acdc,
    "MovementPruningModifier": movement,
    "OBSPruningModifier": obs,
    "LayerPruningModifier": layer_pruning,
    "DistillationModifier": distillation,
    "PerLayerDistillationModifier": per_layer_distillation,
    "QuantizationModifier": quantization,
    "SparsificationLoggingModifier": logging,
}

GONE = {
    "MFACPruningModifier": "not supported: no recipe for an encoder used it. !OBSPruningModifier has second-order "
    "scores too (drop num_pages, grads_device and available_devices)",
    "StructuredPruningModifier": "not supported: it removed convolution filters. !LayerPruningModifier removes layers",
    "LayerThinningModifier": "not supported: it removed convolution filters. !LayerPruningModifier removes layers",
    "GradualParamModifier": "not supported: no recipe for an encoder used it. !SetParamModifier sets parameters",
}
