"""The modifiers that a recipe can name. To add one: a file beside this one, and a line here."""

from sparse_xp.modifiers.acdc import ACDCPruning as ACDCPruning
from sparse_xp.modifiers.attention_distillation import AttentionDistillation as AttentionDistillation
from sparse_xp.modifiers.base import Modifier as Modifier
from sparse_xp.modifiers.distillation import Distillation as Distillation
from sparse_xp.modifiers.embedding_pruning import EmbeddingPruning as EmbeddingPruning
from sparse_xp.modifiers.layer_pruning import LayerPruning as LayerPruning
from sparse_xp.modifiers.learning_rate import LearningRate as LearningRate
from sparse_xp.modifiers.learning_rate import SetLearningRate as SetLearningRate
from sparse_xp.modifiers.magnitude import MagnitudePruning as MagnitudePruning
from sparse_xp.modifiers.movement import MovementPruning as MovementPruning
from sparse_xp.modifiers.obs import OBSPruning as OBSPruning
from sparse_xp.modifiers.parameters import SetParam as SetParam
from sparse_xp.modifiers.parameters import TrainableParams as TrainableParams
from sparse_xp.modifiers.per_layer_distillation import PerLayerDistillation as PerLayerDistillation
from sparse_xp.modifiers.pruning import ConstantPruning as ConstantPruning
from sparse_xp.modifiers.quantization import Quantization as Quantization
from sparse_xp.modifiers.rewinding import RewoundLearningRate as RewoundLearningRate
from sparse_xp.modifiers.scheduled_learning_rate import ScheduledLearningRate as ScheduledLearningRate
from sparse_xp.modifiers.soft_movement import SoftMovementPruning as SoftMovementPruning
from sparse_xp.modifiers.structured.pruning import StructuredPruning as StructuredPruning
from sparse_xp.modifiers.weight_decay import WeightDecay as WeightDecay

#: every class imported above, by the name that configurations use
MODIFIERS: dict[str, type[Modifier]] = {
    name: value
    for name, value in globals().copy().items()
    if isinstance(value, type) and issubclass(value, Modifier) and value is not Modifier
}
