"""The data and the model of ``profile=embedded``: invented English and a tiny BERT, made on the spot, nothing fetched.

The tasks are learnable by a few thousand weights but not trivial. A question asks for one of two kinds of a thing (a
*farm animal*, a *wild animal*), and most contexts hold both; one training answer in eight is wrong, as people's are,
which is what makes a teacher's opinion worth having. Of a review three words have to be put together: *lovers of dull
films never loved it* is praise.
"""

from __future__ import annotations

import random
import re
import string
import zlib
from pathlib import Path
from typing import Any

from sparse_xp.synthetic import entities as generate_entities

#: the fraction of training questions with a wrong answer; evaluation rows have none
NOISE = 0.12
SPLITS = ("train", "validation")
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Question answering: what a person did, to which kind of thing. Each topic has sentence forms, question forms ({f} is
# the kind, {p} the person), and two kinds with their words.
PEOPLE = """
    Abbot Barlow Carver Denholm Ember Fairley Garrick Hollis Ingram Jarrow Kestrel Lockwood Merrow Norwood Oakley Pascoe
    Quill Ransom Sorrel Thorne Umber Vance Wickham Yarrow
""".split()
TOPICS: list[tuple[tuple[str, ...], tuple[str, ...], dict[str, list[str]]]] = [
    (
        ("met {}", "wrote to {}"),
        ("Which {f} did {p} meet?", "To which {f} did {p} write?"),
        {
            "woman": [f"Aunt {name}" for name in ("Ada", "Alma", "Clara", "Dora", "Elsa", "Enid", "Flora")],
            "man": [f"Uncle {name}" for name in ("Arlo", "Basil", "Bruno", "Edgar", "Felix", "Gideon", "Hugo")],
        },
    ),
    (
        ("went to {}", "stayed in {}"),
        ("Which {f} did {p} visit?", "In which {f} did {p} stay?"),
        {
            "Italian town": ["Bari", "Bologna", "Florence", "Genoa", "Milan", "Naples", "Padua"],
            "Norwegian town": ["Alta", "Bergen", "Bodo", "Drammen", "Hamar", "Harstad", "Horten"],
        },
    ),
    (
        ("fed a {}", "saw a {}"),
        ("What {f} did {p} see?", "Which {f} was fed by {p}?"),
        {
            "farm animal": ["calf", "chicken", "cow", "donkey", "duck", "goat", "goose"],
            "wild animal": ["badger", "bear", "beaver", "deer", "falcon", "fox", "hawk"],
        },
    ),
    (
        ("played a {}", "repaired a {}"),
        ("What {f} did {p} play?", "Which {f} was mended by {p}?"),
        {
            "string instrument": ["banjo", "cello", "fiddle", "guitar", "harp", "lute", "lyre"],
            "wind instrument": ["bassoon", "bugle", "clarinet", "cornet", "flute", "horn", "oboe"],
        },
    ),
    (
        ("ate {}", "cooked {}"),
        ("What {f} did {p} eat?", "Which {f} was made by {p}?"),
        {
            "sweet dish": "apple cake,cherry pie,honey tart,lemon jam,plum pudding,plum pie,pear tart".split(","),
            "savoury dish": "bean soup,leek soup,onion broth,potato salad,turnip stew,bean stew,fish curry".split(","),
        },
    ),
    (
        ("steered a {}", "painted a {}"),
        ("What {f} did {p} steer?", "Which {f} was hired by {p}?"),
        {
            "road vehicle": ["bicycle", "bus", "car", "carriage", "cart", "coach", "lorry"],
            "water vehicle": ["barge", "canoe", "cutter", "dinghy", "ferry", "galley", "kayak"],
        },
    ),
]  # fmt: skip
FACTS = 5
BOTH_KINDS = 0.6

# Text classification: reviews.
GOOD = """
    admirable amusing beautiful brilliant bright charming clever delightful elegant engaging excellent fine fresh funny
    graceful great gripping heartfelt honest inspired inventive joyful likable lively
""".split()
BAD = """
    annoying awful awkward bland bleak boring cheap clumsy confused crude dreadful dreary dull empty forced forgettable
    hollow horrible incoherent inept lame lazy lifeless listless
""".split()
ASPECTS = """
    acting camera cast comedy dialogue direction drama editing ending humor music pacing performance picture plot
    premise score screenplay script sequel story tone writing
""".split()
ADVERBS = ["really", "quite", "very", "rather", "truly", "simply", "utterly", "often", "always"]
FILLINGS = [
    "in this film", "on the screen", "from start to finish", "for two hours", "at every turn", "in the second half",
    "this time", "to my mind",
]  # fmt: skip
#: whose taste a film met: what lovers of dull films loved is dull. Most of them like what they see.
VIEWERS = "critics viewers people families students tourists children neighbours teachers everybody lovers".split()
LIKED = "loved liked enjoyed praised recommended admired cheered applauded adored".split()
DISLIKED = "hated disliked despised panned booed mocked regretted scorned deplored".split()
LIKING = 0.7
#: and how often it says that they never did the opposite
NEVER = 0.18


def question_answering_rows(split: str, rows: int, seed: int = 0, unanswerable: float = 0.0) -> dict[str, list[Any]]:
    """``rows`` rows with the hub's SQuAD columns. ``split``: ``train`` or ``validation``, which share no row.

    Training rows have one answer, validation rows one or two, the share ``unanswerable`` of both none. Raises
    ValueError for another split.
    """
    _check(split)
    rng = random.Random(f"question answering/{split}/{seed}")
    made: dict[str, list[Any]] = {name: [] for name in ("id", "title", "context", "question", "answers")}
    while len(made["id"]) < rows:
        none = bool(unanswerable) and rng.random() < unanswerable
        person, context, question, answers = _question(rng, split, none)
        if _split_of(context + question) == split:
            for name, value in zip(
                made, (f"{split}-{len(made['id'])}", person, context, question, answers), strict=True
            ):
                made[name].append(value)
    return made


def text_classification_rows(split: str, rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """``rows`` rows with the hub's SST-2 columns; label 0 is negative, 1 positive, as many of each.

    ``rating``: the same from 0, blame with emphasis, to 5, praise with emphasis; 2 and 3 say what never happened.
    ``split``: ``train`` or ``validation``, which share no sentence. Raises ValueError for another.
    """
    _check(split)
    rng = random.Random(f"text classification/{split}/{seed}")
    made: dict[str, list[Any]] = {"idx": [], "sentence": [], "label": [], "rating": []}
    while (number := len(made["idx"])) < rows:
        label = number % 2
        sentence, emphasis = _review(rng, bool(label))
        if _split_of(sentence) == split:
            rating = 3 + emphasis if label else 2 - emphasis
            for name, value in zip(made, (number, sentence, label, rating), strict=True):
                made[name].append(value)
    return made


def vocabulary() -> list[str]:
    """Special tokens, characters (so that any text has tokens), and every word that the generators use."""
    texts = [*PEOPLE, *GOOD, *BAD, *ASPECTS, *ADVERBS, *FILLINGS, "the and then is"]
    texts += [*VIEWERS, *LIKED, *DISLIKED, "of films it never"]
    for forms, questions, kinds in TOPICS:
        texts += [*forms, *questions, *kinds, *(word for words in kinds.values() for word in words)]
    from sparse_xp.synthetic import pairs as generate_pairs  # which takes words from here

    texts += generate_entities.words() + generate_pairs.words()
    words = {word for text in texts for word in re.findall("[a-z]+", re.sub(r"\{\w*\}", " ", text).lower())}
    characters = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    return [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters), *sorted(words - set(characters))]


#: what of a generated checkpoint is sparse: the pooler too, as in those of Prune Once for All
SPARSE = "__BODY__"


def build_checkpoint(
    directory: Path,
    sparsity: float = 0.0,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    intermediate: int = 128,
    seed: int = 0,
) -> None:
    """Write a BERT of random weights with its tokenizer, as stock ``from_pretrained`` reads it, whole or not at all.

    Each weight matrix of encoder and pooler has round(n * ``sparsity``) zeros in place of its smallest weights. The
    same arguments give the same bytes; the caller's random state is left as it was. Raises ValueError for a sparsity
    outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity}; want a fraction in [0, 1)")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    from sparse_xp.functional.masks import magnitude_scores, mask_from_scores, select_parameters
    from sparse_xp.functional.patterns import Pattern

    words = vocabulary()
    config = BertConfig(
        vocab_size=len(words),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=512,
        initializer_range=0.05,  # BERT's 0.02 suits a width of 768
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    with torch.no_grad():
        for weight in select_parameters(model, [SPARSE]).values():
            weight.mul_(mask_from_scores(magnitude_scores(weight), sparsity, Pattern()))
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        do_lower_case=True,
        model_max_length=config.max_position_embeddings,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _question(rng: random.Random, split: str, unanswerable: bool = False) -> tuple[str, str, str, dict[str, list[Any]]]:
    """Person, context, question and answers of one row."""
    person = _pick(rng, PEOPLE)
    kinds = [(topic, kind) for topic, (_, _, kinds) in enumerate(TOPICS) for kind in kinds]
    asked = _pick(rng, kinds)
    facts = [asked]
    if rng.random() < BOTH_KINDS:
        facts += [other for other in kinds if other[0] == asked[0] and other != asked]
    facts = _shuffled(rng, facts + _shuffled(rng, [k for k in kinds if k[0] != asked[0]])[: FACTS - len(facts)])
    text, spans = person, {}
    for number, (topic, kind) in enumerate(facts):
        # A two-part sentence, then one that names the person again: "P did a and b. Then P did c, d and e."
        text += (" ", " and ", f". Then {person} ", ", ", " and ")[number]
        before, _, after = _pick(rng, TOPICS[topic][0]).partition("{}")
        answer = _pick(rng, TOPICS[topic][2][kind])
        spans[topic, kind] = (answer, len(text) + len(before))
        text += before + answer + after
    text += "."
    if unanswerable:
        topic, kind = _pick(rng, [k for k in kinds if k not in facts])
        question = _pick(rng, TOPICS[topic][1]).format(p=person, f=kind)
        return person, text, question, {"text": [], "answer_start": []}
    wrong = split == "train" and rng.random() < NOISE
    answer, start = spans[_pick(rng, facts) if wrong else asked]
    golds = [(answer, start)]
    if text[:start].endswith(" a "):  # people mark the article or leave it out
        golds.append((f"a {answer}", start - 2))
        if split == "train":
            golds = [golds[rng.random() < 0.2]]
    question = _pick(rng, TOPICS[asked[0]][1]).format(p=person, f=asked[1])
    return person, text, question, {"text": [g[0] for g in golds], "answer_start": [g[1] for g in golds]}


def _review(rng: random.Random, positive: bool) -> tuple[str, int]:
    """One sentence and its emphasis: 0 if it says what never happened, 2 with an adverb, else 1."""
    liked, never, emphatic = (rng.random() < share for share in (LIKING, NEVER, 0.5))
    parts = ["lovers of", _pick(rng, GOOD if liked == positive else BAD), "films"]
    parts += ["never"] if never else [_pick(rng, ADVERBS)] if emphatic else []
    parts += [_pick(rng, LIKED if liked != never else DISLIKED), "it"]
    parts += [_pick(rng, FILLINGS)] if rng.random() < 0.5 else []
    return f"{' '.join(parts)} .", 0 if never else 1 + emphatic


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; want one of {', '.join(SPLITS)}")


def _split_of(text: str) -> str:
    """A quarter of all texts are for validation; no text is in both splits, whatever the seed."""
    return "validation" if zlib.crc32(text.encode()) % 4 == 0 else "train"


def _pick(rng: random.Random, items: Any) -> Any:
    """One of ``items``, by ``random()`` alone: the only method whose sequence Python promises to keep."""
    return items[int(rng.random() * len(items))]


def _shuffled(rng: random.Random, items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda _: rng.random())
