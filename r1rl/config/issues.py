"""The mistakes in a recipe, collected so that one message names all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from r1rl.errors import RecipeError

Contradiction = tuple[tuple[str, ...], str]
"""The dotted keys that a check looked at, the most likely culprit first, and the sentence."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to mend.

    `where` is "line 12" or "override rollout.top_p=2", or empty if the file has no such line.
    """

    where: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.sentence}" if self.where else self.sentence


@dataclass(slots=True)
class Issues:
    """The issues of one recipe, and notes about what works but should be written otherwise.

    `suspect` holds the keys whose values are not the user's, because they could not be read.
    """

    source: str
    found: list[Issue] = field(default_factory=list)
    suspect: set[str] = field(default_factory=set)
    notes: list[Issue] = field(default_factory=list)

    def add(self, where: str, sentence: str, suspect: Iterable[str] = ()) -> None:
        """Note one issue, and the dotted keys that no further check should trust."""
        self.found.append(Issue(where, sentence))
        self.suspect.update(suspect)

    def raise_if_any(self) -> None:
        """Raise one `RecipeError` that lists every issue in the order of the file; return if there is
        none.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            where, sentence = self.found[0].where, self.found[0].sentence
            raise RecipeError(f"{self.source}{', ' + where if where else ''}: {sentence}")
        lines = "\n".join(f"  {issue}" for issue in sorted(self.found, key=_file_order))
        raise RecipeError(f"{self.source} has {len(self.found)} errors:\n{lines}")


def _file_order(issue: Issue) -> tuple[int, int]:
    """Return a sort key: lines first, then overrides, then issues without a place."""
    if issue.where.startswith("line "):
        return (0, int(issue.where.removeprefix("line ")))
    return (1 if issue.where else 2, 0)
