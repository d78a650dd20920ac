"""The kinds of task. To add one, write a file beside this one, and a line here."""

from sparse_xp.tasks.base import Task as Task
from sparse_xp.tasks.pair_pretraining import PairPretraining as PairPretraining
from sparse_xp.tasks.pretraining import Pretraining as Pretraining
from sparse_xp.tasks.question_answering import QuestionAnswering as QuestionAnswering
from sparse_xp.tasks.sentence_embedding import SentenceEmbedding as SentenceEmbedding
from sparse_xp.tasks.text_classification import TextClassification as TextClassification
from sparse_xp.tasks.token_classification import TokenClassification as TokenClassification

#: every class imported above, by the name that configurations use
TASKS: dict[str, type[Task]] = {
    name: value
    for name, value in globals().copy().items()
    if isinstance(value, type) and issubclass(value, Task) and value is not Task
}


def all_generated_words() -> list[str]:
    """Return texts that hold every word of any kind's generated rows: the vocabulary of the tiny model."""
    return [text for kind in TASKS.values() for text in kind.generated_words()]
