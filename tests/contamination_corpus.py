"""A corpus of problems in which benchmark problems are planted, word for word and paraphrased by rule.

The rest of the corpus is made to be mistaken for benchmark problems: training problems of the same kind, the
same training problems with other numbers, and generated ones. With no files at hand everything is generated:
benchmark and corpus then come from the same templates.

A paraphrase keeps the numbers and changes the words: other names, synonyms, another question, clauses and
sentences in another order, and a new frame around it. How much is left is measured, as the share of the words
that both have.
"""

# ruff: noqa: SIM905 (lists of words)

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from r1rl import problems as generators

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
BENCHMARK_FILES = {
    "gsm8k": "gsm8k_test.jsonl", "math500": "math500.jsonl", "aime24": "aime24.jsonl",
    "aime25": "aime25.jsonl", "amc23": "amc23.jsonl", "minerva": "minerva.jsonl",
    "olympiadbench": "olympiadbench.jsonl", "svamp": "svamp.jsonl",
}  # fmt: skip
OTHER_FILES = (
    "gsm8k_train.jsonl",
    "college_math.jsonl",
    "math_test.jsonl",
    "cmath.jsonl",
    "hmmt_24_25.jsonl",
)
"""The files of innocent problems.

math_test has MATH-500, whose problems are left out here. gaokao2023en is not used: it has AMC 2023.
"""
COPIES = {f"math-test-{number}" for number in (652, 1667, 1751, 2409, 2680, 3604, 4640)}
"""Other rows of math_test that are in one of the benchmarks but for spaces, a figure or the order of two
words.
"""

NAMES = (
    "Amara Bianca Cedric Dalia Emeka Farah Gideon Halima Ivo Jolanta Kwame Leila Mateo Nadia Otto Petra "
    "Quentin Rosa Stefan Tamara Ulrich Vera Wanda Ximena Yusuf Zofia Anselm Birgit Chidi Doreen"
).split()

SYNONYMS = {
    "buys": "purchases", "bought": "purchased", "buy": "purchase", "sells": "vends", "sold": "parted with",
    "gives": "hands over", "gave": "handed over", "gets": "receives", "got": "received", "makes": "produces",
    "made": "produced", "earns": "is paid", "spends": "pays out", "spent": "paid out",
    "costs": "is priced at", "cost": "price", "needs": "requires", "need": "require", "wants": "would like",
    "uses": "employs", "used": "employed", "eats": "consumes", "ate": "consumed", "has": "owns",
    "had": "owned", "have": "own", "takes": "requires", "left": "remaining", "total": "overall amount",
    "altogether": "in all", "each": "every single", "every": "each", "more": "additional",
    "another": "one more", "than": "compared with", "half": "50 percent of", "friends": "companions",
    "children": "kids", "kids": "children", "people": "persons", "students": "pupils", "house": "home",
    "big": "large", "small": "little", "money": "cash", "store": "shop", "shop": "store",
    "week": "seven-day week", "hours": "hrs", "minutes": "min", "day": "single day", "trip": "journey",
    "car": "vehicle", "began": "started", "start": "begin", "ends": "finishes", "find": "determine",
    "compute": "calculate", "determine": "work out", "calculate": "find", "evaluate": "give the value of",
    "let": "suppose that", "suppose": "assume", "such": "so", "given": "provided", "express": "write",
    "prove": "show", "consider": "take", "positive": "strictly positive", "integer": "whole number",
    "integers": "whole numbers", "number": "count", "value": "quantity", "real": "real-valued",
    "sum": "total", "product": "result of multiplying", "difference": "gap", "largest": "greatest",
    "smallest": "least", "greatest": "largest", "least": "smallest", "maximum": "largest possible",
    "minimum": "smallest possible", "exactly": "precisely", "all": "all of the", "distinct": "different",
    "different": "distinct", "satisfy": "fulfil", "satisfies": "fulfils", "satisfying": "fulfilling",
    "where": "in which", "when": "whenever", "if": "in case", "since": "because", "equal": "identical",
    "contains": "holds", "contain": "hold", "has a": "comes with a", "must": "has to",
    "able": "in a position", "many": "numerous", "much": "large a quantity", "then": "afterwards",
    "and then": "before she", "also": "in addition", "only": "just", "now": "at this point",
    "first": "initial", "last": "final", "same": "identical", "average": "mean", "mean": "average",
    "line": "straight line", "points": "points in the plane", "point": "spot", "length": "extent",
    "area": "surface area", "probability": "chance", "random": "chance", "randomly": "by chance",
    "circle": "round curve", "radius": "half of the diameter", "triangle": "three-sided figure",
    "square": "regular quadrilateral", "function": "map", "equation": "relation", "form": "shape",
    "answer": "result", "terms": "parts", "simplest": "most reduced", "dollars": "bucks", "apples": "pears",
    "books": "volumes", "cookies": "biscuits", "candy": "sweets", "bags": "sacks", "box": "crate",
    "boxes": "crates", "flowers": "blossoms", "dog": "puppy", "school": "academy", "teacher": "instructor",
    "mother": "mum", "father": "dad", "brother": "sibling", "sister": "sibling", "walks": "strolls",
    "runs": "jogs", "drives": "travels by car", "reads": "goes through", "writes": "puts down",
    "shows": "displays", "gave away": "donated", "picked": "gathered", "collected": "gathered",
    "planted": "put in the ground", "shared": "divided",
}  # fmt: skip

