"""Every file of a model directory, damaged in every way: it loads as it was, or one error names the file."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification, BertModel, RobertaConfig, RobertaForSequenceClassification

from sparse_xp import structured
from sparse_xp.console import silence_libraries
from sparse_xp.data import hub
from sparse_xp.errors import UserError
from sparse_xp.functional.quant_config import QuantConfig, QuantMode
from sparse_xp.functional.quant_file import load_quantization, save_quantization
from sparse_xp.functional.quant_modules import freeze, prepare
from sparse_xp.models.config_files import read_config
from sparse_xp.models.loading import load_model, load_teacher_model
from sparse_xp.models.tokenizers import load_tokenizer
from sparse_xp.recipe.inherit import inherit, lacks_layers, read_base, removed_layers
from sparse_xp.tasks import TextClassification
from tests.tiny import WORDS, make_bert, make_tokenizer

TASK = TextClassification(name="sst2", dataset=None, folder="sst2", classes=["negative", "positive"], max_length=8)
ROWS = torch.tensor([[2, 5, 6, 7, 3]])
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "c", "ab", "abc", "Ġ", "Ġa", "!", "A"]
RECIPE = "modifiers:\n  - !QuantizationModifier {start_epoch: 0.0, submodules: [classifier]}\n"

#: what may stand in a file of JSON or text; None: the file is missing, a function: what becomes of its bytes
DAMAGES = {
    "missing": None,
    "directory": None,
    "empty": b"",
    "blank": b" \n \n",
    "cut": lambda data: data[: len(data) // 2],
    "list": b"[]",
    "number": b"5",
    "text": b'"x"',
    "null": b"null",
    "random": bytes((i * 197 + 31) % 256 for i in range(5000)),
    "utf-16": lambda data: data.decode("latin1").encode("utf-16"),
    "deep": b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
}


@pytest.fixture(scope="module", autouse=True)
def _hushed():
    silence_libraries()


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Nothing is asked of a network, and nothing is run of what a file may hold."""

    def never(*_, **__):
        raise AssertionError("this was never to be called")

    for module, name in (("socket", "create_connection"), ("os", "system"), ("subprocess", "Popen")):
        monkeypatch.setattr(f"{module}.{name}", never)
    monkeypatch.setattr(urllib.request, "urlopen", never)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Directories of all forms that checkpoints come in, by name. Do not touch them."""
    base = tmp_path_factory.mktemp("models")
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    bert = make_bert()
    bert.config.id2label, bert.config.label2id = names.values()
    modules = prepare(bert, QuantConfig(), QuantMode(active=True))
    bert.train()(ROWS)
    freeze(modules)
    bert.save_pretrained(base / "single")
    bert.save_pretrained(base / "sharded", max_shard_size="2KB")
    bert.save_pretrained(base / "pickled")
    (base / "pickled/model.safetensors").unlink()
    torch.save(bert.state_dict(), base / "pickled/pytorch_model.bin")
    for kind in ("single", "sharded", "pickled"):
        make_tokenizer().save_pretrained(base / kind)
    bert.save_pretrained(base / "words")
    (base / "words/vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    (base / "words/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(PIECES), max_position_embeddings=24, **shape, **names)
    RobertaForSequenceClassification(config).save_pretrained(base / "pieces")
    (base / "pieces/vocab.json").write_text(json.dumps({word: i for i, word in enumerate(PIECES)}))
    (base / "pieces/merges.txt").write_text("#version: 0.2\na b\nab c\nĠ a\n")
    (base / "pieces/tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    for place in base.iterdir():
        pad = "<pad>" if place.name == "pieces" else "[PAD]"
        (place / "special_tokens_map.json").write_text(json.dumps({"pad_token": pad}))
        (place / "recipe.yaml").write_text(RECIPE)
        if place.name != "pieces":
            save_quantization(bert, place)
    return base


@pytest.fixture
def copied(kinds, tmp_path):
    """A copy of one of them, to be damaged."""

    def get(kind):
        return Path(shutil.copytree(kinds / kind, tmp_path / "model"))

    return get


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how != "missing":
        made = DAMAGES[how]
        path.write_bytes(made(data) if callable(made) else made)


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


LOADERS = {
    "tokenizer": lambda place: load_tokenizer(str(place)),
    "config": lambda place: read_config(str(place), None),
    "model": lambda place: load_model(TASK, str(place))[0],
    "model with a new head": lambda place: load_model(TASK, str(place), new_head=True)[0],
    "teacher": lambda place: load_teacher_model(TASK, str(place), make_tokenizer()),
    "structured": structured.load,
    "integers": lambda place: load_quantization(make_bert(), place),
    "inherit": lambda place: inherit(str(place), []),
}
#: the loaders that read a file
MODEL = ("model", "model with a new head", "teacher", "structured")
READ_BY = {
    "config.json": ("tokenizer", "config", *MODEL),
    "weights": MODEL,
    "words": ("tokenizer", "teacher"),
    "quantization.json": ("integers",),
}


def refused(load, place: Path, *names: str) -> str:
    """The message of the one error that ``load`` ends in."""
    with pytest.raises(UserError) as caught:
        load(place)
    said = str(caught.value)
    assert all(name in said for name in names), said
    assert len(said.splitlines()) <= 4
    assert len(said) < 1000
    assert re.search(r"Copy or download|Name one|Name another|expected|Remove", said), said
    return said


def logits(model):
    with torch.no_grad():
        return model.eval()(ROWS).logits


@cache
def logits_of(place: Path):
    """Of a whole model."""
    return logits(structured.load(place))


@cache
def read_by(place: Path):
    """What a whole tokenizer reads."""
    return load_tokenizer(str(place))("who a ab sat")["input_ids"]


def check(kinds, kind: str, place: Path, loaders=LOADERS) -> None:
    """The ``loaders`` load what they load of the same directory undamaged."""
    for loader in loaders:
        if kind == "pieces" and loader in ("teacher", "integers"):  # of other tokens, without integers
            continue
        found = LOADERS[loader](place)
        if loader in MODEL and kind != "pieces":
            assert torch.equal(logits(found), logits_of(kinds / kind))
        if loader == "integers":
            assert found
        if loader == "tokenizer":
            assert found("who a ab sat")["input_ids"] == read_by(kinds / kind)


FILES = [
    ("single", "config.json", "config.json"),
    ("single", "model.safetensors", "weights"),
    ("pickled", "pytorch_model.bin", "weights"),
    ("sharded", "model.safetensors.index.json", "weights"),
    ("sharded", "model-00002-of-*.safetensors", "weights"),
    ("single", "tokenizer.json", "words"),
    ("single", "tokenizer_config.json", "words"),
    ("single", "special_tokens_map.json", "words"),
    ("words", "vocab.txt", "words"),
    ("words", "tokenizer_config.json", "words"),
    ("pieces", "merges.txt", "words"),
    ("pieces", "vocab.json", "words"),
    ("single", "quantization.json", "quantization.json"),
]
#: of all that read a file these are tried with every damage, the others with a few
QUICK = ("tokenizer", "config", "model", "structured", "integers")
FEW = ("missing", "cut", "list")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize(("kind", "name", "role"), FILES, ids=[f"{kind}-{name}" for kind, name, _ in FILES])
def test_a_damaged_file_is_named_by_all_that_read_it(kinds, copied, kind, name, role, how):
    if how == "missing" and (kind, name) in NOT_NEEDED:
        pytest.skip("it is not needed: see below")
    place = copied(kind)
    [path] = place.glob(name)
    damage(path, how)
    reads = [loader for loader in LOADERS if loader in READ_BY[role]]
    if (name, how) == ("config.json", "missing"):
        reads.remove("tokenizer")
    for loader in reads:
        if loader in QUICK or how in FEW:
            refused(LOADERS[loader], place, path.name)
    if how == "list":
        check(kinds, kind, place, [loader for loader in LOADERS if loader not in reads])


#: what may be missing, and what it does not tell then
NOT_NEEDED = {
    ("single", "special_tokens_map.json"): "the other files have the same names",
    ("single", "tokenizer_config.json"): "the names of special tokens, which special_tokens_map.json has",
    ("words", "tokenizer_config.json"): "the class, which config.json tells",
    ("words", "special_tokens_map.json"): "the names, which the class tells",
    ("pieces", "tokenizer_config.json"): "the class, which config.json tells",
    ("single", "quantization.json"): "the integers",
    ("single", "recipe.yaml"): "what a run inherits",
}


@pytest.mark.parametrize(("kind", "name"), NOT_NEEDED, ids=[f"{kind}-{name}" for kind, name in NOT_NEEDED])
def test_a_file_that_is_not_needed(kinds, copied, kind, name):
    place = copied(kind)
    (place / name).unlink()
    check(kinds, kind, place, [loader for loader in LOADERS if loader != "integers"])
    if kind == "single":
        assert load_quantization(make_bert(), place) == (name != "quantization.json")
    if name == "recipe.yaml":
        assert inherit(str(place), []) == ({}, [])


def test_a_tokenizer_needs_no_configuration_of_a_model(copied):
    place = copied("single")
    (place / "config.json").unlink()
    assert load_tokenizer(str(place)).get_vocab() == make_tokenizer().get_vocab()


@pytest.mark.parametrize("how", DAMAGES)
def test_files_behind_others_are_not_read(kinds, copied, how):
    place = copied("single")
    for name, data in (("vocab.txt", b"who\n"), ("merges.txt", b"a b\n"), ("pytorch_model.bin", b"x")):
        (place / name).write_bytes(data)
        damage(place / name, how)
    check(kinds, "single", place, ("tokenizer", "model"))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_recipe_stops_a_run(kinds, copied, how):
    place = copied("single")
    damage(place / "recipe.yaml", how)
    if how == "missing":
        assert inherit(str(place), []) == ({}, [])
    else:
        with pytest.raises(UserError, match="cannot be read") as error:
            inherit(str(place), [])
        assert "recipe.yaml" in str(error.value)
        assert len(str(error.value)) < 900


# Values

NUMBERS = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
VALUES = [
    *((name, value) for name in NUMBERS for value in ("many", -1, 1.5, [], {}, True, 10**12, 10**60)),
    *((name, 0) for name in ("hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings")),
    *((name, "many") for name in ("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act")),
    ("num_attention_heads", 3),
    *(("id2label", value) for value in (7, "x", [], {"a": "b"})),
    *(("architectures", value) for value in (7, "BertModel", [1, 2], {}, [None])),
    *(("model_type", value) for value in ("unheard", 7, [], None, {})),
    ("num_labels", 10**9),
    ("label2id", 7),
    ("hidden_dropout_prob", 7),
    ("pad_token_id", 40),
    ("pad_token_id", "x"),
    ("dtype", "load"),
    ("quantization_config", 7),
    ("attn_implementation", "somebody/kernel"),
    ("_attn_implementation", "somebody/kernel"),
    ("_attn_implementation", {"": "somebody/kernel"}),
    *(("structure", value) for value in (7, "x", [1], {"heads": 1}, {"heads": [2], "neurons": [16], "full": [0, 1]})),
    *(("structure", {"heads": h, "neurons": n, "full": [2, 16]}) for h, n in (([10**12], [16]), ([2], [-1]), ([], []))),
    ("structure", {"heads": [2], "neurons": [16], "full": [2, 16], "gone": [9]}),
    *(("embedding_factor", value) for value in (-1, 1.5, "x", True, 10**12)),
]


@pytest.mark.parametrize(("name", "value"), VALUES, ids=[f"{name}={str(value)[:40]}" for name, value in VALUES])
def test_values_of_config_json(copied, name, value):
    place = copied("single")
    change(place / "config.json", **{name: value})
    for loader in ("config", "model", "structured"):
        refused(LOADERS[loader], place, "config.json")


#: what reads as a configuration, and is not the one of the weights
OTHERS = [
    ({"num_hidden_layers": 3}, "is missing"),
    ({"num_hidden_layers": 0}, "expected a whole number from 1 to 1,000"),
    ({"vocab_size": 24}, "another shape"),
    ({"intermediate_size": 12}, "another shape"),
    ({"hidden_size": 4}, "another shape"),
    ({"model_type": "roberta"}, ""),
    ({"model_type": "distilbert"}, ""),
    ({"vocab_size": 9_000_000}, "bytes"),  # before memory for so many is asked for
    ({"max_position_embeddings": 9_000_000}, "bytes"),
    ({"structure": {"heads": [1], "neurons": [8], "full": [2, 16]}}, "another shape"),
    ({"embedding_factor": 2}, "another shape"),
    ({"transformers_weights": "../other.safetensors"}, "inside the model directory"),
]


@pytest.mark.parametrize(("values", "why"), OTHERS, ids=[str(values)[:60] for values, _ in OTHERS])
def test_a_configuration_of_other_weights(copied, values, why):
    place = copied("single")
    change(place / "config.json", **values)
    for loader in MODEL:
        refused(LOADERS[loader], place, why, "config.json")


@pytest.mark.parametrize("name", ["Unheard", "pipeline", "AutoConfig", "BertTokenizer", "RobertaModel", "x" * 5000])
def test_an_architecture_that_is_no_model_of_this_type(kinds, copied, name):
    place = copied("single")
    change(place / "config.json", architectures=[name])
    refused(structured.load, place, "config.json")
    assert torch.equal(logits(load_model(TASK, str(place))[0]), logits(structured.load(kinds / "single")))


@pytest.mark.parametrize("names", [None, []])
def test_a_head_that_no_architecture_tells_of_is_not_dropped_unsaid(copied, names):
    place = copied("single")
    change(place / "config.json", architectures=names)
    refused(structured.load, place, "config.json", "architectures")


TOKENS = [
    *(("tokenizer_config.json", "pad_token", value) for value in (7, [1], {"a": "b"}, True, "unheard")),
    *(("tokenizer_config.json", "model_max_length", value) for value in ("x", 0, -1, [], True)),
    *(("tokenizer_config.json", "added_tokens_decoder", value) for value in (7, [], {"a": "b"}, {"1": 7})),
    *(("tokenizer_config.json", "tokenizer_class", value) for value in (7, [1], {"a": "b"})),
    *(("special_tokens_map.json", "pad_token", value) for value in (7, [1], {"a": "b"})),
    *(("tokenizer.json", "model", value) for value in (7, None, [], {}, {"type": "Unheard"})),
    ("tokenizer.json", "model", {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {}}),
    ("tokenizer.json", "model", {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"a": -1}}),
    ("tokenizer.json", "model", {"type": "BPE", "vocab": {"a": 0}, "merges": [["b", "c"]]}),
    ("tokenizer.json", "added_tokens", 7),
    ("tokenizer.json", "added_tokens", [{"id": -1, "content": "x"}]),
    ("tokenizer.json", "normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ("tokenizer.json", "post_processor", {"type": "Unheard"}),
    ("tokenizer.json", "version", 7),
]


@pytest.mark.parametrize(("name", "key", "value"), TOKENS, ids=[f"{n}-{k}={str(v)[:40]}" for n, k, v in TOKENS])
def test_values_of_a_tokenizer(copied, name, key, value):
    place = copied("single")
    if name != "special_tokens_map.json":  # which overrides the others
        (place / "special_tokens_map.json").unlink()
    change(place / name, **{key: value})
    refused(LOADERS["tokenizer"], place, "tokenizer" if name == "tokenizer.json" else name)


# Weights


def header(path: Path, told: object, data: bytes = b"", length: int | None = None) -> None:
    text = json.dumps(told).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS = [
    ({"w": FOUR}, 2**60),
    ({"w": FOUR}, 2**64 - 1),
    ({"w": FOUR}, 3),
    ([], None),
    ({}, None),
    ({"w": 7}, None),
    ({"w": {}}, None),
    ({"__metadata__": 7, "w": FOUR}, None),
    ({"__metadata__": {"format": 7}, "w": FOUR}, None),
    *(({"w": FOUR | {"dtype": dtype}}, None) for dtype in ("F99", 7, None, [], "I32", "F64")),
    *(({"w": FOUR | {"shape": shape}}, None) for shape in ([2], [-1], ["x"], 7, [2**70], [1.0], [True])),
    *(({"w": FOUR | {"data_offsets": at}}, None) for at in ([0, 8], [4, 0], [-4, 0], [0], 7, [0, 2**70], ["0", "4"])),
]


@pytest.mark.parametrize(("told", "length"), HEADERS, ids=[f"{told} {length}"[:90] for told, length in HEADERS])
def test_headers_of_safetensors(copied, told, length):
    place = copied("single")
    header(place / "model.safetensors", told, bytes(4), length)
    for loader in ("model", "structured"):
        refused(LOADERS[loader], place, "model.safetensors")


def test_a_header_is_not_read_into_memory_by_the_length_that_it_says(copied):
    place = copied("single")
    header(place / "model.safetensors", {"w": FOUR}, bytes(4), 2**60)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged \(its header is longer than the file\)"):
        lacks_layers(place)
    for name in ("num_hidden_layers", "config.json"):
        (place / "config.json").write_text('{"num_hidden_layers": "many"}' if name != "config.json" else "[]")
        with pytest.raises(UserError, match=r"config\.json is damaged"):
            lacks_layers(place)


@pytest.mark.parametrize(
    "lost",
    ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.output.dense.bias", "bert.embeddings.", "bert."],
)
def test_an_encoder_that_lacks_weights_is_refused(copied, lost):
    place = copied("single")
    file = place / "model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if not name.startswith(lost)}, file, {"format": "pt"})
    for loader in MODEL:
        refused(LOADERS[loader], place, "model.safetensors")


def test_weights_that_are_integers_are_refused(copied):
    place = copied("single")
    file = place / "model.safetensors"
    weights = load_file(file)
    name = "bert.encoder.layer.0.output.dense.weight"
    save_file(weights | {name: weights[name].to(torch.int8)}, file, {"format": "pt"})
    for loader in MODEL:
        refused(LOADERS[loader], place, "model.safetensors", name, "I8")


def test_an_encoder_without_a_head_or_a_pooler_loads(tmp_path, copied):
    bert = make_bert()
    for pooler in (True, False):
        place = tmp_path / f"pooler {pooler}"
        BertModel(bert.config, add_pooling_layer=pooler).save_pretrained(place)
        model, new = load_model(TASK, str(place))
        head = {"classifier.weight", "classifier.bias"}
        assert set(new) == (head if pooler else head | {"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
        assert isinstance(model, BertForSequenceClassification)
        assert isinstance(structured.load(place), BertModel)
    # but a model whose head went is none
    place = copied("single")
    file = place / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "classifier" not in k}, file, {"format": "pt"})
    refused(structured.load, place, "config.json", "classifier.")


def load_as_a_run_does(place: Path) -> None:
    load_model(TASK, str(place), removed_layers=removed_layers(str(place)))


def test_layers_that_the_recipe_says_are_gone_may_be_missing(copied):
    """SparseML saved it like that: the run that inherits the recipe leaves them out."""
    place = copied("single")
    change(place / "config.json", num_hidden_layers=3)
    for layers, loads in (("[bert.encoder.layer.1, bert.encoder.layer.2]", True), ("['re:.*layer.[12]']", True),
                          ("[bert.encoder.layer.1]", False), ("['re:(']", False)):  # fmt: skip
        (place / "recipe.yaml").write_text(f"modifiers:\n  - !LayerPruningModifier {{layers: {layers}}}\n")
        if loads:
            _, new = load_model(TASK, str(place), removed_layers=removed_layers(str(place)))
            assert {name.split(".")[3] for name in new} == {"1", "2"}
        else:
            refused(load_as_a_run_does, place, "model.safetensors", "is missing")


INDEX = [
    {"weight_map": {}},
    {"weight_map": 7},
    {"weight_map": {"w": 7}},
    {"weight_map": {"w": "../single/model.safetensors"}},
    {"weight_map": {"w": "/etc/passwd"}},
    {"weight_map": {"w": "model-00009-of-00009.safetensors"}},
    {"weight_map": {"w": "config.json"}},
    {"metadata": 7},
    {"metadata": None},
]


@pytest.mark.parametrize("values", INDEX, ids=str)
def test_indexes_of_several_files(copied, values):
    place = copied("sharded")
    change(place / "model.safetensors.index.json", **values)
    for loader in MODEL:
        refused(LOADERS[loader], place, "model" if "00009" in str(values) else "model.safetensors.index.json")


def test_a_file_of_several_that_lacks_a_weight(copied):
    place = copied("sharded")
    file, *_ = sorted(place.glob("model-00002*"))
    name, *_ = weights = load_file(file)
    save_file({key: value for key, value in weights.items() if key != name} | {"x": torch.ones(1)}, file)
    for loader in MODEL:
        refused(LOADERS[loader], place, file.name, name)


class Code:
    """Unpickled it would write a file."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("held", [Code(), [], 5, None, "x", {}, {"w": 5}, {5: torch.ones(1)}, {"w": torch.ones(2000)}])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles(copied, held, zipped):
    place = copied("pickled")
    torch.save({"held": held, "w": torch.ones(2000)} if isinstance(held, Code) else held, place / "pytorch_model.bin",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with (place / "pytorch_model.bin").open("ab") as file:
        file.write(b"" if zipped else bytes(5000))  # as long as the weights should be
    for loader in ("model", "structured"):
        refused(LOADERS[loader], place, "pytorch_model.bin")
    assert not list(Path().rglob("ran"))


def test_code_beside_a_model_is_never_run(copied, kinds):
    place = copied("single")
    (place / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    every = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForSequenceClassification"), "evil.Evil")
    change(place / "config.json", auto_map=every | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    change(place / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    check(kinds, "single", place)
    change(place / "config.json", model_type="unheard")
    for loader in ("config", *MODEL):
        refused(LOADERS[loader], place, "config.json")
    assert not list(Path().rglob("ran"))


# Integers


def settings(**values):
    return lambda told: told["settings"].update(values)


def linear(**values):
    return lambda told: told["modules"]["classifier"].update(values)


def table(**values):
    return lambda told: told["modules"]["bert.embeddings.word_embeddings"].update(values)


NAN, HUGE = float("nan"), 1e300
INTEGERS = [
    *(settings(weight_bits=bits) for bits in (0, 1, 9, 8.0, "8", None, True, 10**60)),
    *(settings(activation_bits=bits) for bits in (0, 9, "8")),
    *(settings(**{name: value}) for name in ("per_channel", "dynamic", "reduce_range") for value in (1, "x", None)),
    settings(active=False),
    lambda told: told["settings"].pop("weight_bits"),
    lambda told: told.pop("settings"),
    lambda told: told.update(settings=7),
    lambda told: told.pop("modules"),
    *(lambda told, value=value: told.update(modules=value) for value in (7, [], {}, {"classifier": 7}, {"x": {}})),
    *(linear(kind=kind) for kind in (7, None, [], "unheard", "embedding")),
    *(
        linear(scale=s)
        for s in (1.0, [], [1.0], [1.0] * 3, [1.0, 0.0], [1.0, -1.0], [1.0, NAN], [1.0, HUGE], [1.0, "x"])
    ),
    *(linear(scale=s) for s in ([[1.0], [1.0]], None, "x", [True, True], [1e-60, 1.0], {"a": 1}, [1.0, 10**400])),
    *(table(scale=s) for s in ([1.0], 0, -1.0, NAN, "x", None)),
    *(linear(inputs=r) for r in (7, [1.0], [1.0, 2.0, 3.0], [2.0, 1.0], [NAN, 1.0], [0.0, HUGE], ["a", "b"], None, {})),
    *(linear(outputs=r) for r in (7, [1.0], [2.0, 1.0])),
    table(inputs=[0.0, 1.0]),
    linear(unheard=1),
    lambda told: told["modules"]["classifier"].pop("scale"),
    lambda told: told["modules"]["classifier"].pop("inputs"),
]


@pytest.mark.parametrize("number", range(len(INTEGERS)))
def test_values_of_quantization_json(kinds, tmp_path, number):
    told = json.loads((kinds / "single/quantization.json").read_text())
    INTEGERS[number](told)
    (tmp_path / "quantization.json").write_text(json.dumps(told))
    model = make_bert()
    before = [type(module) for module in model.modules()]
    refused(lambda place: load_quantization(model, place), tmp_path, "quantization.json")
    assert [type(module) for module in model.modules()] == before


# Recipes

RECIPES = [
    b"modifiers: [!LayerPruningModifier {layers: ['re:(']}]",
    b"modifiers: [!LayerPruningModifier {layers: 7}]",
    b"modifiers: [!QuantizationModifier {start_epoch: 1.0e+400}]",
    b"a: 1.0e+400\nmodifiers: [!EpochRangeModifier {start_epoch: 0, end_epoch: eval(a * a)}]",
    b"modifiers: [!EpochRangeModifier {start_epoch: 0, end_epoch: eval(10 ** 10 ** 10)}]",
    b"modifiers: [!" + b"X" * 100_000 + b" {a: 1}]",
    b"modifiers: [!X {" + b"\n".join(b"k%d: 1," % i for i in range(500)) + b"}]",
    b"\x00\x01",
    b"a: &a [*a]",
    b"!!python/object/apply:os.system ['touch ran']",
    b"modifiers: [!QuantizationModifier {start_epoch: !!python/object/apply:os.system ['touch ran']}]",
]


def why_refused(place: Path) -> str:
    """The error about the recipe of a checkpoint, or ``""``."""
    try:
        read_base(str(place))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", RECIPES, ids=[str(text[:60]) for text in RECIPES])
def test_what_is_no_recipe_stops_a_run(copied, text):
    place = copied("single")
    (place / "recipe.yaml").write_bytes(text)
    message = why_refused(place)
    assert "recipe.yaml" in message or not message
    assert len(message) < 1000
    assert len(message.splitlines()) <= 4
    load_model(TASK, str(place))
    assert not list(Path().rglob("ran"))


# Whatever else


def test_a_directory_that_holds_nothing(tmp_path):
    for loader in ("tokenizer", "config", *MODEL):
        refused(LOADERS[loader], tmp_path, str(tmp_path))
    assert not load_quantization(make_bert(), tmp_path)
    assert inherit(str(tmp_path), []) == ({}, [])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "quantization.json"])
def test_a_file_that_may_not_be_read(copied, name, monkeypatch):
    place, opened = copied("single"), Path.open

    def denied(self, *words, **options):
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *words, **options)

    monkeypatch.setattr(Path, "open", denied)
    role = {"model.safetensors": "weights", "tokenizer.json": "words"}.get(name, name)
    for loader in READ_BY[role]:
        refused(LOADERS[loader], place, f"{name} cannot be read: permission denied")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_is_no_damage(copied, monkeypatch, error):
    def interrupted(*_, **__):
        raise error

    place = copied("single")
    for loader, name in (("tokenizer", "AutoTokenizer"), ("config", "AutoConfig")):
        with monkeypatch.context() as patch:
            patch.setattr(f"transformers.{name}.from_pretrained", interrupted)
            with pytest.raises(type(error)):
                LOADERS[loader](place)


def test_a_panic_of_rust_is_damage(tmp_path):
    panic = type("PanicException", (BaseException,), {})
    with (
        pytest.raises(UserError, match=r"tokenizer\.json and more cannot be loaded: boom\. Copy"),
        hub.explain_loading_errors("tokenizer", str(tmp_path), "tokenizer.json", "more"),
    ):
        raise panic("boom")


def test_what_the_hub_does_not_have_says_so(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with (
        pytest.raises(UserError, match=r"Could not load model some/name: KeyError"),
        hub.explain_loading_errors("model some/name", "some/name"),
    ):
        raise KeyError
