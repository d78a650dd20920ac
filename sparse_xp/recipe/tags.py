"""The tags of SparseML recipes (``!GMPruningModifier``), and which modifier of ours each stands for.

Most rows only name their fields (``plain_tag``). Those with rules of their own are functions in ``tags_pruning`` and
``tags_quantization``. Where a modifier works differently than in SparseML, reading it leaves a remark;
docs/sparseml.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparse_xp.modifiers import (
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
    ScheduledLearningRate,
    SetLearningRate,
    SetParam,
    TrainableParams,
    WeightDecay,
)
from sparse_xp.modifiers.learning_rate import CYCLIC
from sparse_xp.recipe.fields import (
    REQUIRED,
    Fields,
    to_boolean,
    to_mapping,
    to_name,
    to_names,
    to_number,
    to_selection,
)
from sparse_xp.recipe.tag_row import (
    END,
    END_REQUIRED,
    START,
    START_REQUIRED,
    UPDATE_FREQUENCY,
    Argument,
    TagRow,
    argument,
    plain_tag,
)
from sparse_xp.recipe.tags_pruning import MASK_TYPE, OBS_ARGUMENTS, gradual_tag
from sparse_xp.recipe.tags_quantization import QUANTIZATION_TAG


def read_epoch_range(fields: Fields) -> Iterable[Modifier]:
    """Return no modifier: the times count for the length of the run."""
    fields.start(REQUIRED)
    fields.end(REQUIRED)
    return ()


def read_sparsification_logging(fields: Fields) -> Iterable[Modifier]:
    """Return no modifier: every run logs its sparsity."""
    fields.start()
    fields.end()
    fields.ignore("update_frequency")
    fields.remark("not needed: sparsity is logged in every run")
    return ()


def remark_on_distillation(fields: Fields) -> None:
    """Take ``teacher_input_keys``, which is not used, and leave the remarks of a DistillationModifier."""
    if fields.take("teacher_input_keys", to_names, None):
        fields.remark("teacher_input_keys is not used: the teacher gets the inputs of the student that it knows")
    fields.remark("tokens that are padding are left out of the distillation loss; SparseML counted them")


def take_times_of_removal(fields: Fields) -> None:
    """Take the times of a LayerPruningModifier: layers are removed for the whole run. Raises RecipeError for others.

    When SparseML composed stages, it gave an end to the removal in an earlier one and a start to that in a later one,
    although the layers stay away. An end at the end of the run is no end; ``parsed`` refuses an earlier one.
    """
    start, end = fields.start(), fields.end()
    if not fields.tagged.stage and start:
        raise fields.error("start_epoch", "start_epoch: layers are removed from the first step on; leave it out")
    if start or end != "100%":
        fields.remark("start_epoch and end_epoch are not used: the layers are removed for the whole run")


#: every tag that can be read
ROWS = (
    TagRow("EpochRangeModifier", read_epoch_range),
    plain_tag(
        "LearningRateFunctionModifier",
        LearningRate,
        argument("init_lr", to_number),
        argument("final_lr", to_number),
        argument("lr_func", to_name, name="shape"),
        argument("cycle_epochs", to_number, 1.0, name="cycle", only_with=("shape", CYCLIC)),
        START_REQUIRED,
        END_REQUIRED,
        ignored=["update_frequency"],
        first=Fields.reject_param_groups,
    ),
    plain_tag(
        "LearningRateModifier",
        ScheduledLearningRate,
        argument("lr_class", to_name),
        Argument("lr_kwargs", "lr_kwargs", lambda fields: fields.take("lr_kwargs", to_mapping, {})),
        argument("init_lr", to_number),
        START,
        END,
        ignored=["constant_logging", "update_frequency"],
        first=Fields.reject_param_groups,
    ),
    plain_tag(
        "SetLearningRateModifier",
        SetLearningRate,
        argument("learning_rate", to_number),
        START,
        ignored=["constant_logging", "end_epoch"],
        first=Fields.reject_param_groups,
    ),
    plain_tag(
        "SetWeightDecayModifier",
        WeightDecay,
        argument("weight_decay", to_number),
        START,
        ignored=["constant_logging", "end_epoch"],
        fixed={"all_groups": True},
        first=Fields.reject_param_groups,
    ),
    plain_tag(
        "TrainableParamsModifier",
        TrainableParams,
        argument("params", to_selection),
        argument("trainable", to_boolean),
        argument("params_strict", to_boolean, True),
        START,
        END,
    ),
    plain_tag(
        "SetParamModifier",
        SetParam,
        argument("params", to_selection),
        argument("val", to_number),
        argument("params_strict", to_boolean, True),
        replace(START, read=lambda fields: fields.start(0.0)),
        ignored=["constant_logging", "end_epoch"],
    ),
    gradual_tag("GMPruningModifier", MagnitudePruning),
    gradual_tag("MagnitudePruningModifier", MagnitudePruning, global_fixed=False),
    gradual_tag("GlobalMagnitudePruningModifier", MagnitudePruning, global_fixed=True),
    plain_tag(
        "ConstantPruningModifier",
        ConstantPruning,
        argument("params", to_selection),
        START,
        END,
        ignored=["update_frequency", "leave_enabled"],
        fixed={"refresh_masks": True},
    ),
    plain_tag(
        "ACDCPruningModifier",
        ACDCPruning,
        argument("compression_sparsity", to_number),
        argument("params", to_selection),
        UPDATE_FREQUENCY,
        argument("global_sparsity", to_boolean, True),
        argument("leave_enabled", to_boolean, True),
        argument("momentum_buffer_reset", to_boolean, True),
        MASK_TYPE,
        START_REQUIRED,
        END_REQUIRED,
    ),
    gradual_tag("MovementPruningModifier", MovementPruning),
    gradual_tag("OBSPruningModifier", OBSPruning, *OBS_ARGUMENTS, global_default=True),
    plain_tag(
        "LayerPruningModifier",
        LayerPruning,
        argument("layers", to_names),
        ignored=["update_frequency"],
        first=take_times_of_removal,
    ),
    plain_tag(
        "DistillationModifier",
        Distillation,
        argument("hardness", to_number, 0.5),
        argument("temperature", to_number, 2.0),
        argument("distill_output_keys", to_names, None, name="outputs"),
        START,
        END,
        ignored=["update_frequency"],
        first=remark_on_distillation,
    ),
    plain_tag(
        "PerLayerDistillationModifier",
        PerLayerDistillation,
        argument("gain", to_number, 1.5),
        argument("normalize", to_boolean, True),
        argument("student_layer_names", to_names, None),
        argument("teacher_layer_names", to_names, None),
        argument("project_features", to_boolean, True),
        argument("epsilon", to_number, 1e-6),
        START,
        END,
        ignored=["update_frequency", "distill_output_keys", "teacher_input_keys"],
    ),
    QUANTIZATION_TAG,
    TagRow("SparsificationLoggingModifier", read_sparsification_logging),
)

TAGS: dict[str, TagRow] = {row.tag: row for row in ROWS}

#: the tag under which a modifier is written, by the name of its class
TAG_OF_MODIFIER: dict[str, TagRow] = {row.modifier.__name__: row for row in TAGS.values() if row.modifier is not None}

#: modifiers of SparseML 1.6 and llm-compressor that compress decoders without training them
LANGUAGE_MODEL_TAGS = (
    "SmoothQuantModifier",
    "LogarithmicEqualizationModifier",
    "GPTQModifier",
    "SparseGPTModifier",
    "WandaPruningModifier",
    "AWQModifier",
    "AutoRoundModifier",
    "QuIPModifier",
    "SpinQuantModifier",
)

#: tags that SparseML had, and what to write in their place
UNSUPPORTED_TAGS = {
    "MFACPruningModifier": "not supported: no recipe for an encoder used it. !OBSPruningModifier has second-order "
    "scores too (drop num_pages, grads_device and available_devices)",
    "StructuredPruningModifier": "not supported: it removed convolution filters. !LayerPruningModifier removes layers",
    "LayerThinningModifier": "not supported: it removed convolution filters. !LayerPruningModifier removes layers",
    "GradualParamModifier": "not supported: no recipe for an encoder used it. !SetParamModifier sets parameters",
    "RigLPruningModifier": "not supported: it lets pruned weights grow again by their gradients. !ACDCPruningModifier "
    "takes turns of dense and sparse training (drop init_update_fraction, sparsity_strategy, num_grads and "
    "grad_sampler_kwargs)",
    "TopKASTPruningModifier": "not supported: it trains more weights than it uses. !GMPruningModifier prunes by "
    "magnitude (final_sparsity in place of forward_sparsity; drop backward_sparsity and active_weight_decay)",
    "PowerpropagationModifier": "not supported: it trains weights as powers of others. Leave it out; "
    "!GMPruningModifier prunes by magnitude without it",
    "OutputDistillationModifier": "it is of the later dialect of SparseML 1.6; write !DistillationModifier",
    "LegacyQuantizationModifier": "it is of the later dialect of SparseML 1.6; write !QuantizationModifier",
    **dict.fromkeys(LANGUAGE_MODEL_TAGS, "a modifier for language models, which this tool does not have"),
}
