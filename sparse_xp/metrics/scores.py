"""Exact match, F1, accuracy and correlation as pure functions of plain Python values.

A mapping of named metrics (``squad_scores``, ``accuracy``, ``entity_scores`` ...) is in percent, 0 to 100. The score
of a single answer (``exact_match``, ``f1``) is a fraction, 0 to 1.

The SQuAD rules are those of the official evaluation scripts of v1.1 (Rajpurkar et al., 2016, arXiv:1606.05250) and
v2.0 (Rajpurkar et al., 2018, arXiv:1806.03822).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower ``text``, drop ASCII punctuation, then the articles a, an, the, and join the words by one space.

    Punctuation is deleted without a space in its place ("well-known" becomes "wellknown"), and before the articles
    ("a.m." becomes "am", "A." becomes empty). Punctuation outside ASCII, such as an en dash, stays.
    """
    bare = text.lower().translate(ASCII_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Return 1.0 if ``prediction`` equals any of ``golds`` once both are normalized, else 0.0.

    Raises ``ValueError`` if ``golds`` is empty, ``TypeError`` if it is a lone string.
    """
    return _best(_same, prediction, golds)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Return the F1 of the normalized words of ``prediction``, 0 to 1, for the best of ``golds``.

    A word counts as often as both sides hold it. Without a common word F1 is 0, even between two empty
    answers, where ``exact_match`` is 1: so the v1.1 script has it. Raises as ``exact_match`` does.
    """
    return _best(_overlap, prediction, golds)


def squad_scores(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return ``exact_match`` and ``f1`` in percent, the mean over all questions.

    ``predictions`` holds one answer for each question id, ``references`` its gold answers. The official
    script scores a question without prediction as 0 and ignores a prediction without question; here either
    is a ``ValueError`` that names the id, because a run answers every question and a gap is a mistake. So is
    no question at all, or a question without gold answers.
    """
    _check_same_ids(predictions, references)
    pairs = [(predictions[question], golds) for question, golds in references.items()]
    return {
        "exact_match": 100.0 * sum(exact_match(answer, golds) for answer, golds in pairs) / len(pairs),
        "f1": 100.0 * sum(f1(answer, golds) for answer, golds in pairs) / len(pairs),
    }


def squad_v2_scores(
    answers: Sequence[str], margins: Sequence[float], references: Sequence[Sequence[str]], threshold: float = 0.0
) -> dict[str, float]:
    """Return the scores of SQuAD v2's official script, ``evaluate-v2.0.py`` (Rajpurkar et al. 2018), in percent.

    ``answers``: the best span of each question. ``margins``: the score of "no answer" minus the score of that span,
    the script's ``na_prob``; above ``threshold`` the question counts as said to have no answer. ``references``: gold
    answers, an empty list for an unanswerable question.
    ``exact_match`` and ``f1`` are means over all questions, ``HasAns_*`` and ``NoAns_*`` over those with and without an
    answer. ``best_exact`` and ``best_f1`` are those of the best threshold of each; ``best_f1_threshold`` is that of
    ``best_f1``, a margin.

    No answer scores 1 for a question without one and 0 for any other, even if its gold answers are of articles and
    punctuation alone. Raises ``ValueError`` if the three differ in length or are empty.
    """
    if not len(answers) == len(margins) == len(references):
        raise ValueError(f"{len(answers)} answers and {len(margins)} margins for {len(references)} questions")
    if not references:
        raise ValueError("no references: the score of no questions is undefined")
    spans = [_score_v2(answer, golds) for answer, golds in zip(answers, references, strict=True)]
    said = [
        (float(not golds),) * len(_V2) if margin > threshold else span
        for span, golds, margin in zip(spans, references, margins, strict=True)
    ]
    scores: dict[str, float] = {}
    for prefix, wanted in (("", None), ("HasAns_", True), ("NoAns_", False)):
        of = [score for score, golds in zip(said, references, strict=True) if wanted in (None, bool(golds))]
        if of:
            scores |= {f"{prefix}{name}": 100.0 * sum(s[i] for s in of) / len(of) for i, name in enumerate(_V2)}
    for i, name in enumerate(("best_exact", "best_f1")):
        # What a question gains by its span instead of no answer. Any text at all spoils an unanswerable question.
        gains = [
            span[i] if golds else -float(bool(answer))
            for answer, span, golds in zip(answers, spans, references, strict=True)
        ]
        best, where = _best_threshold(gains, margins, sum(not golds for golds in references))
        scores[name] = 100.0 * best / len(references)
        if name == "best_f1":
            scores["best_f1_threshold"] = where
    return scores


_V2 = ("exact_match", "f1")


def _best_threshold(gains: Sequence[float], margins: Sequence[float], unanswerable: int) -> tuple[float, float]:
    """Return the highest sum of scores that a threshold reaches, and that threshold; 0 if no span helps.

    From no answer to any question, which scores ``unanswerable``, one question after the other gets its span, the one
    with the smallest margin first. Equal margins are told apart by their order, as the script does.
    """
    total = best = float(unanswerable)
    where = 0.0
    for row in sorted(range(len(margins)), key=lambda i: margins[i]):
        total += gains[row]
        if total > best:
            best, where = total, margins[row]
    return best, where


def _score_v2(answer: str, golds: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of one answer, 0 to 1. Gold answers of articles and punctuation alone do not count."""
    given = normalize_answer(answer)
    kept = [gold for gold in map(normalize_answer, golds) if gold] or [""]
    if not given or kept == [""]:
        same = float(given in kept)
        return same, same
    return max(_same(given, gold) for gold in kept), max(_overlap(given, gold) for gold in kept)


def accuracy(predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
    """Return ``accuracy`` in percent: how many labels of ``predictions`` equal those of ``references``.

    Both are of length [examples]. Raises ``ValueError`` if they differ in length or are empty.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references, expected as many")
    if len(references) == 0:
        raise ValueError("no references: the accuracy of nothing is undefined")
    correct = sum(int(label == gold) for label, gold in zip(predictions, references, strict=True))
    return {"accuracy": 100.0 * correct / len(references)}


def class_f1(predictions: Sequence[int], references: Sequence[int], classes: int) -> dict[str, float]:
    """Return ``f1_macro``, the mean F1 of all classes, and, of two, ``f1``, that of class 1 (as GLUE), in percent.

    Both are of length [examples], of class numbers below ``classes``. The F1 of a class that is neither there nor
    predicted is 0, as scikit-learn has it. Raises ``ValueError`` if they differ in length, are empty, or have another
    number.
    """
    accuracy(predictions, references)  # for its checks
    if other := {*predictions, *references} - set(range(classes)):
        raise ValueError(f"class {max(other)}: expected numbers from 0 to {classes - 1}")
    from sklearn.metrics import f1_score

    each = f1_score(references, predictions, labels=list(range(classes)), average=None, zero_division=0)
    found = {"f1_macro": 100.0 * float(sum(each)) / classes}
    return {**found, "f1": 100.0 * float(each[1])} if classes == 2 else found


def label_set_scores(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return ``f1_micro`` and ``f1_macro`` over all labels, and ``accuracy`` of whole rows, in percent.

    Both are [examples, labels] of 0 and 1. Raises ``ValueError`` if they differ in shape or are empty.
    """
    if [len(row) for row in predictions] != [len(row) for row in references]:
        raise ValueError(f"{len(predictions)} rows of predictions for {len(references)}, expected rows of equal length")
    if len(references) == 0:
        raise ValueError("no references: the score of nothing is undefined")
    from sklearn.metrics import f1_score

    right = sum(list(said) == list(gold) for said, gold in zip(predictions, references, strict=True))
    return {
        **{
            f"f1_{kind}": 100.0 * float(f1_score(references, predictions, average=kind, zero_division=0))
            for kind in ("micro", "macro")
        },
        "accuracy": 100.0 * right / len(references),
    }


def pearson(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Return ``pearson``, the linear correlation, times 100; 0 where either side is constant.

    Both are of length [examples]. Raises ``ValueError`` if they differ in length or have fewer than two.
    """
    return {"pearson": _correlation("pearsonr", predictions, references)}


def spearman(predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
    """Return ``spearman``, the correlation of the ranks, times 100; otherwise as ``pearson``."""
    return {"spearman": _correlation("spearmanr", predictions, references)}


def entity_scores(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return ``f1``, ``precision`` and ``recall`` of the entities, and ``accuracy`` of the words' tags, in percent.

    Both hold one sequence of BIO tags per row, one tag per word. An entity is right if its type, its first and its
    last word are: the CoNLL-2000 script's rules (Tjong Kim Sang and Buchholz, 2000) by the library seqeval. An ``I-X``
    that does not continue an X begins an entity, as in that script. All entities of all rows count alike (micro
    average). Undefined ratios are 0: precision without a predicted entity, F1 without any entity.

    Raises ``ValueError`` if rows or words differ in number, or there is no word at all.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} rows of predictions for {len(references)} of references, expected as many"
        )
    for row, (tags, golds) in enumerate(zip(predictions, references, strict=True)):
        if len(tags) != len(golds):
            raise ValueError(f"row {row}: {len(tags)} predicted tags for {len(golds)} words, expected as many")
    words = sum(map(len, references))
    if words == 0:
        raise ValueError("no references: the score of no words is undefined")
    # Imported here: it brings numpy and scikit-learn.
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        [list(golds) for golds in references],
        [list(tags) for tags in predictions],
        average="micro",
        zero_division=0,
    )
    right = sum(
        tag == gold
        for tags, golds in zip(predictions, references, strict=True)
        for tag, gold in zip(tags, golds, strict=True)
    )
    return {
        "f1": 100.0 * float(f1),
        "precision": 100.0 * float(precision),
        "recall": 100.0 * float(recall),
        "accuracy": 100.0 * right / words,
    }


def _correlation(name: str, predictions: Sequence[float], references: Sequence[float]) -> float:
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references, expected as many")
    if len(references) < 2:
        raise ValueError(f"{len(references)} references: a correlation needs two")
    if min(len(set(predictions)), len(set(references))) < 2:
        return 0.0  # undefined; a constant prediction gets no credit
    import scipy.stats

    return 100.0 * float(getattr(scipy.stats, name)(predictions, references).statistic)


def _best(score: Callable[[str, str], float], prediction: str, golds: Sequence[str]) -> float:
    if isinstance(golds, str):
        raise TypeError(f"golds is the string {golds!r}, expected a list of strings")
    if len(golds) == 0:
        raise ValueError(f"no gold answer to compare {prediction!r} with")
    return max(score(normalize_answer(prediction), normalize_answer(gold)) for gold in golds)


def _same(prediction: str, gold: str) -> float:
    return float(prediction == gold)


def _overlap(prediction: str, gold: str) -> float:
    words, gold_words = prediction.split(), gold.split()
    common = (Counter(words) & Counter(gold_words)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(words), common / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def _check_same_ids(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    if not references:
        raise ValueError("no references: the score of no questions is undefined")
    for question in references:
        if question not in predictions:
            raise ValueError(f"no prediction for question {question!r}")
        if len(references[question]) == 0:
            raise ValueError(f"no gold answer for question {question!r}")
    for question in predictions:
        if question not in references:
            raise ValueError(f"prediction for question {question!r}, which is not among the references")
