"""Generated sentences with named entities, for token classification under ``profile=embedded``.

Most names may belong to a person, a place, an organisation or a work, so the tag of a word follows from other words:
what the name is said to be (*Marlow , the large port ,*), what it is praised for, or which of two it is (*the former is
a port and the latter a poet*). The words around names occur outside of them too (*a new bank*, *with hope*).
"""

from __future__ import annotations

import random
import re
from typing import Any

from sparse_xp.synthetic.split import check_split, pick, split_of

#: the fraction of training sentences in which one entity has the tag of another kind; evaluation sentences have none
NOISE = 0.03
#: the fraction of names that all kinds share
SHARED = 0.7
#: the fraction of names with a second word, which tells their kind
TWO_WORDS = 0.3

NAMES = """
    ashby barrow brandon carlisle chester clifton colby dalton denton easton elton fenwick gresham hadley halton
    kendal langley lincoln linton marlow marston milton morley norton oakham preston raleigh selby stanton sutton
    thornton upton walden weston whitby wilton
""".split()
#: for each kind of entity: names that only it has, words before and after a name, what it can be, its qualities
KINDS: dict[str, dict[str, list[str]]] = {
    "PER": {
        "names": "abigail benedict cecily edmund harriet isabel leopold rosalind".split(),
        "before": "grace hope mark rose will penny".split(),
        "after": "hughes jones smith".split(),
        "roles": "poet doctor pilot teacher painter farmer".split(),
        "qualities": "patience kindness temper smile honesty humour".split(),
    },
    "LOC": {
        "names": "aldria bergamar corvania dunmere eskeland fjordane galway helmsund".split(),
        "before": "new upper port".split(),
        "after": "bay hill bridge".split(),
        "roles": "port village region valley city suburb".split(),
        "qualities": "beaches harbour climate streets gardens views".split(),
    },
    "ORG": {
        "names": "acmetron bluecorp datavox ferrotech ganymetal hydrona inteltra jetsys".split(),
        "before": "royal first united".split(),
        "after": "steel sons motors".split(),
        "roles": "bank brewery railway publisher club college".split(),
        "qualities": "profits loans products shares wages contracts".split(),
    },
    "MISC": {
        "names": "aureliad belphegor candoria dioptra elegantine florimund gondoliad hesperus".split(),
        "before": "grand golden little".split(),
        "after": "prize cup sonata".split(),
        "roles": "musical novel race festival play symphony".split(),
        "qualities": "ending music plot tunes dances scenes".split(),
    },
}
ADJECTIVES = "large new small famous grand little quiet royal busy strange first golden".split()
VERBS = "praised remembered described knew chose missed admired mentioned".split()
ASIDES = ["yesterday", "last spring", "with hope", "in the end", "on the hill", "by the bridge", "at first", "again"]
PLAIN = [
    "the price of steel rose {aside} .",
    "a {adjective} {role} will open {aside} .",
    "the {adjective} {role} left a mark {aside} .",
    "{aside} nobody knew the {role} .",
]
FORMS = [
    "{x} , the {adjective} {role x} , {verb} {y} for the {quality y} {aside} .",
    "{aside} {x} , a {role x} , {verb} {y} , a {adjective} {role y} .",
    "{x} and {y} : the former is a {adjective} {role x} and the latter a {role y} .",
    "nobody {verb} {x} for the {quality x} , but {aside} they {verb} {y} for the {quality y} .",
    "of {x} and {y} {aside} , the first is known as a {role x} , the other for the {quality y} .",
    "the {quality x} of {x} and the {adjective} {quality y} of {y} {aside} .",
]
#: the fraction of sentences without entities
PLAIN_SHARE = 0.08


def entity_rows(split: str, rows: int, seed: int = 0) -> dict[str, list[Any]]:
    """Return ``rows`` rows with the columns ``id``, ``tokens`` and ``ner_tags`` (``O``, ``B-PER``, ``I-PER`` ...).

    ``split``: ``train`` or ``validation``, which share no sentence. Raises ValueError for another.
    """
    check_split(split)
    rng = random.Random(f"entities/{split}/{seed}")
    columns: dict[str, list[Any]] = {"id": [], "tokens": [], "ner_tags": []}
    while len(columns["id"]) < rows:
        sentence = _sentence(rng, NOISE if split == "train" else 0.0)
        tokens, tags = [word for word, _ in sentence], [tag for _, tag in sentence]
        if split_of(" ".join(tokens)) == split:
            columns["id"].append(str(len(columns["id"])))
            columns["tokens"].append(tokens)
            columns["ner_tags"].append(tags)
    return columns


def tagged_words() -> list[str]:
    """Return every word that the sentences are made of."""
    texts = [*NAMES, *ADJECTIVES, *VERBS, *ASIDES, *PLAIN, *FORMS]
    texts += [word for kind in KINDS.values() for group in kind.values() for word in group]
    return [word for text in texts for word in re.sub(r"\{[^}]*\}", " ", text).split() if word.isalpha()]


def _sentence(rng: random.Random, noise: float) -> list[tuple[str, str]]:
    """Return the words of a sentence with their tags. ``noise``: how often one entity has a wrong tag."""
    plain = rng.random() < PLAIN_SHARE
    form = pick(rng, PLAIN if plain else FORMS)
    kinds = {name: pick(rng, list(KINDS)) for name in "xy"}
    if plain:
        return [(word, "O") for word in _fill(rng, form, kinds)]
    wrong = pick(rng, "xy") if rng.random() < noise else None
    sentence: list[tuple[str, str]] = []
    for word in _fill(rng, form, kinds):
        if word not in ("{x}", "{y}"):
            sentence.append((word, "O"))
            continue
        kind = kinds[word[1]]
        tagged = pick(rng, [other for other in KINDS if other != kind]) if word[1] == wrong else kind
        name = _name(rng, kind)
        sentence += [(part, f"{'I' if i else 'B'}-{tagged}") for i, part in enumerate(name)]
    return sentence


def _fill(rng: random.Random, form: str, kinds: dict[str, str]) -> list[str]:
    """Return the words of ``form`` with everything filled in except for its names, ``{x}`` and ``{y}``."""
    groups = {"role": "roles", "quality": "qualities"}
    words: list[str] = []
    for number, part in enumerate(form.replace("{", "}").split("}")):
        slot, _, owner = part.partition(" ")
        if number % 2 == 0:
            words += part.split()
        elif slot in groups:
            words.append(pick(rng, KINDS[kinds[owner or "x"]][groups[slot]]))
        elif slot in ("x", "y"):
            words.append(f"{{{slot}}}")
        else:
            words += pick(rng, {"adjective": ADJECTIVES, "verb": VERBS, "aside": ASIDES}[slot]).split()
    return words


def _name(rng: random.Random, kind: str) -> list[str]:
    """Return a name of one or two words for an entity of that kind."""
    name = pick(rng, NAMES if rng.random() < SHARED else KINDS[kind]["names"])
    if rng.random() >= TWO_WORDS:
        return [name]
    return [pick(rng, KINDS[kind]["before"]), name] if rng.random() < 0.5 else [name, pick(rng, KINDS[kind]["after"])]
