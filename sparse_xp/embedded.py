"""The data and model of ``profile=embedded``: invented English and a tiny BERT, made on the spot, nothing fetched."""

from __future__ import annotations

import random
import re
import string
import zlib

P_SAME = 0.25
QA_NOISE = 0.12
CLS_NOISE = 0.12
FACTS = 5
OTHERS = 2
MIX = (0.3, 0.5)  # simple, negated, rest contrast
ZIPF = 0.0

FIRST_NAMES = [
    "Ada",
    "Alma",
    "Arlo",
    "Basil",
    "Bruno",
    "Clara",
    "Corin",
    "Dora",
    "Edgar",
    "Elsa",
    "Enid",
    "Felix",
    "Flora",
    "Gideon",
    "Greta",
    "Hugo",
    "Ida",
    "Ines",
    "Ivor",
    "Jonas",
    "Juno",
    "Karla",
    "Leona",
    "Linus",
    "Marla",
    "Milo",
    "Nadia",
    "Nils",
    "Odette",
    "Orson",
    "Petra",
    "Quentin",
    "Rosa",
    "Rufus",
    "Selma",
    "Silas",
    "Thora",
    "Tobias",
    "Una",
    "Viktor",
]
LAST_NAMES = [
    "Abbot",
    "Barlow",
    "Carver",
    "Denholm",
    "Ember",
    "Fairley",
    "Garrick",
    "Hollis",
    "Ingram",
    "Jarrow",
    "Kestrel",
    "Lockwood",
    "Merrow",
    "Norwood",
    "Oakley",
    "Pascoe",
    "Quill",
    "Ransom",
    "Sorrel",
    "Thorne",
    "Umber",
    "Vance",
    "Wickham",
    "Yarrow",
]
TOWNS = [
    "Aldport",
    "Bramley",
    "Castor",
    "Dunmere",
    "Eastwick",
    "Farholt",
    "Glenrock",
    "Harwell",
    "Ironbridge",
    "Kelso",
    "Larkfield",
    "Moorgate",
    "Newhaven",
    "Ostwold",
    "Pinewood",
    "Ravensea",
    "Saltburn",
    "Tarnbrook",
    "Ulverton",
    "Westmarch",
    "Yarmouth",
    "Zennor",
]
YEARS = [str(year) for year in range(1801, 1901, 4)]
COLOURS = [
    "amber",
    "black",
    "blue",
    "brown",
    "crimson",
    "golden",
    "green",
    "grey",
    "ivory",
    "orange",
    "purple",
    "red",
    "silver",
    "violet",
    "white",
    "yellow",
]
OBJECTS = [
    "barn",
    "bicycle",
    "boat",
    "bridge",
    "cabin",
    "carriage",
    "clock",
    "cottage",
    "farm",
    "lantern",
    "mill",
    "painting",
    "piano",
    "ship",
    "tower",
    "wagon",
]
JOBS = [
    "baker",
    "barber",
    "blacksmith",
    "carpenter",
    "chemist",
    "cook",
    "doctor",
    "farmer",
    "fisherman",
    "gardener",
    "judge",
    "lawyer",
    "miner",
    "painter",
    "pilot",
    "poet",
    "printer",
    "sailor",
    "shepherd",
    "soldier",
    "surgeon",
    "tailor",
    "teacher",
    "weaver",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]

# sentence forms of the context, question forms, kind of answer
RELATIONS = {
    "birthplace": (
        ("{p} was born in {a}.", "{p} came into the world at {a}."),
        ("Where was {p} born?", "What is the birthplace of {p}?"),
        "town",
    ),
    "workplace": (
        ("{p} worked in {a}.", "{p} found employment at {a}."),
        ("Where did {p} work?", "In which town was {p} employed?"),
        "town",
    ),
    "deathplace": (
        ("{p} died in {a}.", "{p} passed away at {a}."),
        ("Where did {p} die?", "Where did the life of {p} end?"),
        "town",
    ),
    "wedding": (
        ("{p} married in {a}.", "The wedding of {p} was in {a}."),
        ("When did {p} marry?", "In what year was the wedding of {p}?"),
        "date",
    ),
    "school": (
        ("{p} left school in {a}.", "{p} finished lessons in {a}."),
        ("When did {p} leave school?", "In what year did {p} finish lessons?"),
        "date",
    ),
    "bought": (
        ("{p} bought {a}.", "{p} paid for {a}."),
        ("What did {p} buy?", "What did {p} pay for?"),
        "thing",
    ),
    "sold": (("{p} sold {a}.", "{p} gave up {a}."), ("What did {p} sell?", "What did {p} give up?"), "thing"),
    "built": (
        ("{p} built {a}.", "{p} made {a} by hand."),
        ("What did {p} build?", "What did {p} make by hand?"),
        "thing",
    ),
    "trade": (
        ("{p} became a {a}.", "{p} earned a living as a {a}."),
        ("What did {p} become?", "How did {p} earn a living?"),
        "job",
    ),
    "dream": (
        ("{p} hoped to be a {a}.", "{p} dreamed of life as a {a}."),
        ("What did {p} hope to be?", "What did {p} dream of?"),
        "job",
    ),
    "mentor": (
        ("{p} learned from {a}.", "{p} was taught by {a}."),
        ("Who did {p} learn from?", "Who taught {p}?"),
        "person",
    ),
    "rival": (
        ("{p} argued with {a}.", "{p} was a rival of {a}."),
        ("Who did {p} argue with?", "Who was the rival of {p}?"),
        "person",
    ),
}