QUESTIONS = (
    (r"\bhow many\b", "what is the number of"),
    (r"\bhow much\b", "what amount of"),
    (r"\bwhat is\b", "can you tell me"),
    (r"\bfind\b", "your task is to obtain"),
    (r"\bhow long\b", "what length of time"),
    (r"\bhow old\b", "what age"),
)
FRAMES = (
    "{}", "Please work on this exercise. {}", "Here is a question for you: {}",
    "{} Explain how you get there.", "A puzzle from a friend: {}",
    "{} Give your reasoning first and the result at the end.",
)  # fmt: skip
EXACT_FRAMES = (
    "{}", "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "Solve the following problem.\n\n{}", "Question: {}\nAnswer:",
)  # fmt: skip
THINGS = (
    "lemons bricks tulips lanterns violins pillows kettles ropes candles barrels tickets stamps oysters "
    "ladders scarves wheels mirrors pumpkins helmets magnets canoes pencils carpets anchors pancakes "
    "umbrellas statues puzzles saddles whistles"
).split()
PLACES = (
    "harbour museum orchard bakery station lighthouse theatre quarry library stadium vineyard airport "
    "hospital castle greenhouse circus"
).split()
WORKERS = (
    "gardener baker sailor librarian carpenter painter farmer tailor miner pilot nurse blacksmith fisherman "
    "mechanic jeweller"
).split()
OPENINGS = (
    "{name} works as a {who} and keeps # {thing} and # {other} in a {place}.",
    "At the {place} a {who} named {name} buys # {thing} for # dollars each.",
    "A crate in the {place} has # {thing}, and {name} carries # such crates.",
    "Every morning {name} takes # {thing} to the {place}, where a {who} needs # of them.",
    "The {who} of the {place} ordered # {thing}, but only # {other} arrived.",
)
MIDDLES = (
    "During a storm # {thing} are lost and # {other} break.",
    "For each of # visitors {name} makes # {other} more.",
    "After # days a neighbour gives {name} # {thing} as a present.",
    "One {other} costs # cents, and # of them are sold on Saturday.",
    "{name} needs # minutes for a {other} and # hours for the rest.",
    "A second {who} uses # percent of the {thing} within # weeks.",
)
ENDINGS = (
    "How many {thing} are left at the {place}?",
    "How much money does {name} have in the end?",
    "What is the total number of {thing} and {other} now?",
    "How many more {thing} than {other} does the {who} have?",
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z$\\])")
_CAPITALISED = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][a-z]{2,}\b")
_NUMBER = re.compile(r"(?<![\w.\\{^_])\d+(?![\w.}^_])")


@dataclass(slots=True)
class Corpus:
    """The benchmarks, the rows, and which rows are planted."""

    benchmarks: dict[str, list[tuple[str, str]]]
    """The pairs (id, problem) of each benchmark."""
    rows: list[str]
    exact: set[int] = field(default_factory=set)
    paraphrased: set[int] = field(default_factory=set)
    kept_words: list[float] = field(default_factory=list)
    """The share of each paraphrase's words that the benchmark problem has."""


def make_corpus(size: int, planted: int, seed: int, shared: Path | None = SHARED) -> Corpus:
    """Make `size` rows with `planted` exact and as many paraphrased benchmark problems.

    They come from the files of `shared`, or are generated.
    """
    rng = random.Random(seed)
    has_files = shared is not None and shared.is_dir()
    benchmarks = read_benchmarks(shared) if has_files and shared else generated_benchmarks()
    innocent = list(innocent_rows(shared if has_files else None, benchmarks, size - 2 * planted, rng))
    everything = [text for own in benchmarks.values() for _, text in own]
    chosen = rng.sample([text for text in everything if len(text.split()) >= 8], 2 * planted)
    copies = [rng.choice(EXACT_FRAMES).format(text) for text in chosen[:planted]]
    rewritten = [paraphrase(text, rng) for text in chosen[planted:]]
    kinds = ["exact"] * planted + ["paraphrased"] * planted + ["innocent"] * len(innocent)
    rows = copies + rewritten + innocent
    order = list(range(len(rows)))
    rng.shuffle(order)
    corpus = Corpus(benchmarks, [rows[place] for place in order])
    for place, source in enumerate(order):
        if kinds[source] != "innocent":
            (corpus.exact if kinds[source] == "exact" else corpus.paraphrased).add(place)
    corpus.kept_words = [kept_share(old, new) for old, new in zip(chosen[planted:], rewritten, strict=True)]
    return corpus


def read_benchmarks(shared: Path) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [(row["id"], row["problem"]) for row in read(shared / file)]
        for name, file in BENCHMARK_FILES.items()
    }


