"""``Pipeline`` says what the run's own evaluation says, and loads without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from sparse_xp import Pipeline
from sparse_xp.errors import UserError
from sparse_xp.files.checksums import write_checksums
from sparse_xp.metrics import scores
from sparse_xp.metrics.ranking import ranking_metrics
from sparse_xp.result import Result
from sparse_xp.settings import Data
from sparse_xp.tasks.rows import load_rows
from tests import fuzz_texts


def evaluation(directory):
    """The pipeline of a run, its evaluation rows, and the metrics that are to come out."""
    pipeline = Pipeline(directory / "deployment")
    stored = yaml.safe_load((directory / "config.yaml").read_text())
    rows = load_rows(pipeline.task, Data(**stored["data"]), train=False).rows.to_list()
    return pipeline, rows, Result.read(directory / "result.json").deployment.metrics


def test_questions(deployed):
    pipeline, rows, wanted = evaluation(deployed("squad"))
    assert sum(len(pipeline.encode(row).encodings) for row in rows) > len(rows)  # windows
    told = pipeline(rows)
    for row, answer in zip(rows, told, strict=True):
        assert row["context"][answer["start"] : answer["end"]] == answer["answer"]
        assert 0 < answer["score"] < 1
    ids = [row["id"] for row in rows]
    golds = [row["answers"]["text"] for row in rows]
    texts = [answer["answer"] for answer in told]
    assert scores.squad_scores(dict(zip(ids, texts, strict=True)), dict(zip(ids, golds, strict=True))) == wanted


def test_questions_without_an_answer(deployed):
    pipeline, rows, wanted = evaluation(deployed("squad_v2"))
    # As the margins, what was decided: the scores without the best threshold must come out.
    texts = [answer["answer"] for answer in pipeline(rows)]
    golds = [row["answers"]["text"] for row in rows]
    found = scores.squad_v2_scores(texts, [-1.0 if text else 1.0 for text in texts], golds)
    for name in ("exact_match", "f1", "NoAns_f1", "HasAns_f1"):
        assert found[name] == wanted[name]


@pytest.mark.parametrize("kind", ["sst2", "pairs"])
def test_classes(deployed, kind):
    pipeline, rows, wanted = evaluation(deployed(kind))
    said = [pipeline.task.classes.index(answer["label"]) for answer in pipeline(rows)]
    golds = [pipeline.task.target(row["label"], 0) for row in rows]
    first = [i for i, row in enumerate(rows) if row.get("split") in (None, rows[0].get("split"))]
    found = scores.accuracy([said[i] for i in first], [golds[i] for i in first])
    assert found["accuracy"] == wanted["accuracy"]


def test_several_labels(deployed):
    pipeline, rows, wanted = evaluation(deployed("several"))
    task = pipeline.task
    told = [{each["label"] for each in answer} for answer in pipeline(rows)]
    said = [[int(name in labels) for name in task.classes] for labels in told]
    golds = [[int(one) for one in task.target(row["label"], 0)] for row in rows]
    assert scores.label_set_scores(said, golds)["f1_micro"] == wanted["f1_micro"]


@pytest.mark.slow
def test_numbers(deployed):
    pipeline, rows, wanted = evaluation(deployed("numbers"))
    values = [answer["value"] for answer in pipeline(rows)]
    assert scores.pearson(values, [row["label"] for row in rows])["pearson"] == pytest.approx(wanted["pearson"])


def test_entities(deployed):
    pipeline, rows, wanted = evaluation(deployed("conll2003"))
    names = pipeline.task.classes
    asked = [pipeline.encode(row) for row in rows]
    said = [
        [tag for tag, _ in pipeline.task.word_tags(each, outputs)]
        for each, outputs in zip(asked, pipeline.predict(asked, 32), strict=True)
    ]
    golds = [
        [names[number] for number in pipeline.task.tag_numbers({k: [v] for k, v in row.items()}, 0, 0)] for row in rows
    ]
    assert scores.entity_scores(said, golds) == wanted
    # and joined into entities: the same entities, tagged anew
    joined = []
    for row, found in zip(rows, pipeline(rows), strict=True):
        text, place, again = " ".join(row["tokens"]), 0, []
        for word in row["tokens"]:
            inside = next((each for each in found if each["start"] <= place < each["end"]), None)
            again.append("O" if not inside else f"{'B' if inside['start'] == place else 'I'}-{inside['entity']}")
            place += len(word) + 1
        assert all(text[each["start"] : each["end"]] == each["word"] for each in found)
        joined.append(again)
    for name in ("f1", "precision", "recall"):
        assert scores.entity_scores(joined, golds)[name] == wanted[name]


def test_batches_and_order_change_nothing(deployed):
    pipeline, rows, _ = evaluation(deployed("squad"))
    whole = pipeline(rows)
    for one, other in zip(whole, [pipeline(row) for row in rows], strict=True):
        assert one["answer"] == other["answer"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
    assert [a["answer"] for a in pipeline.stream(rows[::-1], batch=3)] == [a["answer"] for a in whole[::-1]]


def test_the_samples_are_what_it_sees(deployed):
    pipeline, rows, _ = evaluation(deployed("sst2"))
    inputs = dict(np.load(pipeline.directory / "samples/inp-0000.npz"))
    ours = pipeline.collate(pipeline.encode(rows[0]).encodings)
    assert list(ours) == list(inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(ours[name], value)


def test_names_and_calls(deployed):
    pipeline = Pipeline(deployed("pairs"), threads=1)
    pair = pipeline(text="a", second="b")
    assert pair == pipeline(premise="a", hypothesis="b") == pipeline({"premise": "a"}, second="b")
    assert pipeline([{"text": "a", "second": "b"}]) == [pair]
    assert pipeline([]) == []
    assert [len(each) for each in pipeline([{"text": "a", "second": "b"}] * 2, top=3)] == [3, 3]
    entities = Pipeline(deployed("conll2003"))
    assert entities(tokens="John lives in Paris") == entities(tokens=["John", "lives", "in", "Paris"])
    assert entities(text="") == entities(tokens=[]) == []


def test_texts_that_are_cut_are_counted(deployed, caplog):
    pipeline = Pipeline(deployed("sst2"), max_length=8)
    pipeline([{"text": "a film"}, {"text": "a film " * 20}])
    assert caplog.messages == ["1 of 2 rows were cut to 8 tokens"]


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("squad", {"question": "Who?"}, r"No context: the task squad needs question and context; there is question\."),
        ("squad", {}, "No question: .* there is nothing"),
        ("squad", {"question": "Who?", "contxt": "I."}, r"contxt=: the task squad takes .* Did you mean 'context'\?"),
        ("squad", {"question": "who " * 50, "context": "I."}, "The question has .* tokens and leaves"),
        ("squad", {"question": 1, "context": "I."}, "question=1: expected a text"),
        ("pairs", {"text": "a"}, "No hypothesis or second: the task mnli needs premise or text and hypothesis or"),
        ("conll2003", {"tokens": [1]}, "expected words"),
        (
            "conll2003",
            {"tokens": ["a", "b\ud83d"]},
            r"^word 1 of tokens: character 1 is U\+D83D, half of a UTF-16 pair",
        ),
        ("conll2003", {"tokens": "a b\ude00"}, r"^tokens: character 3 is U\+DE00, half of a UTF-16 pair"),
        ("conll2003", {"text": "a b\ude00"}, r"^text: character 3 is U\+DE00, half of a UTF-16 pair"),
        (
            "sst2",
            {"text": "a \udcff film"},
            r"^text: character 2 is U\+DCFF, half of a UTF-16 pair and not a character",
        ),
        ("squad", {"question": "\ud800", "context": "I."}, r"^question: character 0 is U\+D800"),
        ("squad", {"question": "Who?", "context": "I.\ud800"}, r"^context: character 2 is U\+D800"),
        ("sst2", {"text": 10**5000}, r"^text=<int>: expected a text"),
        ("sst2", {"text": ["a"] * 100_000}, r"^text=\[\.\.\.\]: expected a text"),
        ("sst2", {"text": b"a"}, "^text=<bytes>: expected a text"),
        ("sst2", {"text": float("nan")}, "^text=nan: expected a text"),
    ],
)
def test_texts_that_cannot_be(deployed, kind, asked, message):
    with pytest.raises(UserError, match=message):
        Pipeline(deployed(kind))(**asked)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([None], r"^None is no row: expected an object with sentence or text"),
        ([3, {"text": "b"}], r"^Row 0: 3 is no row"),
        ([[]], r"^\[\.\.\.\] is no row"),
        ([{3: "a"}], r"there is 3\."),
        ([{"text": "a", "\ud800": "b"}], r"^the name of field 1: character 0 is U\+D800"),
        (b"a text", "^<bytes> is neither a row nor a list of rows: a row has sentence or text"),
        (7, "^7 is neither a row nor a list of rows"),
    ],
)
def test_what_is_no_row(deployed, rows, message):
    with pytest.raises(UserError, match=message):
        Pipeline(deployed("sst2"), threads=1)(rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a text", "^'a text' is neither a row nor a list of rows: a row has premise or text and hypothesis or second"),
        (["a", {"text": "b"}], r"^Row 0: 'a' is no row: expected an object with premise or text and hypothesis"),
    ],
)
def test_a_task_on_several_texts_wants_their_names(deployed, rows, message):
    with pytest.raises(UserError, match=message):
        Pipeline(deployed("pairs"), threads=1)(rows)


def test_a_text_alone_is_a_row_of_a_task_on_one_text(deployed):
    classes = Pipeline(deployed("sst2"), threads=1)
    assert classes("a film") == classes(text="a film")
    assert classes(["a film", {"sentence": "a b"}]) == classes([{"text": "a film"}, {"text": "a b"}])
    assert len(classes("a film", top=2)) == 2
    with pytest.raises(UserError, match=r"^text= beside a text: say one of them"):
        classes("a film", text="a film")
    with pytest.raises(UserError, match=r"^Row 1: text: character 0 is U\+D800"):
        classes(["a film", "\ud800"])
    entities = Pipeline(deployed("conll2003"), threads=1)
    assert entities("John, of Paris.") == entities(text="John, of Paris.")


# Embeddings


def test_embeddings_of_texts_are_an_array(deployed):
    pipeline = Pipeline(deployed("embedding"), threads=1)
    texts = [f"the plot is {'really ' * i}dull" for i in (9, 0, 4, 2, 7)]
    vectors = pipeline(texts)
    assert (vectors.shape, vectors.dtype) == ((5, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):  # in the order of the texts
        alone = pipeline(text)
        assert alone.shape == (64,)
        np.testing.assert_allclose(alone, vector, atol=1e-5)
        np.testing.assert_allclose(pipeline({"text": text}), vector, atol=1e-5)
    np.testing.assert_allclose(np.stack(list(pipeline.stream(texts, batch=2))), vectors, atol=1e-5)
    assert pipeline([]).shape == (0, 64)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_document_has_its_own_prompt(deployed):
    pipeline = Pipeline(deployed("embedding"), threads=1)
    document, query = pipeline(document="plot is dull"), pipeline(query="the plot is dull")
    np.testing.assert_array_equal(document, query)
    assert np.abs(document - pipeline("plot is dull")).max() > 1e-4


def test_a_text_that_cannot_be_embedded_keeps_its_place(deployed):
    pipeline = Pipeline(deployed("embedding"), threads=1)
    first, second = pipeline.stream(["a", {"other": "b"}], errors="keep")
    assert first.shape == (64,)
    assert second["error"].startswith("Row 1: No text or query or document")


# Reranking


def test_documents_come_in_the_order_of_their_scores(deployed):
    pipeline, rows, wanted = evaluation(deployed("reranking"))
    queries = {row["query"]: [other for other in rows if other["query"] == row["query"]] for row in rows}
    rankings = []
    for query, candidates in queries.items():
        ranking = pipeline.rerank(query, [row["document"] for row in candidates])
        scores_of = [each["score"] for each in ranking]
        assert scores_of == sorted(scores_of, reverse=True)
        assert all(0 < score < 1 for score in scores_of)
        assert sorted(each["index"] for each in ranking) == list(range(len(candidates)))
        assert [each["text"] for each in ranking] == [candidates[each["index"]]["document"] for each in ranking]
        rankings.append(np.array([candidates[each["index"]]["label"] for each in ranking]))
    assert ranking_metrics(rankings) == pytest.approx(wanted, abs=1e-6)
    # and the same numbers one by one
    one = pipeline(query=query, document=ranking[0]["text"])
    assert one == {"value": pytest.approx(ranking[0]["score"], abs=1e-5)}
    assert pipeline.rerank(query, (text for text in [candidates[0]["document"]] * 3), 2) == [
        {"index": number, "score": pytest.approx(candidates_score, abs=1e-5), "text": candidates[0]["document"]}
        for number, candidates_score in enumerate(
            [pipeline(query=query, document=candidates[0]["document"])["value"]] * 2
        )
    ]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            "sst2",
            ("a", ["b"]),
            r"^rerank: the task sst2 does not say how well a document answers a query\. .*task\.text_",
        ),
        ("pairs", ("a", ["b"]), "^rerank: the task mnli does not"),
        ("squad", ("a", ["b"]), "^rerank: the task squad does not"),
        ("reranking", (" ", ["b"]), "^query is empty"),
        ("reranking", (None, ["b"]), "^query=None: expected a text"),
        ("reranking", ("a", []), "^documents is empty: there is nothing to rank"),
        ("reranking", ("a", "b"), "^documents='b': expected a list of texts"),
        ("reranking", ("a", 7), "^documents=7: expected a list of texts"),
        ("reranking", ("a", ["b", None]), r"^documents\[1\]=None: expected a text"),
        ("reranking", ("a", ["b"], 0), "^top=0: expected at least 1"),
    ],
)
def test_what_cannot_be_ranked(deployed, kind, arguments, message):
    with pytest.raises(UserError, match=message):
        Pipeline(deployed(kind), threads=1).rerank(*arguments)


def test_sentence_transformers_opens_the_model_and_gives_the_same_scores(deployed):
    library = pytest.importorskip("sentence_transformers")
    run = deployed("reranking")
    documents = ["critics hated it", "families came by bus", "people loved it so much that they stood in line"]
    model = library.CrossEncoder(str(run / "model"), device="cpu")
    expected = model.predict([("the plot is really dull", text) for text in documents])
    ranking = Pipeline(run, threads=1).rerank("the plot is really dull", documents)
    scores_of = {each["index"]: each["score"] for each in ranking}
    np.testing.assert_allclose([scores_of[i] for i in range(3)], expected, atol=1e-5)
    assert [each["corpus_id"] for each in model.rank("the plot is really dull", documents)] == list(scores_of)


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\0", "a\0b", "\ufeff", "[CLS] [SEP] [MASK]", "\u0301" * 1000, "x" * 100_000]
)
@pytest.mark.parametrize("kind", ["squad", "squad_v2", "pairs", "conll2003"])
def test_texts_that_are_odd_are_answered(deployed, kind, text):
    pipeline = Pipeline(deployed(kind), threads=1)
    for names in pipeline.text_names:
        rows = [{other[0]: "a b" for other in pipeline.text_names} | {name: text} for name in names]
        assert len(json.dumps(pipeline(rows), allow_nan=False)) > 2


def test_a_text_of_many_words(deployed):
    words = ["a", "the"] * 50_000
    assert Pipeline(deployed("sst2"), threads=1)(text=" ".join(words))["label"]
    assert isinstance(Pipeline(deployed("conll2003"), threads=1)(tokens=words), list)
    asked = Pipeline(deployed("squad_v2"), threads=1).encode({"question": "Who?", "context": " ".join(words)})
    assert len(asked.encodings) > 300


@pytest.mark.parametrize("kind", ["squad", "squad_v2", "sst2", "pairs", "several", "conll2003"])
def test_each_of_many_random_rows_has_an_answer_or_an_error(deployed, kind):
    pipeline = Pipeline(deployed(kind), threads=1)
    rows = list(fuzz_texts.rows(0, 200, [names[-1] for names in pipeline.text_names]))
    told = list(pipeline.stream(rows, batch=8, errors="keep"))
    wrong = [number for number, answer in enumerate(told) if "error" in answer]
    assert len(told) == 200
    assert 20 < len(wrong) < 180
    for number, (row, answer) in enumerate(zip(rows, told, strict=True)):
        json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
        if number in wrong:
            assert answer["error"].startswith(f"Row {number}: ")
            with pytest.raises(UserError):
                pipeline.encode(row)


def test_rows_that_cannot_be_answered_keep_their_places(deployed):
    pipeline = Pipeline(deployed("sst2"), threads=1)
    rows = [{"text": f"a film {i}"} for i in range(20)]
    whole = pipeline(rows)
    for number in (0, 7, 19):
        rows[number] = {"text": "\ud800"}
    told = list(pipeline.stream(rows, batch=2, errors="keep"))
    for number, (one, other) in enumerate(zip(told, whole, strict=True)):
        if number in (0, 7, 19):
            assert list(one) == ["error"]
            assert one["error"].startswith(f"Row {number}: text: character 0 is U+D800")
        else:
            assert one == {"label": other["label"], "score": pytest.approx(other["score"], abs=1e-5)}
    assert next(pipeline.stream([rows[7]], errors="keep"))["error"].startswith("Row 0: ")
    with pytest.raises(UserError, match=r"^Row 0: text: character 0"):
        list(pipeline.stream(rows))
    with pytest.raises(UserError, match=r"batch=0: expected at least 1"):
        list(pipeline.stream(rows, batch=0))


def test_the_first_answers_do_not_wait_for_all_rows(deployed, monkeypatch):
    pipeline = Pipeline(deployed("sst2"), threads=1)
    sizes, predict = [], pipeline.predict
    monkeypatch.setattr(pipeline, "predict", lambda asked, batch: sizes.append(len(asked)) or predict(asked, batch))
    answers = pipeline.stream([{"text": "a"}] * 100, batch=4)
    next(answers)
    assert sizes == [4]
    assert len(list(answers)) == 99
    assert sizes == [4, 8, 16, 32, 40]


def test_a_row_of_several_is_named(deployed):
    rows = [{"question": "Who?", "context": "I."}, {"question": "Who?", "context": None}]
    with pytest.raises(UserError, match=r"Row 1: No context"):
        Pipeline(deployed("squad"))(rows)
    with pytest.raises(UserError, match=r"context= beside a list of rows"):
        Pipeline(deployed("squad"))(rows, context="I.")


def test_more_tokens_than_the_model_has_places(deployed, folder):
    with pytest.raises(UserError, match=r"max_length=1000: the model in .* takes at most 512"):
        Pipeline(deployed("sst2"), max_length=1000)
    with pytest.raises(UserError, match=r"max_length=3: .* expected 8 or more"):
        Pipeline(deployed("sst2"), max_length=3)


def test_a_corrupted_folder(folder):
    place = folder("sst2")
    with (place / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"model\.onnx is not what was written"):
        Pipeline(place)


@pytest.mark.parametrize(
    ("kind", "other", "names", "message"),
    [
        ("sst2", "squad", ["task.json"], "model.onnx has the outputs logits, and no start_logits as task.json says"),
        ("sst2", "pairs", ["task.json"], r"model.onnx computes logits of float32 \(1, 2\), which is not what the task"),
        ("sst2", "conll2003", ["task.json"], r"model.onnx computes logits of float32 \(1, 2\), which is not what"),
        ("conll2003", "sst2", ["task.json"], r"model.onnx computes logits of float32 \(1, \d+, 9\), which is not what"),
        ("sst2", "several", ["model.onnx"], r"model.onnx computes logits of float32 \(1, 3\)"),
    ],
)
def test_files_of_different_folders(deployed, folder, kind, other, names, message):
    place = folder(kind)
    for name in names:
        shutil.copy(deployed(other) / "deployment" / name, place / name)
    write_checksums(place)
    with pytest.raises(UserError, match=message):
        Pipeline(place, threads=1)([{"text": "a", "second": "b", "question": "a", "context": "b"}])


def test_a_tokenizer_of_another_vocabulary(folder):
    place = folder("sst2")
    told = json.loads((place / "tokenizer.json").read_text())
    told["model"]["vocab"]["film"] = 10**6
    (place / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"model\.onnx cannot be used .*\. The folder is damaged"):
        Pipeline(place, check=False)(text="a film")


def test_a_tokenizer_that_knows_no_special_token(folder):
    path = folder("sst2") / "tokenizer.json"
    told = json.loads(path.read_text())
    told["post_processor"]["single"][0]["SpecialToken"]["id"] = "x"  # panics, in Rust
    path.write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be used \(.*\)\. The folder is damaged"):
        Pipeline(path.parent, check=False)(text="a film")


def test_a_model_that_computes_no_numbers(folder):
    import onnx
    from onnx import numpy_helper

    place = folder("sst2")
    model = onnx.load(place / "model.onnx")
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.nan, weight.name))
    onnx.save(model, place / "model.onnx")
    pipeline = Pipeline(place, check=False)
    with pytest.raises(UserError, match=r"model\.onnx computes nan or inf"):
        pipeline(text="a film")
    assert list(next(pipeline.stream([{"text": "a film"}], errors="keep"))) == ["error"]


LIGHT = """
import json, sys
import sparse_xp
before = sorted(sys.modules)
answer = sparse_xp.Pipeline(sys.argv[1])(text="a film")
print(json.dumps([before, sorted(sys.modules), answer]))
"""
HEAVY = {"torch", "transformers", "datasets", "accelerate", "onnx", "pyarrow", "sklearn", "pandas"}


def test_neither_torch_nor_transformers_is_loaded(deployed):
    command = [sys.executable, "-c", LIGHT, str(deployed("sst2"))]
    before, after, answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert not {"onnxruntime", "tokenizers", "numpy", "hydra", *HEAVY} & set(before)
    assert not HEAVY & set(after)
    assert answer["label"] in ("negative", "positive")