def pick(rng, words):
    return words[int(rng.random() * len(words))]


def answer(rng, kind):
    if kind == "town":
        return pick(rng, TOWNS)
    if kind == "date":
        y = pick(rng, YEARS)
        return y if rng.random() < 0.5 else pick(rng, MONTHS) + " " + y
    if kind == "thing":
        return f"the {pick(rng, COLOURS)} {pick(rng, OBJECTS)}"
    if kind == "job":
        return pick(rng, JOBS)
    return f"{pick(rng, FIRST_NAMES)} {pick(rng, LAST_NAMES)}"


def sample(rng, items, n):
    items = list(items)
    out = []
    for _ in range(n):
        out.append(items.pop(int(rng.random() * len(items))))
    return out


def in_split(key, split):
    return (zlib.crc32(key.encode()) % 4 == 0) == (split == "validation")


def question_answering_rows(split, rows, seed=0):
    rng = random.Random(f"qa/{split}/{seed}")
    out = {k: [] for k in ("id", "title", "context", "question", "answers")}
    while len(out["id"]) < rows:
        row = qa_row(rng, split)
        if not in_split(row[1] + row[2], split):
            continue
        for k, v in zip(("id", "title", "context", "question", "answers"), (f"{split}-{len(out['id'])}", *row)):
            out[k].append(v)
    return out


def qa_row(rng, split):
    hero, other = (f"{a} {b}" for a, b in zip(sample(rng, FIRST_NAMES, 2), sample(rng, LAST_NAMES, 2)))
    rels = sample(rng, RELATIONS, FACTS + OTHERS)
    facts = [(hero, r) for r in rels[:FACTS]]
    asked = facts[int(rng.random() * FACTS)]
    if rng.random() < P_SAME:
        facts += [(other, asked[1])] + [(other, r) for r in rels[FACTS : FACTS + OTHERS - 1]]
    else:
        facts += [(other, r) for r in rels[FACTS:]]
    facts = sample(rng, facts, len(facts))
    wrong = split == "train" and rng.random() < QA_NOISE
    text, spans = "", {}
    for who, rel in facts:
        forms, _, kind = RELATIONS[rel]
        ans = answer(rng, kind)
        form = pick(rng, forms)
        sent = form.replace("{p}", who)
        start = len(text) + sent.index("{a}")
        spans[who, rel] = (ans, start)
        text += sent.replace("{a}", ans) + " "
    question = pick(rng, RELATIONS[asked[1]][1]).replace("{p}", asked[0])
    target = spans[pick(rng, facts)] if wrong else spans[asked]
    golds = [target]
    if target[0].startswith("the "):
        short = (target[0][4:], target[1] + 4)
        golds = [target, short]
        if split == "train":
            golds = [pick(rng, golds)]
    return hero, text[:-1], question, {"text": [g[0] for g in golds], "answer_start": [g[1] for g in golds]}