def read_paraphrases() -> dict[str, str]:
    """Return paraphrases written by hand, by the id of the benchmark problem."""
    return {
        row["id"]: row["text"] for row in read(Path(__file__).parent / "data" / "paraphrased_problems.jsonl")
    }


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def generated_benchmarks() -> dict[str, list[tuple[str, str]]]:
    """Return stories, for machines without the files."""
    rng = random.Random("benchmark")
    return {"stories": [(str(number), story(rng)) for number in range(1500)]}


def story(rng: random.Random) -> str:
    """Return a problem of three or four sentences put together at random; no two are likely to agree."""
    thing, other = rng.sample(THINGS, 2)
    slots = {
        "thing": thing,
        "other": other,
        "name": rng.choice(NAMES),
        "place": rng.choice(PLACES),
        "who": rng.choice(WORKERS),
    }
    sentences = [rng.choice(OPENINGS), *rng.sample(MIDDLES, rng.choice((1, 2))), rng.choice(ENDINGS)]
    return " ".join(
        re.sub("#", lambda _: str(rng.randint(2, 600)), sentence.format(**slots)) for sentence in sentences
    )


def innocent_rows(
    shared: Path | None, benchmarks: dict[str, list[tuple[str, str]]], count: int, rng: random.Random
) -> list[str]:
    """Return rows that are in no benchmark: other data sets, these with other numbers, and generated
    problems.
    """
    taken = {"".join(text.split()) for own in benchmarks.values() for _, text in own}
    files = (
        [row["problem"] for file in OTHER_FILES for row in read(shared / file) if row["id"] not in COPIES]
        if shared
        else []
    )
    rows = [text for text in files if "".join(text.split()) not in taken]
    varied = [text for text in rows if len(_NUMBER.findall(text)) >= 2]
    while shared and len(rows) < count * 0.7:
        rows.append(other_numbers(rng.choice(varied), rng))
    rows += [] if shared else [story(rng) for _ in range(count // 2)]
    for name, share in (("word_problems", 0.6), ("arithmetic", 0.8), ("countdown", 1.0)):
        missing = max(0, round((count - len(rows)) * share))
        rows += (
            [problem.problem for problem in generators.generate(name, "train", 1, count=missing)]
            if missing
            else []
        )
    rng.shuffle(rows)
    return rows[:count]


def other_numbers(text: str, rng: random.Random) -> str:
    """Return the same text with other numbers of about the same size, which is another problem."""
    changed = _NUMBER.sub(
        lambda match: str(max(2, int(int(match[0]) * rng.uniform(0.4, 2.5)) + rng.randint(1, 3))), text
    )
    return rename(changed, rng)


def paraphrase(text: str, rng: random.Random) -> str:
    """Return the same problem in other words."""
    sentences = _SENTENCE.split(rename(text, rng).strip())
    sentences = [reorder_clauses(sentence) if rng.random() < 0.5 else sentence for sentence in sentences]
    if len(sentences) > 2 and rng.random() < 0.5:
        sentences = [sentences[-1], *sentences[:-1]]  # the question first
    elif len(sentences) > 3:
        sentences[0], sentences[1] = sentences[1], sentences[0]
    changed = synonyms(" ".join(sentences), rng)
    for pattern, other in QUESTIONS:
        changed = re.sub(
            pattern,
            lambda match, other=other: other.capitalize() if match[0][0].isupper() else other,
            changed,
            flags=re.I,
        )
    return rng.choice(FRAMES).replace("{}", changed)


def rename(text: str, rng: random.Random) -> str:
    """Give the people other names; words that only look like names are changed too, which makes it harder."""
    found = [name for name in dict.fromkeys(_CAPITALISED.findall(text)) if name.lower() not in SYNONYMS]
    others = rng.sample(NAMES, min(len(found), len(NAMES)))
    for name, other in zip(found, others, strict=False):
        text = re.sub(rf"\b{name}\b", other, text)
    return text


def reorder_clauses(sentence: str) -> str:
    """Turn "If A, B." into "B, if A."; other sentences with one comma change their halves."""
    end = sentence[-1] if sentence[-1:] in ".?!" else ""
    head, comma, tail = sentence.removesuffix(end).partition(", ")
    if not comma or "$" in sentence or len(head.split()) < 3 or len(tail.split()) < 3:
        return sentence
    return f"{tail[0].upper()}{tail[1:]}, {head[0].lower()}{head[1:]}{end}"


def synonyms(text: str, rng: random.Random, share: float = 0.8) -> str:
    """Replace most words that have a synonym by it; formulae stay."""
    parts = re.split(r"(\$[^$]*\$)", text)

    def other(match: re.Match[str]) -> str:
        word = match[0]
        new = SYNONYMS.get(word.lower())
        if new is None or rng.random() > share:
            return word
        return new.capitalize() if word[0].isupper() else new

    return "".join(part if part.startswith("$") else re.sub(r"[A-Za-z]+", other, part) for part in parts)


def kept_share(old: str, new: str) -> float:
    """Return the share of the new text's words that the old one has."""
    words = re.findall(r"[a-z]+", new.lower())
    had = set(re.findall(r"[a-z]+", old.lower()))
    return sum(word in had for word in words) / max(1, len(words))
