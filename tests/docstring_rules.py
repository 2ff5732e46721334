"""The rules that docstrings keep, as far as they can be checked without a dictionary.

CONTRIBUTING.md, "Docstrings", says them for readers; `findings` applies them to a folder of Python files.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_COLUMNS = 110
MAX_WORDS = 40
"""The most words of a sentence of prose; a longer one needs a second reading."""


def _words(text: str) -> frozenset[str]:
    """Return the words of a list that is written as a string, for lines that can be read."""
    return frozenset(text.split())


FRAGMENTS = _words(
    "what of how whether where when those why which who whose whom if none true false otherwise as at by "
    "for from in into on onto with within without to and but or nor so also only not never always then "
    "there here that than because since until while unless after before between beside like such per is "
    "are was were has have does do same more most less least stands gives makes keeps holds finds takes "
    "adds compares evaluates knows forbids raised raises collects gathers writes calls lets puts"
)
"""The first words of a docstring that start a fragment rather than a noun phrase or a sentence."""

OPENINGS = _words("as at after before between by for from if in on since unless until while with without")
"""The members of FRAGMENTS with which a test's docstring, a whole sentence, may begin."""

SENTENCE_FRAGMENTS = _words("of whether those none true false which whose than never not nor and or but")
"""The first words of a later sentence that leave it without a subject, or that need a second reading."""

NOT_A_VERB = _words(
    "a an the this these it its he they their our we you i your all every each any some no one two three "
    "four nothing everything something anything another other others several many few whole half first "
    "last new old next plain random equal shared known empty held cut small large larger longer shorter "
    "full complete right wrong value mean median number text row column token logical "
    "elementwise dynamic unbiased accuracy memory loss logits width size time place student teacher query "
    "neighbouring benchmark gold data problem exact freer once together even "
    "just very"
)
"""The articles, pronouns, numerals, adjectives and nouns with which a function's docstring can't begin."""

NOUN_ENDINGS = re.compile(r"(tion|sion|ment|ness|ity|ance|ence|ing|ed|ly|able|ible|ous|ful)$")
VERBS_WITH_NOUN_ENDINGS = _words(
    "mention position partition condition function question implement increment document supplement "
    "segment balance advance reference sequence silence enhance bring string embed feed seed need speed "
    "shed apply reply multiply comply imply rely supply enable disable assemble proceed succeed exceed"
)

AFTER_A_NOUN = _words("of which who whose is are was were has have had does can may must will than")
"""The second words that show that the first one was a noun ("Prompt of a problem")."""
VERBS_BEFORE_THAT = _words(
    "assert check confirm demand ensure note prove report require say show tell verify"
)


