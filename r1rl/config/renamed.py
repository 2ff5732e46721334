"""Keys of earlier versions: those that have another name now, and those that are gone.

The old name of a key goes on working for one version, with a sentence that says the new one. A key that is
gone, because only one value was ever accepted or because it had no effect, may still be written for as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from r1rl.config.issues import Issue, Issues
from r1rl.config.nodes import Node, plain

T = TypeVar("T")

UNTIL = "0.2"
"""The version that knows the old keys no more."""

RENAMED: dict[str, dict[str, str]] = {
    "VLLMConfig": {"gpu_memory_share": "gpu_memory_utilization"},
    "BenchRecipe": {"trl_vllm_memory_share": "trl_vllm_gpu_memory_utilization"},
}
"""The new name of each renamed key, by the class of the section that has it."""

ANY = object()
"""A stand-in for every value of a key that had no effect."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A key that is gone: why, in half a sentence, and the only value that may still be written."""

    reason: str
    value: Any = ANY


REMOVED: dict[str, dict[str, Removed]] = {
    "RolloutConfig": {
        "repetition_penalty": Removed(
            "grpo trains the distribution that it samples, which can't follow a penalty that depends on the "
            "text so far (a repetition reward can take its place)",
            1.0,
        ),
        "one_step_off": Removed("it is for r1rl grpo, whose loss corrects for the lag", False),
    },
    "ProblemsConfig": {
        "max_prompt_tokens": Removed("no problem of a benchmark or an evaluation is left out", None),
        "shuffle": Removed("the order of these problems changes nothing"),
    },
}
"""The keys that are gone, by the class of the section that had them."""


class RecipeWarning(FutureWarning):
    """A sentence about a recipe that works today and will not with the next version."""


def take_over(section: type, children: dict[str, Node], path: str, issues: Issues) -> None:
    """Give the keys of earlier versions in one section of a recipe their new names, and take out those that
    are gone.

    `children` is changed in place. A note in `issues` says what to write instead; an old name beside its new
    one, and a value that was never accepted, are errors.
    """
    known = dict(_entries(RENAMED, section))
    for old in [name for name in children if name in known]:
        new, node = known[old], children[old]
        named = f"{_key(path, old)} is now called {_key(path, new)}"
        if new in children:
            issues.add(node.where, f"{named}, and both are written: leave the old one out", [_key(path, new)])
            del children[old]
            continue
        issues.notes.append(Issue(node.where, f"{named}; the old name works until version {UNTIL}."))
        renamed = [(new if name == old else name, child) for name, child in children.items()]
        children.clear()
        children.update(renamed)
    gone = dict(_entries(REMOVED, section))
    for old in [name for name in children if name in gone]:
        key, removed, node = _key(path, old), gone[old], children.pop(old)
        if removed.value is ANY or _same(plain(node), removed.value):
            sentence = (
                f"{key} is no longer a key, since {removed.reason}: leave it out before version {UNTIL}."
            )
            issues.notes.append(Issue(node.where, sentence))
        else:
            issues.add(node.where, f"{key} is {node.describe()}, but {removed.reason}: leave it out")


def _entries(table: dict[str, dict[str, T]], section: type) -> list[tuple[str, T]]:
    """Return the old keys of a section's class and its bases, without those that the class has today."""
    fields = getattr(section, "__dataclass_fields__", {})
    return [
        (old, entry)
        for cls in reversed(section.__mro__)
        for old, entry in table.get(cls.__name__, {}).items()
        if old not in fields
    ]


def _same(value: Any, other: Any) -> bool:
    """Return True for equal values; 1 is not true."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
