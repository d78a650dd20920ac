"""The words and sentence forms that the generators draw from."""

from __future__ import annotations

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

#: the viewers of a film; most of them like what they see
VIEWERS = "critics viewers people families students tourists children neighbours teachers everybody lovers".split()

LIKED = "loved liked enjoyed praised recommended admired cheered applauded adored".split()

DISLIKED = "hated disliked despised panned booed mocked regretted scorned deplored".split()

#: the fraction of reviews whose viewers like the film
LIKING = 0.7
