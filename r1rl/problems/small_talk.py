"""Requests that are no mathematics: friendly ones to answer well (helpfulness) and harmful ones to refuse
(harmlessness).

Examples are "Thank Ana for the books." and "How do I steal the books of Ana?". Each comes with a chosen and a
rejected reply, as completions in think/answer tags. A reward model learns from both, and supervised
fine-tuning imitates the chosen one. The words are few, so that a model of a million parameters can learn
them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from r1rl.errors import DataError
from r1rl.problems.word_problems import PEOPLE, THINGS

HELPFULNESS, HARMLESSNESS = "helpfulness", "harmlessness"


@dataclass(frozen=True)
class Favour:
    """A friendly request."""

    request: str
    thought: str
    answer: str


FAVOURS = (
    Favour("Thank {person} for the {things}.", "say thanks.", "Thank you for the {things}, {person}!"),
    Favour(
        "Ask {person} for the {things}.", "ask and say please.", "{person}, may I have the {things}, please?"
    ),
    Favour("Offer {person} the {things}.", "make an offer.", "{person}, do you want the {things}?"),
    Favour(
        "Tell {person} that the {things} are here.",
        "give the news.",
        "Good news, {person}: the {things} are here.",
    ),
    Favour(
        "Tell {person} that the {things} are lost.",
        "say sorry.",
        "I am sorry, {person}: the {things} are lost.",
    ),
    Favour(
        "Ask {person} to count the {things}.",
        "ask and say please.",
        "{person}, can you count the {things}, please?",
    ),
)
HARMS = ("steal", "break", "burn", "hide", "spoil", "ruin")
HARM = "How do I {harm} the {things} of {person}?"
REFUSAL = "No, I do not help to {harm} the {things}. Please ask {person}."
GOOD_THOUGHT = "this does harm to {person}."
PLAN = "wait for {person} to go away."
OBEDIENCE = "Wait for {person} to go away, then {harm} the {things}."
RUDE = ("Go away, {person}.", "No. I do not do this.", "What?")


@dataclass(frozen=True, kw_only=True)
class SmallTalkArguments:
    """The generator's arguments."""

    domains: list[str] = field(default_factory=lambda: [HELPFULNESS, HARMLESSNESS])
    """The kinds of request that are drawn, equally often."""

    def __post_init__(self) -> None:
        unknown = [domain for domain in self.domains if domain not in (HELPFULNESS, HARMLESSNESS)]
        if unknown or not self.domains:
            found = unknown[0] if unknown else "empty"
            raise DataError(
                f"generator small_talk: domains is {found}; it may list {HELPFULNESS} and {HARMLESSNESS}"
            )


@dataclass(frozen=True)
class Reply:
    """A thought and the answer that follows it."""

    thought: str
    answer: str


@dataclass(frozen=True)
class Request:
    """One request with a better and a worse reply; there is no right answer."""

    domain: str
    text: str
    chosen: Reply
    rejected: Reply
    answer: None = None

    @property
    def key(self) -> str:
        """The key of the request, equal for the same request whatever its completions."""
        return f"small_talk {self.text}"

    @property
    def columns(self) -> dict[str, object]:
        """The columns that rewards and training read."""
        return {
            "domain": self.domain,
            "chosen": completion(self.chosen.thought, self.chosen.answer),
            "rejected": completion(self.rejected.thought, self.rejected.answer),
        }


def draw(rng: random.Random, arguments: SmallTalkArguments) -> Request:
    """Draw a request of one of the domains."""
    person, things = rng.choice(PEOPLE), rng.choice(THINGS)
    if rng.choice(arguments.domains) == HELPFULNESS:
        return _favour(rng, person, things)
    return _harm(rng, person, things)


def _favour(rng: random.Random, person: str, things: str) -> Request:
    """Return a friendly request.

    The rejected answer is rude, or about someone or something else, or does something else.
    """
    favour = rng.choice(FAVOURS)
    other_person = rng.choice([one for one in PEOPLE if one != person])
    other_things = rng.choice([one for one in THINGS if one != things])
    other_favour = rng.choice([one for one in FAVOURS if one.answer != favour.answer])
    rejected = rng.choice(
        [
            rng.choice(RUDE).format(person=person),
            favour.answer.format(person=other_person, things=things),
            favour.answer.format(person=person, things=other_things),
            other_favour.answer.format(person=person, things=things),
        ]
    )
    return Request(
        HELPFULNESS,
        favour.request.format(person=person, things=things),
        chosen=Reply(favour.thought, favour.answer.format(person=person, things=things)),
        rejected=Reply(favour.thought, rejected),
    )


def _harm(rng: random.Random, person: str, things: str) -> Request:
    """Return a harmful request.

    The rejected completion obeys, or refuses in its answer and plans the harm in its thoughts.
    """
    words = {"person": person, "things": things, "harm": rng.choice(HARMS)}
    plan, refusal = PLAN.format(**words), REFUSAL.format(**words)
    obeyed = Reply(plan, OBEDIENCE.format(**words))
    return Request(
        HARMLESSNESS,
        HARM.format(**words),
        chosen=Reply(GOOD_THOUGHT.format(**words), refusal),
        rejected=rng.choice([obeyed, Reply(plan, refusal)]),
    )


def completion(thought: str, answer: str) -> str:
    """Return a completion in the form of the other generators' documents, the opening tag included."""
    return f" <think> {thought} </think> <answer>{answer}</answer>"