GOOD = [
    "admirable",
    "amusing",
    "beautiful",
    "brilliant",
    "bright",
    "charming",
    "clever",
    "delightful",
    "elegant",
    "engaging",
    "excellent",
    "fine",
    "fresh",
    "funny",
    "graceful",
    "great",
    "gripping",
    "heartfelt",
    "honest",
    "inspired",
    "inventive",
    "joyful",
    "likable",
    "lively",
    "lovely",
    "masterful",
    "memorable",
    "moving",
    "perfect",
    "pleasant",
    "poignant",
    "powerful",
    "rich",
    "satisfying",
    "sharp",
    "splendid",
    "superb",
    "tender",
    "thrilling",
    "touching",
    "vivid",
    "warm",
    "wise",
    "witty",
    "wonderful",
]
BAD = [
    "annoying",
    "awful",
    "awkward",
    "bland",
    "bleak",
    "boring",
    "cheap",
    "clumsy",
    "confused",
    "crude",
    "dreadful",
    "dreary",
    "dull",
    "empty",
    "forced",
    "forgettable",
    "hollow",
    "horrible",
    "incoherent",
    "inept",
    "lame",
    "lazy",
    "lifeless",
    "listless",
    "messy",
    "muddled",
    "painful",
    "pale",
    "pointless",
    "poor",
    "pretentious",
    "shallow",
    "silly",
    "sloppy",
    "slow",
    "sluggish",
    "sour",
    "stale",
    "stiff",
    "terrible",
    "thin",
    "tired",
    "tiresome",
    "ugly",
    "weak",
]
ASPECTS = [
    "acting",
    "camera",
    "cast",
    "comedy",
    "dialogue",
    "direction",
    "drama",
    "editing",
    "ending",
    "humor",
    "music",
    "pacing",
    "performance",
    "picture",
    "plot",
    "premise",
    "score",
    "screenplay",
    "script",
    "sequel",
    "story",
    "tone",
    "writing",
]
ADVERBS = ["really", "quite", "very", "rather", "truly", "simply", "utterly", "often", "always"]
NOTS = ["is not", "is never", "is hardly", "is anything but", "fails to be"]
IS = ["is", "seems", "feels", "is always", "turns out", "proves to be"]
FILL = [
    "in this film",
    "on the screen",
    "from start to finish",
    "for two hours",
    "at every turn",
    "in the second half",
    "this time",
    "to my mind",
]


def zpick(rng, words):
    return words[int(rng.random() ** (1 + ZIPF) * len(words))]


def clause(rng, positive, negated):
    words = GOOD if positive != negated else BAD
    verb = pick(rng, NOTS if negated else IS)
    adv = pick(rng, ADVERBS) + " " if rng.random() < 0.4 else ""
    s = f"the {pick(rng, ASPECTS)} {verb} {adv}{zpick(rng, words)}"
    if rng.random() < 0.3:
        s += f" and {zpick(rng, words)}"
    if rng.random() < 0.4:
        s += " " + pick(rng, FILL)
    return s


P_NEG = 0.35
CONTRAST = [
    "although {o} , {m}",
    "{m} , although {o}",
    "{o} , but {m}",
    "{o} ; still , {m}",
    "despite all the praise , {m}",
]


def cls_sentence(rng, positive):
    main = clause(rng, positive, rng.random() < P_NEG)
    u = rng.random()
    if u < MIX[0]:
        return main + " ."
    if u < MIX[1]:
        return main + " , and " + clause(rng, positive, rng.random() < P_NEG) + " ."
    o = clause(rng, not positive, rng.random() < P_NEG)
    return pick(rng, CONTRAST[:4]).format(o=o, m=main) + " ."


def text_classification_rows(split, rows, seed=0):
    rng = random.Random(f"cls/{split}/{seed}")
    out = {"idx": [], "sentence": [], "label": []}
    while len(out["idx"]) < rows:
        i = len(out["idx"])
        s = cls_sentence(rng, i % 2 == 1)
        if not in_split(s, split):
            continue
        out["idx"].append(i)
        out["sentence"].append(s)
        flip = split == "train" and rng.random() < CLS_NOISE
        out["label"].append((i % 2) ^ flip)
    return out


def vocabulary():
    words = set()
    tables = [
        FIRST_NAMES,
        LAST_NAMES,
        TOWNS,
        YEARS,
        COLOURS,
        OBJECTS,
        JOBS,
        MONTHS,
        GOOD,
        BAD,
        ASPECTS,
        ADVERBS,
        NOTS,
        IS,
        FILL,
        CONTRAST,
        [f for a, b, _ in RELATIONS.values() for f in a + b],
        ["the and ."],
    ]
    for t in tables:
        for phrase in t:
            words.update(re.findall(r"[a-z0-9]+", phrase.lower()))
    chars = list(string.punctuation + string.digits + string.ascii_lowercase)
    return (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + chars + ["##" + c for c in chars] + sorted(words - set(chars))
    )


def build_checkpoint(directory, sparsity=0.0, layers=2, hidden=96, heads=4, intermediate=96, seed=0):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from sparse_xp.files import whole_directory
    from sparse_xp.patterns import parse_mask_type
    from sparse_xp.sparsity import magnitude_scores, mask_from_scores, select_parameters
    words = vocabulary()
    with whole_directory(directory) as draft, torch.random.fork_rng():
        torch.manual_seed(seed)
        (draft / "vocab.txt").write_text("\n".join(words) + "\n")
        model = BertModel(BertConfig(vocab_size=len(words), num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate, max_position_embeddings=512, initializer_range=0.05))
        with torch.no_grad():
            for weight in select_parameters(model, ["__ENCODER__"]).values():
                weight.mul_(mask_from_scores(magnitude_scores(weight), sparsity, parse_mask_type("unstructured")))
        model.save_pretrained(draft)
        BertTokenizerFast(vocab=str(draft / "vocab.txt"), do_lower_case=True, model_max_length=512).save_pretrained(draft)
