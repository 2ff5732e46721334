"""Docstrings begin with a verb or with a noun phrase, in whole sentences that need no second reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docstring_rules import Docstring, findings, is_verb, problems

ROOT = Path(__file__).resolve().parents[1]
ROOMS = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *(ROOT / "r1rl").iterdir(),
        *(ROOT / top for top in ("rewards", "scripts", "examples", "tests")),
    )
    if (path.is_dir() and any(path.rglob("*.py")) and path.name not in ("_bundled", "__pycache__"))
    or path.suffix == ".py"
)


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_keep_the_rules(room):
    assert not [str(finding) for finding in findings(ROOT, room)]


def broken(kind, text):
    """Return the rules that a public definition's docstring breaks."""
    return list(problems(Docstring(kind, "name", True, False, text)))


@pytest.mark.parametrize(
    "text",
    [
        "Return the advantages [P, G] of the rewards.",
        "Pack sequences into micro-batches:",
        "Check that every row has a problem.",
        "Process a row. Raise `UserError` if it has no problem.",
        "Bring the weights up to date.",
        "See `RolloutEngine.generate`.",
    ],
)
def test_a_function_begins_with_a_verb(text):
    assert not broken("function", text)


@pytest.mark.parametrize(
    "text",
    [
        "The advantages of the rewards.",
        "Advantages of the rewards.",
        "What a step costs.",
        "Whether the answer is right.",
        "True where a step costs the more, the more columns it is told to read.",
        "Of the process that makes most.",
        "Prompt of a problem.",
        "Text that a model wrote.",
        "Attention over packed tokens.",
        "Values of the recipe that contradict each other.",
        "`prompt` without its end.",
        "returns the loss.",
        "Returns the loss.",
    ],
)
def test_a_function_does_not_begin_otherwise(text):
    (problem,) = broken("function", text)
    assert "begins with a verb in the imperative" in problem


@pytest.mark.parametrize("kind", ["module", "class", "property", "attribute"])
def test_other_definitions_begin_with_a_noun_phrase(kind):
    assert not broken(kind, "The policy, on one device.")
    assert not broken(kind, "`r1rl grpo`: reinforcement learning from rewards.")
    assert not broken(kind, "Tokens of a completion, the EOS token included.")
    (problem,) = broken(kind, "Of the positions of all packed passes, if there are fewer of them for it.")
    assert problem.startswith("it begins with 'Of the positions'; it must begin with a noun phrase")
    (problem,) = broken(kind, "[B, T], the attention mask.")
    assert (
        problem == "it begins with '[B, T], the'; it must begin with a capital letter or a name in backticks"
    )


def test_only_public_definitions_that_no_base_documents_need_a_docstring():
    assert broken("function", None) == ["a public function needs a docstring"]
    assert not list(problems(Docstring("function", "name", False, False, None)))
    assert not list(problems(Docstring("function", "name", True, True, None)))


def test_sentences_end_have_a_subject_and_are_short():
    assert broken("class", "The policy") == ["its first paragraph must end in a full stop: ['The', 'policy']"]
    (problem,) = broken("class", "The policy. None if there is no reference.")
    assert problem == "a sentence that begins with 'None' needs a subject: 'None if there is no reference.'"
    (problem,) = broken("class", f"The policy {'and ' * 39}more.")
    assert problem.startswith("a sentence of 42 words, more than 40")


def test_tables_lists_and_code_are_no_sentences():
    assert not broken("module", "The kinds:\n\n- of one\n- of two\n\n    none = of * two\n\nname  of what\n")


def test_a_verb_may_look_like_a_noun():
    assert is_verb("Process", "the") and is_verb("Mention", "a") and is_verb("Feed", "tokens")
    assert not is_verb("Mention", "of") and not is_verb("Feeds", "tokens") and not is_verb("Policy", "is")