@dataclass(frozen=True, slots=True)
class Docstring:
    """A definition and its docstring; `text` is None if it has none."""

    kind: str
    """One of "module", "class", "function", "property", "attribute" and "claim".

    A method is a function. A claim is a test, whose docstring states what it asserts.
    """
    name: str
    public: bool
    inherited: bool
    """A flag, true if a base class documents the method, so that it needs no docstring of its own."""
    text: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A docstring that breaks a rule, and the sentence that says which."""

    name: str
    public: bool
    problem: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def findings(root: Path, folder: str) -> list[Finding]:
    """Return all broken rules in the Python files under `root / folder` (or in that file).

    Tests and their helpers may go without docstrings, but those that they have keep the rules.
    """
    return [
        Finding(docstring.name, docstring.public, problem)
        for docstring in docstrings(root, folder)
        if docstring.text is not None or not docstring.name.startswith("tests/")
        for problem in problems(docstring)
    ]


def docstrings(root: Path, folder: str) -> Iterator[Docstring]:
    """Yield all definitions of the Python files under `root / folder`, bundled copies left out."""
    place = root / folder
    found = [place] if place.is_file() else sorted(place.rglob("*.py"))
    files = [file for file in found if "_bundled" not in file.parts]
    trees = {file: ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}
    documented = _documented_methods(root)
    for file, tree in trees.items():
        name = str(file.relative_to(root))
        yield Docstring("module", name, True, False, ast.get_docstring(tree))
        yield from _definitions(tree, name, True, documented)


def problems(docstring: Docstring) -> Iterator[str]:
    """Yield one sentence per rule that the docstring breaks."""
    text = docstring.text
    if text is None or not text.strip():
        if docstring.public and not docstring.inherited:
            yield f"a public {docstring.kind} needs a docstring"
        return
    words = text.split()
    first, second = words[0], words[1] if len(words) > 1 else ""
    start = f"it begins with {' '.join(words[:3])!r}"
    if docstring.kind == "function":
        if not is_verb(first, second):
            yield f"{start}; a function's docstring begins with a verb in the imperative"
    elif not re.match(r"[A-Z`]", first):
        yield f"{start}; it must begin with a capital letter or a name in backticks"
    elif first.lower().strip(",.:;") in (FRAGMENTS - OPENINGS if docstring.kind == "claim" else FRAGMENTS):
        yield f"{start}; it must begin with a noun phrase that says what the thing is"
    paragraphs = re.split(r"\n\s*\n", text.strip())
    if not paragraphs[0].rstrip().endswith((".", ":", "?")):
        yield f"its first paragraph must end in a full stop: {paragraphs[0].split()[-3:]}"
    for number, sentence in enumerate(sentences(text)):
        opening, length = sentence.split()[0].strip(",.:;"), len(sentence.split())
        if number and opening.lower() in SENTENCE_FRAGMENTS:
            yield f"a sentence that begins with {opening!r} needs a subject: {sentence[:60]!r}"
        if length > MAX_WORDS:
            yield f"a sentence of {length} words, more than {MAX_WORDS}: {sentence[:60]!r}"


def is_verb(first: str, second: str) -> bool:
    """Return whether a docstring that begins with these two words begins with a verb in the imperative.

    It is a heuristic: one capitalised word, neither an article, a pronoun nor a preposition, without the
    ending of a plural, of the third person or of a noun, and not followed by what follows a noun.
    """
    if not re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)*,?", first):
        return False
    word, following = first.lower().rstrip(","), second.lower().strip(",.:;")
    if word in FRAGMENTS - {"have", "do"} or word in NOT_A_VERB:
        return False
    if word.endswith("s") and not word.endswith("ss"):
        return False
    if NOUN_ENDINGS.search(word) and word not in VERBS_WITH_NOUN_ENDINGS:
        return False
    return following not in AFTER_A_NOUN and (following != "that" or word in VERBS_BEFORE_THAT)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of the paragraphs of prose; tables, lists, equations and code are left out."""
    for paragraph in re.split(r"\n\s*\n", text):
        if re.search(r"\S {2,}\S|^ {4,}\S|^\s*[-*|] |^\s*\d+\. |^\s*>>> |^\s*```", paragraph, re.MULTILINE):
            continue
        joined = " ".join(paragraph.split())
        yield from (part for part in re.split(r'(?<=[.?!])\s+(?=[A-Z`"\[(])', joined) if part)


def _definitions(
    node: ast.AST, path: str, public: bool, documented: dict[str, set[str]], bases: tuple[str, ...] = ()
) -> Iterator[Docstring]:
    body: list[ast.stmt] = getattr(node, "body", [])
    for index, statement in enumerate(body):
        if isinstance(statement, ast.ClassDef):
            name, seen = f"{path}.{statement.name}", public and not statement.name.startswith("_")
            yield Docstring("class", name, seen, False, ast.get_docstring(statement))
            yield from _definitions(statement, name, seen, documented, _base_names(statement))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = " ".join(ast.unparse(decorator) for decorator in statement.decorator_list)
            kind = "property" if "property" in decorators else "function"
            if statement.name.startswith("test_"):
                kind = "claim"
            inherited = any(statement.name in documented.get(base, ()) for base in bases)
            seen = public and not statement.name.startswith("_")
            name = f"{path}.{statement.name}"
            yield Docstring(
                kind, name, seen, inherited or ".setter" in decorators, ast.get_docstring(statement)
            )
            yield from _definitions(statement, name, False, documented)
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _definitions(statement, path, public, documented, bases)
        elif index and _is_text(statement) and isinstance(body[index - 1], ast.Assign | ast.AnnAssign):
            target = _target(body[index - 1])
            yield Docstring(
                "attribute",
                f"{path}.{target}",
                public and not target.startswith("_"),
                False,
                _text(statement),
            )


def _documented_methods(root: Path) -> dict[str, set[str]]:
    """Return the documented methods of each class of r1rl, its bases' included, by the class's name.

    torch's Module and Function document `forward` and `backward`.
    """
    methods: dict[str, set[str]] = {"Module": {"forward"}, "Function": {"forward", "backward"}}
    bases: dict[str, tuple[str, ...]] = {}
    for file in (root / "r1rl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
            if isinstance(node, ast.ClassDef):
                functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
                methods[node.name] = {item.name for item in functions if ast.get_docstring(item)}
                bases[node.name] = _base_names(node)
    for _ in range(5):
        for name, above in bases.items():
            methods[name] |= {method for base in above for method in methods.get(base, ())}
    return methods


def _base_names(node: ast.ClassDef) -> tuple[str, ...]:
    return tuple(ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _text(statement: ast.stmt) -> str:
    return ast.literal_eval(statement.value)  # type: ignore[attr-defined]


def _target(statement: ast.stmt) -> str:
    return ast.unparse(statement.targets[0] if isinstance(statement, ast.Assign) else statement.target)  # type: ignore[attr-defined]
