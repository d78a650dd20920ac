"""The ``evaluate`` modules load from their folders offline and give the numbers of the pure functions.

One child process does all of it: the cache folders and the offline switches are read from the environment
when ``datasets`` is first imported, so they cannot be set for a process that may have imported it already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sparse_xp.metrics
from sparse_xp.metrics.scores import accuracy, class_f1, entity_scores, squad_scores

FOLDER = Path(sparse_xp.metrics.__file__).parent

ANSWERS = {"q1": "the Broncos", "q2": "red green blue", "q3": "Denver", "q4": "1914\u20131918"}
GOLDS = {
    "q1": ["Broncos", "Denver Broncos"],
    "q2": ["red green black white"],
    "q3": ["Carolina", "Denver Broncos"],
    "q4": ["1914-1918"],
}
LABELS, GOLD_LABELS = [0, 1, 2, 0, 2], [0, 1, 1, 0, 2]
SAME, GOLD_SAME = [0, 1, 1, 0], [0, 0, 1, 0]
TAGS = [["B-PER", "I-PER", "O"], ["B-LOC"]]
GOLD_TAGS = [["B-PER", "O", "O"], ["B-LOC"]]

CHILD = """
import json, sys
sys.modules["transformers"] = None  # evaluate does without it, and does not spend seconds on its pipelines
import evaluate
del sys.modules["transformers"]
from sparse_xp.metrics.accuracy.accuracy import Accuracy
from sparse_xp.metrics.f1.f1 import F1
from sparse_xp.metrics.seqeval.seqeval import Seqeval
from sparse_xp.metrics.squad.squad import Squad

def refusal(metric, **inputs):
    try:
        metric.compute(**inputs)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"

given = json.load(sys.stdin)
folder, squad, labels, tags = given["folder"], given["squad"], given["labels"], given["tags"]
loaded_squad, loaded_accuracy = evaluate.load(f"{folder}/squad"), evaluate.load(f"{folder}/accuracy")
loaded_seqeval, loaded_f1 = evaluate.load(f"{folder}/seqeval"), evaluate.load(f"{folder}/f1")
for prediction, reference in zip(squad["predictions"], squad["references"], strict=True):
    loaded_squad.add(prediction=prediction, reference=reference)
twice = {name: rows + rows[:1] for name, rows in squad.items()}
strays = {"predictions": [{**squad["predictions"][0], "id": "q9"}], "references": squad["references"][:1]}
print(json.dumps({
    "squad from its class": Squad().compute(**squad),
    "squad loaded and fed row by row": loaded_squad.compute(),
    "squad loaded, second use": loaded_squad.compute(**squad),
    "squad given a question twice": refusal(Squad(), **twice),
    "squad without a prediction": refusal(Squad(), **strays),
    "accuracy from its class": Accuracy(keep_in_memory=True).compute(**labels),
    "accuracy loaded": loaded_accuracy.compute(**labels),
    "accuracy with an option it lacks": refusal(Accuracy(), **labels, normalize=False),
    "f1 from its class": F1().compute(**given["same"]),
    "f1 loaded": loaded_f1.compute(**given["same"]),
    "f1 with an option it lacks": refusal(F1(), **given["same"], average="macro"),
    "f1 of three classes": refusal(F1(), **labels),
    "seqeval from its class": Seqeval().compute(**tags),
    "seqeval loaded": loaded_seqeval.compute(**tags),
    "seqeval with an option it lacks": refusal(Seqeval(), **tags, mode="strict"),
    "seqeval with a tag too many": refusal(Seqeval(), predictions=[["O", "O"]], references=[["O"]]),
    "names": [loaded_squad.name, loaded_accuracy.name, loaded_f1.name, loaded_seqeval.name],
}))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("hf")
    cache = {
        "HF_HOME": str(home),
        "HF_MODULES_CACHE": str(home / "modules"),
        "HF_METRICS_CACHE": str(home / "metrics"),
        "HF_EVALUATE_CACHE": str(home / "evaluate"),
    }
    given = {
        "folder": str(FOLDER),
        "squad": {
            "predictions": [{"id": key, "prediction_text": text} for key, text in ANSWERS.items()],
            "references": [
                {"id": key, "answers": {"text": texts, "answer_start": [0] * len(texts)}}
                for key, texts in GOLDS.items()
            ],
        },
        "labels": {"predictions": LABELS, "references": GOLD_LABELS},
        "same": {"predictions": SAME, "references": GOLD_SAME},
        "tags": {"predictions": TAGS, "references": GOLD_TAGS},
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(given),
        env={**os.environ, **cache, "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", ["squad from its class", "squad loaded and fed row by row", "squad loaded, second use"])
def test_squad_gives_the_numbers_of_the_pure_function(results: dict[str, Any], way: str) -> None:
    assert results[way] == squad_scores(ANSWERS, GOLDS)
    assert results[way]["exact_match"] == 25.0
    assert results[way]["f1"] == pytest.approx(55.95238095238095)  # (1 + 4/7 + 2/3 + 0) / 4 = 47/84


@pytest.mark.parametrize("way", ["accuracy from its class", "accuracy loaded"])
def test_accuracy_gives_the_number_of_the_pure_function_as_a_fraction(results: dict[str, Any], way: str) -> None:
    assert accuracy(LABELS, GOLD_LABELS) == {"accuracy": 80.0}
    assert results[way] == {"accuracy": 0.8}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("squad given a question twice", "ValueError: question 'q1' is given twice"),
        ("squad without a prediction", "ValueError: no prediction for question 'q1'"),
    ],
)
def test_squad_refuses(results: dict[str, Any], case: str, message: str) -> None:
    assert results[case] == message


def test_accuracy_refuses_the_options_it_lacks(results: dict[str, Any]) -> None:
    message = results["accuracy with an option it lacks"]
    assert message.startswith("TypeError")
    assert "normalize" in message


@pytest.mark.parametrize("way", ["f1 from its class", "f1 loaded"])
def test_f1_gives_the_number_of_the_pure_function_as_a_fraction(results: dict[str, Any], way: str) -> None:
    assert results[way] == {"f1": class_f1(SAME, GOLD_SAME, 2)["f1"] / 100}
    assert results[way]["f1"] == pytest.approx(2 / 3)  # 1 of 2 predicted, 1 of 1 found


def test_f1_refuses(results: dict[str, Any]) -> None:
    message = results["f1 with an option it lacks"]
    assert message.startswith("TypeError")
    assert "average" in message
    assert results["f1 of three classes"] == "ValueError: class 2: expected numbers from 0 to 1"


@pytest.mark.parametrize("way", ["seqeval from its class", "seqeval loaded"])
def test_seqeval_gives_the_numbers_of_the_pure_function_as_fractions(results: dict[str, Any], way: str) -> None:
    assert entity_scores(TAGS, GOLD_TAGS) == {"f1": 50.0, "precision": 50.0, "recall": 50.0, "accuracy": 75.0}
    assert results[way] == {
        "overall_precision": 0.5,  # one of the two entities ends too late
        "overall_recall": 0.5,
        "overall_f1": 0.5,
        "overall_accuracy": 0.75,
    }


def test_seqeval_refuses(results: dict[str, Any]) -> None:
    message = results["seqeval with an option it lacks"]
    assert message.startswith("TypeError")
    assert "mode" in message
    assert results["seqeval with a tag too many"] == "ValueError: row 0: 2 predicted tags for 1 words, expected as many"


def test_modules_bear_the_names_of_the_hubs(results: dict[str, Any]) -> None:
    assert results["names"] == ["squad", "accuracy", "f1", "seqeval"]
