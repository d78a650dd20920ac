"""The modifiers a recipe can name. Adding one: a file beside this one, and a line here."""

from sparse_xp.modifiers.acdc import ACDCPruning
from sparse_xp.modifiers.base import Modifier
from sparse_xp.modifiers.distillation import Distillation
from sparse_xp.modifiers.embedding_pruning import EmbeddingPruning
from sparse_xp.modifiers.layer_pruning import LayerPruning
from sparse_xp.modifiers.learning_rate import LearningRate, ScheduledLearningRate, SetLearningRate
from sparse_xp.modifiers.movement import MovementPruning
from sparse_xp.modifiers.obs import OBSPruning
from sparse_xp.modifiers.parameters import SetParam, TrainableParams
from sparse_xp.modifiers.per_layer_distillation import PerLayerDistillation
from sparse_xp.modifiers.pruning import ConstantPruning, MagnitudePruning
from sparse_xp.modifiers.quantization import Quantization
from sparse_xp.modifiers.rewinding import RewoundLearningRate
from sparse_xp.modifiers.structured.pruning import StructuredPruning
from sparse_xp.modifiers.weight_decay import WeightDecay

MODIFIERS: dict[str, type[Modifier]] = {
    cls.__name__: cls
    for cls in (
        ACDCPruning,
        ConstantPruning,
        Distillation,
        EmbeddingPruning,
        LayerPruning,
        LearningRate,
        MagnitudePruning,
        MovementPruning,
        OBSPruning,
        PerLayerDistillation,
        Quantization,
        RewoundLearningRate,
        ScheduledLearningRate,
        SetLearningRate,
        SetParam,
        StructuredPruning,
        TrainableParams,
        WeightDecay,
    )
}
