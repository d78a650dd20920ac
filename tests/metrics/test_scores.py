"""The rules of SQuAD v1.1, of classes, labels, numbers and entities, on cases worked out by hand."""

from __future__ import annotations

import random
import re
import string
import subprocess
import sys

import pytest

from sparse_xp.metrics.scores import (
    accuracy,
    class_f1,
    entity_scores,
    exact_match,
    f1,
    label_set_scores,
    normalize_answer,
    pearson,
    spearman,
    squad_scores,
    squad_v2_scores,
)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("theatre and anthem", "theatre and anthem"),  # articles go as whole words only
        ("one\t two\n\nthree ", "one two three"),
        ("$1,000.50", "100050"),
        ("well-known", "wellknown"),
        ("the-cat", "thecat"),  # joined before articles are looked for
        ("A.", ""),
        ("a.m.", "am"),
        ("the man's", "mans"),
        ("1914\u20131918", "1914\u20131918"),  # an en dash is not ASCII punctuation
        ("yes\u2014the end", "yes\u2014 end"),  # but it does bound a word
        ("x\u2013the\u2013y", "x\u2013 \u2013y"),  # an article leaves a space
        ("\u00c9COLE", "\u00e9cole"),
        ("Stra\u00dfe", "stra\u00dfe"),  # lower case, not case folding to "strasse"
        ("", ""),
    ],
)
def test_normalize_answer(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


@pytest.mark.parametrize(
    ("prediction", "golds", "match", "overlap"),
    [
        ("the Broncos", ["Broncos!"], 1.0, 1.0),
        ("Denver", ["Carolina"], 0.0, 0.0),
        # 2 common words of 3 predicted and 4 gold: 2 * (2/3 * 1/2) / (2/3 + 1/2) = 4/7
        ("red green blue", ["red green black white"], 0.0, 4 / 7),
        # 1 of 3 and 1 of 1: a repeated word counts as often as both sides hold it. 2 * 1/3 / (4/3) = 1/2
        ("tick tick tick", ["tick"], 0.0, 1 / 2),
        # 2 of 3 and 2 of 2: 2 * 2/3 / (5/3) = 4/5
        ("tick tick tick", ["tick tick"], 0.0, 4 / 5),
        # the same words in another order
        ("green red", ["red green"], 0.0, 1.0),
        # the best of several: 2/3 (1 of 1 and 1 of 2), 0, 1/2 (1 of 1 and 1 of 3)
        ("Denver", ["Denver Broncos", "Carolina", "Denver football team"], 0.0, 2 / 3),
        # the best gold is the last
        ("Denver", ["Carolina", "Denver."], 1.0, 1.0),
        # each score takes its own best gold
        ("", ["Denver", ""], 1.0, 0.0),
        ("", [""], 1.0, 0.0),  # equal, yet without a common word
        ("the", ["a"], 1.0, 0.0),  # both normalize to nothing
        ("", ["Denver"], 0.0, 0.0),
        ("1914\u20131918", ["1914-1918"], 0.0, 0.0),  # its hyphen goes, the en dash stays
    ],
)
def test_scores_of_one_answer(prediction: str, golds: list[str], match: float, overlap: float) -> None:
    assert exact_match(prediction, golds) == match
    assert f1(prediction, golds) == pytest.approx(overlap, abs=1e-12)


@pytest.mark.parametrize("score", [exact_match, f1])
def test_no_gold_answer_is_refused(score) -> None:
    with pytest.raises(ValueError, match="no gold answer to compare 'Denver' with"):
        score("Denver", [])


@pytest.mark.parametrize("score", [exact_match, f1])
def test_a_lone_string_is_not_a_list_of_its_letters(score) -> None:
    with pytest.raises(TypeError, match="golds is the string 'Denver'"):
        score("D", "Denver")


def test_squad_scores_are_means_in_percent() -> None:
    predictions = {"q1": "the Broncos", "q2": "red green blue", "q3": "Denver", "q4": ""}
    references = {
        "q4": ["Carolina"],
        "q3": ["Carolina", "Denver Broncos"],
        "q2": ["red green black white"],
        "q1": ["Broncos"],
    }
    scores = squad_scores(predictions, references)
    assert scores == {
        "exact_match": 25.0,  # 1, 0, 0, 0
        "f1": pytest.approx(55.95238095238095, abs=1e-10),  # (1 + 4/7 + 2/3 + 0) / 4 = 47/84
    }


def test_a_question_without_prediction_is_named() -> None:
    with pytest.raises(ValueError, match="no prediction for question 'q2'"):
        squad_scores({"q1": "x"}, {"q1": ["x"], "q2": ["y"]})


def test_a_prediction_without_question_is_named() -> None:
    with pytest.raises(ValueError, match="prediction for question 'q9', which is not among the references"):
        squad_scores({"q1": "x", "q9": "y"}, {"q1": ["x"]})


def test_a_question_without_gold_answer_is_named() -> None:
    with pytest.raises(ValueError, match="no gold answer for question 'q1'"):
        squad_scores({"q1": "x"}, {"q1": []})


def test_squad_scores_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no references"):
        squad_scores({}, {})


def test_accuracy_is_in_percent() -> None:
    assert accuracy([0, 1, 2, 0], [0, 1, 1, 0]) == {"accuracy": 75.0}
    assert accuracy([1, 1], [0, 0]) == {"accuracy": 0.0}
    assert accuracy([7], [7]) == {"accuracy": 100.0}


def test_accuracy_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score

    draw = random.Random(0)
    for num_labels in (2, 3, 150):
        predictions = [draw.randrange(num_labels) for _ in range(997)]
        references = [draw.randrange(num_labels) for _ in range(997)]
        want = 100 * accuracy_score(references, predictions)
        assert accuracy(predictions, references) == {"accuracy": pytest.approx(want, abs=1e-10)}


def test_accuracy_refuses_unequal_lengths_and_nothing() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 references"):
        accuracy([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match="no references"):
        accuracy([], [])


def test_class_f1_of_two_is_that_of_the_second_and_the_mean() -> None:
    # of class 1 1 of 2 predicted is right and 1 of 1 found: 2/3; of class 0 2 of 2 and 2 of 3: 4/5
    assert class_f1([0, 1, 1, 0], [0, 0, 1, 0], 2) == {
        "f1_macro": pytest.approx(100 * (2 / 3 + 4 / 5) / 2),
        "f1": pytest.approx(100 * 2 / 3),
    }


def test_class_f1_of_more_is_the_mean_alone_and_counts_classes_that_are_not_there() -> None:
    # class 0: 2/3 (1 of 1, 1 of 2), class 1: 2/3 (1 of 2, 1 of 1), class 2 neither there nor predicted: 0
    assert class_f1([0, 1, 1], [0, 0, 1], 3) == {"f1_macro": pytest.approx(100 * 4 / 9)}


def test_class_f1_refuses_unequal_lengths_and_nothing() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 references"):
        class_f1([0, 1], [0, 1, 1], 2)
    with pytest.raises(ValueError, match="no references"):
        class_f1([], [], 2)
    with pytest.raises(ValueError, match="class 2: expected numbers from 0 to 1"):
        class_f1([0, 2], [0, 1], 2)


def test_label_set_scores() -> None:
    predictions = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    references = [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]
    # 2 right of 4 predicted and 3 gold: 4/7; by label: 2/3 (1 of 2, 1 of 1), 1/2 (1 of 2, 1 of 2), 0 (none there)
    assert label_set_scores(predictions, references) == {
        "f1_micro": pytest.approx(100 * 4 / 7),
        "f1_macro": pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3),
        "accuracy": 50.0,
    }


def test_label_set_scores_refuse_what_does_not_match_and_nothing() -> None:
    with pytest.raises(ValueError, match="1 rows of predictions for 2"):
        label_set_scores([[0, 1]], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="expected rows of equal length"):
        label_set_scores([[0, 1]], [[0, 1, 1]])
    with pytest.raises(ValueError, match="no references"):
        label_set_scores([], [])


def test_correlations() -> None:
    # deviations -1, 0, 1 and -2, -1, 3: 5 / sqrt(2 * 14); the ranks are the same
    assert pearson([1.0, 2.0, 3.0], [0.0, 1.0, 5.0]) == {"pearson": pytest.approx(100 * 5 / 28**0.5)}
    assert spearman([1.0, 2.0, 3.0], [0.0, 1.0, 5.0]) == {"spearman": pytest.approx(100.0)}
    assert pearson([3.0, 2.0, 1.0], [2.0, 4.0, 6.0]) == {"pearson": pytest.approx(-100.0)}
    # equal values share their ranks, 1.5, 1.5, 3 and 1, 2, 3: 1.5 / sqrt(1.5 * 2)
    assert spearman([7.0, 7.0, 9.0], [1.0, 2.0, 3.0]) == {"spearman": pytest.approx(100 * 1.5 / 3**0.5)}


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_correlation_with_a_constant_is_nought_and_of_less_than_two_refused(correlation) -> None:
    name = correlation.__name__
    assert correlation([4.0, 4.0, 4.0], [1.0, 2.0, 3.0]) == {name: 0.0}
    assert correlation([1.0, 2.0], [3.0, 3.0]) == {name: 0.0}
    with pytest.raises(ValueError, match="1 references: a correlation needs two"):
        correlation([1.0], [1.0])
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        correlation([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("predicted", "gold", "precision", "recall", "f1_score", "accuracy_score"),
    [
        pytest.param("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 1, 1, 1, 1, id="all right"),
        # 1 of 2 predicted and 1 of 2 gold: the person ends one word early
        pytest.param("B-PER O O B-LOC", "B-PER I-PER O B-LOC", 1 / 2, 1 / 2, 1 / 2, 3 / 4, id="wrong end"),
        pytest.param("O B-PER O B-LOC", "B-PER I-PER O B-LOC", 1 / 2, 1 / 2, 1 / 2, 2 / 4, id="wrong beginning"),
        pytest.param("B-ORG I-ORG O B-LOC", "B-PER I-PER O B-LOC", 1 / 2, 1 / 2, 1 / 2, 2 / 4, id="wrong type"),
        # 1 of 3 predicted, 1 of 2 gold: 2 * (1/3 * 1/2) / (1/3 + 1/2) = 2/5
        pytest.param("B-PER B-PER O B-LOC", "B-PER I-PER O B-LOC", 1 / 3, 1 / 2, 2 / 5, 3 / 4, id="torn in two"),
        # two entities of one type side by side, taken for one
        pytest.param("B-PER I-PER O B-LOC", "B-PER B-PER O B-LOC", 1 / 2, 1 / 3, 2 / 5, 3 / 4, id="run together"),
        # an I- that follows no word of its type begins an entity, on either side
        pytest.param("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC", 1, 1, 1, 2 / 4, id="I- without B-"),
        pytest.param("B-PER I-PER O B-LOC", "I-PER I-PER O I-LOC", 1, 1, 1, 2 / 4, id="gold I- without B-"),
        # a change of type ends an entity: a person of one word and a place of one, 1 of 3 and 1 of 2
        pytest.param("B-PER I-LOC O B-LOC", "B-PER I-PER O B-LOC", 1 / 3, 1 / 2, 2 / 5, 3 / 4, id="I- of another type"),
        # 1 of 1 and 1 of 2: 2 * 1/2 / (3/2) = 2/3
        pytest.param("O O O B-LOC", "B-PER I-PER O B-LOC", 1, 1 / 2, 2 / 3, 2 / 4, id="overlooked"),
        pytest.param("O O O O", "B-PER I-PER O B-LOC", 0, 0, 0, 1 / 4, id="nothing predicted"),
        pytest.param("B-PER O O O", "O O O O", 0, 0, 0, 3 / 4, id="nothing to find"),
        pytest.param("O O O O", "O O O O", 0, 0, 0, 1, id="nothing at all"),
    ],
)
def test_entity_scores(predicted, gold, precision, recall, f1_score, accuracy_score) -> None:
    found = entity_scores([predicted.split()], [gold.split()])
    assert list(found) == ["f1", "precision", "recall", "accuracy"]
    want = {"f1": f1_score, "precision": precision, "recall": recall, "accuracy": accuracy_score}
    assert found == {name: pytest.approx(100 * value, abs=1e-10) for name, value in want.items()}


def test_entities_of_all_rows_count_alike_and_end_with_their_row() -> None:
    predictions = [["B-PER"], ["I-PER"], [], ["B-ORG", "O", "B-LOC", "B-LOC"]]
    references = [["B-PER"], ["I-PER"], [], ["B-ORG", "I-ORG", "O", "B-LOC"]]
    # 3 right (a person in each of the first rows, a place) of 5 predicted and 4 gold; 4 of 6 words
    assert entity_scores(predictions, references) == {
        "f1": pytest.approx(100 * 2 * 3 / (5 + 4)),
        "precision": pytest.approx(60.0),
        "recall": pytest.approx(75.0),
        "accuracy": pytest.approx(100 * 4 / 6),
    }


def test_entity_scores_refuse_what_does_not_match_and_nothing() -> None:
    with pytest.raises(ValueError, match="1 rows of predictions for 2 of references"):
        entity_scores([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="row 1: 2 predicted tags for 1 words"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="no references"):
        entity_scores([[]], [[]])


def test_importing_scores_imports_nothing_heavy() -> None:
    heavy = {"numpy", "torch", "datasets", "evaluate", "scipy", "seqeval", "sklearn", "transformers"}
    code = f"import sys, sparse_xp.metrics.scores; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# SQuAD v2


def test_squad_v2_by_hand():
    golds = [["the red cat"], [], ["a dog"], []]
    answers = ["red cat", "a mat", "dog house", "hats"]
    margins = [-3.0, -1.0, 2.0, 5.0]
    found = squad_v2_scores(answers, margins, golds)
    # said: red cat (right), a mat (wrong), nothing (wrong), nothing (right)
    assert (found["exact_match"], found["f1"]) == (50, 50)
    assert (found["HasAns_exact_match"], found["NoAns_exact_match"]) == (50, 50)
    # best: only the first span is given, which gains a whole question over all empty (2 of 4)
    assert (found["best_exact"], found["best_f1"], found["best_f1_threshold"]) == (75, 75, -3.0)
    # "dog house" against "dog": F1 2/3
    lenient = squad_v2_scores(answers, margins, golds, threshold=3.0)
    assert lenient["HasAns_f1"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert lenient["NoAns_f1"] == 50


def test_squad_v2_with_answers_only_is_squad():
    found = squad_v2_scores(["the cat"], [-1.0], [["cat", "hat"]])
    assert found == {
        "exact_match": 100, "f1": 100, "HasAns_exact_match": 100, "HasAns_f1": 100,
        "best_exact": 100, "best_f1": 100, "best_f1_threshold": -1.0,
    }  # fmt: skip


def test_squad_v2_equal_margins_are_told_apart_by_their_order():
    # two spans with one margin: the first is right, the second spoils a question without answer
    found = squad_v2_scores(["cat", "mat"], [1.0, 1.0], [["cat"], []])
    assert (found["best_f1"], found["best_f1_threshold"]) == (100, 1.0)
    found = squad_v2_scores(["mat", "cat"], [1.0, 1.0], [[], ["cat"]])
    assert (found["best_f1"], found["best_f1_threshold"]) == (50, 0.0)


def test_squad_v2_answers_of_articles_and_punctuation():
    # "the" has an answer, so that saying there is none is wrong, whatever is left of it
    assert squad_v2_scores(["cat"], [1.0], [["the"]])["exact_match"] == 0
    assert squad_v2_scores(["!"], [-1.0], [["the"]])["f1"] == 100
    # "the" is no answer once normalized, yet a text: given to a question without answer, it counts against it
    found = squad_v2_scores(["the"], [-1.0], [[]])
    assert (found["exact_match"], found["best_exact"]) == (100, 100)
    found = squad_v2_scores(["the", "cat"], [-2.0, -1.0], [[], ["cat"]])
    assert (found["exact_match"], found["best_exact"], found["best_f1_threshold"]) == (100, 50, 0.0)


WORDS = "a A an the The cat cat. dog red-dog Red, 7 ! ... \u00e9t\u00e9 \u2013 mat's".split()


def plain(text: str) -> list[str]:
    """The words of a text that the official scripts compare."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(?:the|an|a)\b", " ", kept).split()


def fractions_of(said: str, gold: str, empty_agree: bool) -> tuple[int, float]:
    """Exact match and F1 of two texts; F1 of two empty ones is 1 where ``empty_agree`` (v2.0), else 0 (v1.1)."""
    ours, theirs = plain(said), plain(gold)
    if not (ours and theirs) and empty_agree:
        return int(ours == theirs), float(ours == theirs)
    both = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    return int(ours == theirs), 2 * both / (len(ours) + len(theirs)) if both else 0.0


def official_v2(answers, margins, golds, threshold):
    """The rules of evaluate-v2.0.py, question after question: raw scores, then the threshold, then the best one."""
    raw, has_answer = [], [len(each) > 0 for each in golds]
    for answer, each in zip(answers, golds, strict=True):
        pairs = [fractions_of(answer, gold, True) for gold in ([g for g in each if plain(g)] or [""])]
        raw.append([max(column) for column in zip(*pairs, strict=True)])
    rows, found = range(len(golds)), {}
    for column, name in enumerate(("exact_match", "f1")):
        final = [float(not has_answer[i]) if margins[i] > threshold else raw[i][column] for i in rows]
        for prefix, chosen in (
            ("", list(rows)),
            ("HasAns_", [i for i in rows if has_answer[i]]),
            ("NoAns_", [i for i in rows if not has_answer[i]]),
        ):
            if chosen:
                found[prefix + name] = 100 * sum(final[i] for i in chosen) / len(chosen)
        now = has_answer.count(False)
        tries = [(now, 0.0)]
        for i in sorted(rows, key=margins.__getitem__):
            now += raw[i][column] if has_answer[i] else (-1 if answers[i] else 0)
            tries.append((now, margins[i]))
        highest = max(score for score, _ in tries)
        found["best_exact" if column == 0 else "best_f1"] = 100 * highest / len(golds)
        if column == 1:
            found["best_f1_threshold"] = next(where for score, where in tries if score == highest)
    return found


def random_text(draw: random.Random, most: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(0, most)))


def test_squad_v2_is_the_official_script_on_artificial_sets():
    draw = random.Random(2)
    for _ in range(3000):
        count = draw.randint(1, 12)
        golds = [[random_text(draw, 2) for _ in range(draw.randint(0, 3))] for _ in range(count)]
        answers = [random_text(draw, 2) for _ in range(count)]
        margins = [float(draw.randint(-3, 3)) for _ in range(count)]
        threshold = draw.choice([0.0, 0.0, 1.0, -2.5])
        expected = official_v2(answers, margins, golds, threshold)
        assert squad_v2_scores(answers, margins, golds, threshold) == pytest.approx(expected, abs=1e-9)


def test_squad_is_the_official_script_on_artificial_sets():
    draw = random.Random(1)
    for _ in range(3000):
        golds = {str(i): [random_text(draw, 3) for _ in range(draw.randint(1, 3))] for i in range(draw.randint(1, 8))}
        answers = {key: random_text(draw, 3) for key in golds}
        pairs = [[fractions_of(answers[key], gold, False) for gold in each] for key, each in golds.items()]
        best = [[max(column) for column in zip(*each, strict=True)] for each in pairs]
        exact, overlap = (100 * sum(column) / len(golds) for column in zip(*best, strict=True))
        assert squad_scores(answers, golds) == pytest.approx({"exact_match": exact, "f1": overlap}, abs=1e-9)


def test_squad_v2_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="1 answers and 2 margins for 1 questions"):
        squad_v2_scores(["a"], [1.0, 2.0], [[]])
    with pytest.raises(ValueError, match="no references"):
        squad_v2_scores([], [], [])
