"""The benchmark of embeddings: which texts it takes, its scores by hand, its turns, its table and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from benchmarks.embeddings.collections import Pairs, make_retrieval
from benchmarks.embeddings.encode import batches_of_like_length, pad
from benchmarks.embeddings.entries import parse_entry
from benchmarks.embeddings.picture import Point, draw
from benchmarks.embeddings.results import add_results, read_results
from benchmarks.embeddings.score import cut, overlap, score
from benchmarks.embeddings.speed import summarize, take_turns
from benchmarks.embeddings.table import make_points, make_rows
from benchmarks.embeddings.texts import SOURCES, collect, distinct, held_out


def test_texts_are_distinct_and_none_is_scored_later():
    texts = ["One two three\nfour five", "one TWO three, four five!", "Too short text", "The scored sentence is here ."]
    assert distinct(texts, ["the scored sentence is here"]) == ["One two three four five"]


def test_what_is_scored_does_not_come_in_by_another_file(tmp_path):
    def write(name, **columns):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(pa.table(columns), path)

    for name, columns in SOURCES.items():
        write(name, **{column: [f"A first text of {name} {column}. And a second one of it."] for column in columns})
    write("stsb/validation", sentence1=["A text of sentence one here."], sentence2=["Another one of those texts."])
    write("squad/validation", question=["What is a text of this?"], context=["A scored thing is one. It is of two."])
    write("qnli/train", question=["What is a text of this ?"], sentence=["It is of two ."])
    texts = distinct(collect(tmp_path), held_out(tmp_path))
    assert not [text for text in texts if "qnli" in text or "two" in text or "What" in text]
    assert "And a second one of it." in texts  # of the paragraph, once
    assert len(texts) == 11 + 3  # of eight files the columns; the paragraph and its two sentences


def test_the_nearest_ten_by_hand():
    expected = np.array([[5.0, 4.0, 3.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    assert overlap(expected, expected, 2) == 1.0
    assert overlap(np.array([[5.0, 0.0, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0]]), expected, 2) == 0.25


def test_scores_by_hand():
    texts = ["a", "b", "c", "q", "p1", "p2"]
    reference = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    pairs = Pairs(["a", "a", "b"], ["b", "c", "c"], [5.0, 0.0, 4.0])
    retrieval = make_retrieval(["q", "q"], ["p1", "p2"])
    found = score(reference, reference, texts, pairs, retrieval)
    assert (found["spearman"], found["overlap_10"], found["cosine"]) == pytest.approx((100, 100, 100))
    assert (found["mrr_10"], found["recall_10"]) == pytest.approx((75.0, 100.0))  # p1 is the second of both questions
    opposite = score(-reference * [1.0, -1.0], reference, texts, pairs, retrieval)
    assert opposite["cosine"] == pytest.approx(100 * np.mean([-1, -0.28, 1, -1, 0.28, -0.28]))


def test_fewer_dimensions_have_length_1_again():
    np.testing.assert_allclose(cut(np.array([[0.6, 0.0, 0.8], [0.3, 0.4, 0.5]]), 2), [[1.0, 0.0], [0.6, 0.8]])


def test_paragraphs_that_stand_there_twice_are_one():
    retrieval = make_retrieval(["q0", "q1", "q2"], ["p", "r", "p"])
    assert (retrieval.paragraphs, retrieval.answers) == (["p", "r"], [0, 1, 0])


def test_batches_hold_texts_of_like_length():
    lengths = list(range(40))
    batches = list(batches_of_like_length(lengths))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    assert batches[0].tolist() == list(range(39, 23, -1))
    arrays = pad([[5, 6, 7], [8]])
    assert arrays["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_files_take_turns_and_ratios_are_those_of_a_round():
    now, order = [0.0], []

    def call(name, seconds):
        def run(batch):
            order.append(name)
            now[0] += seconds * (2 if len(order) > 6 else 1)  # the machine is slower from the second round on

        return run

    seconds = take_turns({"a": call("a", 1.0), "b": call("b", 0.5)}, {}, 3, lambda: now[0])
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"
    found = summarize(seconds)
    assert (found["b"].ratio, found["b"].ms) == pytest.approx((2.0, 1000.0))


def test_files_are_named_by_label_seed_or_run(tmp_path):
    runs = tmp_path / "structured50_quant,dimensions=128,seed=42"
    for folder in (tmp_path / "fp32", runs / "deployment"):
        folder.mkdir(parents=True)
        for name in ("model.onnx", "tokenizer.json"):
            (folder / name).touch()
    assert parse_entry(f"fp32:{tmp_path / 'fp32'}").name == "fp32"
    assert parse_entry(f"int8@3:{tmp_path / 'fp32'}").name == "int8@3"
    entry = parse_entry(str(runs))
    assert (entry.name, entry.folder) == ("structured50_quant,dimensions=128@42", runs / "deployment")
    assert parse_entry(str(runs / "deployment")) == entry
    for wrong in (f"fp32:{tmp_path}", f"fp32@x:{tmp_path / 'fp32'}", f":{tmp_path / 'fp32'}"):
        with pytest.raises(SystemExit):
            parse_entry(wrong)


RESULTS = {
    "scores": {
        "fp32": {"spearman": 80.0, "mrr_10": 50.0, "overlap_10": 100.0, "megabytes": 90.0},
        "fp32, 256 dimensions": {"spearman": 79.0, "mrr_10": 48.0, "overlap_10": 80.0},
        "small@43": {"spearman": 78.0, "mrr_10": 49.0, "overlap_10": 70.0, "megabytes": 20.0},
        "small@42": {"spearman": 80.0, "mrr_10": 48.0, "overlap_10": 72.0, "megabytes": 22.0},
    },
    "speed": {
        "fp32": {"1x128": {"ratio": 1.0}},
        "small@42": {"1x128": {"ratio": 4.0}},
        "small@43": {"1x128": {"ratio": 5.0}},
    },
}


def test_the_table_has_a_row_for_each_label():
    first, second, third = make_rows(RESULTS)
    assert (first["STS-B, Spearman"], first["times fp32, 1x128"]) == ("80.00", "1.00")
    assert (second["MB"], second["times fp32, 1x128"]) == ("", "")
    assert third == {
        "file": "small",
        "MB": "21.00",
        "STS-B, Spearman": "79.00 (80.00, 78.00)",
        "STS-B, Spearman, of fp32": "98.8 %",
        "SQuAD, MRR@10": "48.50 (48.00, 49.00)",
        "SQuAD, MRR@10, of fp32": "97.0 %",
        "overlap@10": "71.00 (72.00, 70.00)",
        "times fp32, 1x128": "4.50",
    }


def test_the_picture_has_what_was_timed():
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    points = make_points(RESULTS)
    assert points[1] == Point("small", 4.5, {"spearman": pytest.approx(98.75), "mrr_10": pytest.approx(97.0)})
    text = draw(points, {"spearman": "one", "mrr_10": "two"})
    assert text.startswith("<svg")
    assert ">small</text>" in text
    assert "256 dimensions" not in text


def test_results_are_kept_when_others_are_added(tmp_path: Path):
    path = tmp_path / "results.json"
    add_results(path, "scores", {"a": {"x": 1}})
    add_results(path, "scores", {"b": {"x": 2}})
    add_results(path, "speed", {"a": {}})
    assert read_results(path) == {"scores": {"a": {"x": 1}, "b": {"x": 2}}, "speed": {"a": {}}}
