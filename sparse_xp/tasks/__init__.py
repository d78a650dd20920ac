"""The kinds of task. To add one, write a file beside this one, and a line here."""

from sparse_xp.tasks.base import Task
from sparse_xp.tasks.pair_pretraining import PairPretraining
from sparse_xp.tasks.pretraining import Pretraining
from sparse_xp.tasks.question_answering import QuestionAnswering
from sparse_xp.tasks.text_classification import TextClassification
from sparse_xp.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    cls.__name__: cls
    for cls in (PairPretraining, Pretraining, QuestionAnswering, TextClassification, TokenClassification)
}
