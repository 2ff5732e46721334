"""The grader: the policy and the order of the stages, around a cache and the pool of workers."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache

from r1rl.grading.compare import Comparer
from r1rl.grading.evaluate import Evaluator, TooLargeError
from r1rl.grading.extract import Extraction, extract_strict, last_box
from r1rl.grading.gate import too_costly, too_long
from r1rl.grading.lenient import extract_lenient
from r1rl.grading.normalize import clean, text_key, words_key
from r1rl.grading.read import read
from r1rl.grading.shapes import Answer, Scalar
from r1rl.grading.types import Grade, Mode, Outcome, Stage
from r1rl.grading.workers import WorkerPool

DEFAULT_SECONDS = 2.0
DEFAULT_WORKERS = 8
DEFAULT_MEMORY = 2 << 30
CACHE_SIZE = 100_000

Decision = tuple[Outcome, Stage]
Gold = str | int | float | None
_PLAIN_NUMBER = re.compile(r"-?\d{1,11}(?:\.\d{1,4})?")
"""A number of at most 15 digits. Two such numbers are equal exactly if the floats that they are read as are
equal.
"""
_INNER_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_UNREADABLE_GOLD = frozenset(["", "nan", "null", "n/a", "[]", "{}"])


class _State:
    """The caches, locks and workers that belong to one process. A forked process gets new ones."""

    def __init__(self, max_workers: int, memory_bytes: int) -> None:
        self.lock = threading.Lock()
        self.cache: OrderedDict[tuple[str, str], Decision] = OrderedDict()
        self.golds = lru_cache(maxsize=16_384)(read_gold)
        self.comparer = Comparer(Evaluator())
        self.pool = WorkerPool(max_workers, memory_bytes)


class Grader:
    """A grader of completions against gold answers.

    Every method may be called from any thread and after a fork. `seconds` limits one comparison in the
    symbolic stage, which is served by `max_workers` processes of at most `memory_bytes` each.
    """

    def __init__(
        self,
        seconds: float = DEFAULT_SECONDS,
        max_workers: int = DEFAULT_WORKERS,
        memory_bytes: int = DEFAULT_MEMORY,
    ) -> None:
        self.seconds = seconds
        self._arguments = (max_workers, memory_bytes)
        self._states: dict[int, _State] = {}

    def grade(
        self,
        completion: str,
        answer: Gold,
        mode: Mode | str = Mode.STRICT,
        prefill: str = "",
        timeout: float | None = None,
    ) -> Grade:
        """Return the grade of one completion. `timeout` in seconds replaces the grader's own limit."""
        return self.grade_many([completion], [answer], mode, prefill, timeout)[0]

    def grade_many(
        self,
        completions: Sequence[str],
        answers: Sequence[Gold],
        mode: Mode | str = Mode.STRICT,
        prefill: str = "",
        timeout: float | None = None,
    ) -> list[Grade]:
        """Return the grades of many completions; `answers[k]` is the gold answer of `completions[k]`.

        All cheap stages run in this process. The rest is left to the symbolic stage and spread over the
        workers, where equal pairs are computed once.
        """
        mode = Mode(mode)
        state = self._state()
        grades: list[Grade | None] = []
        pending: dict[tuple[str, str], list[tuple[int, str, float]]] = {}
        for index, (completion, answer) in enumerate(zip(completions, answers, strict=True)):
            start = time.perf_counter()
            gold = answer if isinstance(answer, str) else gold_string(answer)
            extraction = extract_answer(completion, mode, prefill, gold)
            if extraction.text is None:
                outcome = extraction.problem or Outcome.NO_ANSWER
                if unreadable_reason(gold) is not None:
                    outcome = Outcome.UNPARSEABLE_GOLD
                grades.append(Grade(outcome, None, Stage.EXTRACT, time.perf_counter() - start))
                continue
            decision = self._decide(state, gold, extraction.text)
            seconds = time.perf_counter() - start
            if decision is None:
                pending.setdefault((gold, extraction.text), []).append((index, extraction.text, seconds))
                grades.append(None)
            else:
                grades.append(Grade(decision[0], extraction.text, decision[1], seconds))
        if pending:
            self._symbolic(state, pending, grades, self.seconds if timeout is None else timeout)
        return [grade for grade in grades if grade is not None]

    def warm_up(self) -> None:
        """Start the worker process now, so that the first symbolic comparison need not wait for its
        imports.
        """
        self._state().pool.warm_up()

    def close(self) -> None:
        """End the worker processes. The next comparison that needs one starts them again."""
        self._state().pool.close()

    def _state(self) -> _State:
        pid = os.getpid()
        state = self._states.get(pid)
        if state is None:
            for inherited in [self._states.pop(key) for key in list(self._states) if key != pid]:
                inherited.pool.abandon()
            state = self._states.setdefault(pid, _State(*self._arguments))
        return state

    def _decide(self, state: _State, gold: str, answer: str) -> Decision | None:
        """Return the verdict of the cheap stages or of the cache, or None to leave it to the symbolic
        stage.
        """
        if gold == answer and gold.strip().lower() not in _UNREADABLE_GOLD:
            return Outcome.CORRECT, Stage.TEXT
        key = (gold, answer)
        with state.lock:
            decision = state.cache.get(key)
            if decision is not None:
                state.cache.move_to_end(key)
                return decision
        try:
            decision = decide_cheaply(state.comparer, state.golds, gold, answer)
        except (ArithmeticError, RecursionError, ValueError):
            # An answer that a rule trips over must not end a training run.
            decision = (Outcome.CRASHED, Stage.STRUCTURE)
        if decision is not None:
            self._remember(state, key, decision)
        return decision

    def _remember(self, state: _State, key: tuple[str, str], decision: Decision) -> None:
        with state.lock:
            state.cache[key] = decision
            if len(state.cache) > CACHE_SIZE:
                state.cache.popitem(last=False)

    def _symbolic(
        self,
        state: _State,
        pending: dict[tuple[str, str], list[tuple[int, str, float]]],
        grades: list[Grade | None],
        seconds: float,
    ) -> None:
        requests = [(clean(gold_text(gold)), clean(answer)) for gold, answer in pending]
        start = time.perf_counter()
        verdicts = state.pool.run(requests, seconds)
        waited = time.perf_counter() - start
        for (key, places), verdict in zip(pending.items(), verdicts, strict=True):
            if isinstance(verdict, Outcome):
                decision = (verdict, Stage.SYMBOLIC)
            else:
                decision = (Outcome.CORRECT if verdict else Outcome.WRONG, Stage.SYMBOLIC)
                self._remember(state, key, decision)
            for index, text, before in places:
                grades[index] = Grade(decision[0], text, decision[1], before + waited)


def extract_answer(
    completion: str, mode: Mode | str = Mode.STRICT, prefill: str = "", gold: str | None = None
) -> Extraction:
    """Return the answer of a completion by the policy of `mode`.

    In lenient mode the gold answer tells whether to look for a choice letter; it is never compared here.
    """
    extraction = extract_strict(completion, prefill)
    if extraction.text is None and mode == Mode.LENIENT:
        return extract_lenient(completion, prefill, gold)
    return extraction


def gold_string(answer: Gold) -> str:
    """Return a gold answer as text. Data sets also hold numbers, and None where an answer is missing."""
    return "" if answer is None else str(answer)


def gold_text(gold: str) -> str:
    """Return the last box of a gold answer that is a whole solution, or else the gold answer itself."""
    if "\\boxed" in gold or "\\fbox" in gold:
        box = last_box(gold)
        if box is not None and box.text is not None:
            return box.text
    return gold


def read_gold(gold: str) -> tuple[Answer | None, str]:
    """Return the shape of a gold answer (None if it is too long to be read) and its text key."""
    text = clean(gold_text(gold))
    return (None if too_long(text) else read(text)), text_key(text)


def unreadable_reason(gold: str) -> str | None:
    """Return the reason why no completion can be graded against this gold answer, or None if one can."""
    if gold.strip().lower() in _UNREADABLE_GOLD:
        return "it is empty"
    if not text_key(clean(gold_text(gold))):
        return "nothing but layout is in it"
    return None


def decide_cheaply(
    comparer: Comparer, golds: Callable[[str], tuple[Answer | None, str]], gold: str, answer: str
) -> Decision | None:
    """Return the decision of the stages text, number and structure, or None if only the symbolic stage could
    tell.

    `golds` is `read_gold`, cached.
    """
    shape, key = golds(gold)
    if not key or gold.strip().lower() in _UNREADABLE_GOLD:
        return Outcome.UNPARSEABLE_GOLD, Stage.EXTRACT
    if _PLAIN_NUMBER.fullmatch(gold) and _PLAIN_NUMBER.fullmatch(answer):
        return (Outcome.CORRECT if float(gold) == float(answer) else Outcome.WRONG), Stage.NUMBER
    cleaned = clean(answer) if not too_long(answer) else answer.strip()
    if text_key(cleaned) == key:
        return Outcome.CORRECT, Stage.TEXT
    if too_long(cleaned) or shape is None:
        return Outcome.WRONG, Stage.GATE
    other = read(cleaned)
    stage = Stage.NUMBER if isinstance(shape, Scalar) and isinstance(other, Scalar) else Stage.STRUCTURE
    try:
        verdict = comparer.equal(shape, other)
    except TooLargeError:
        return Outcome.TIMEOUT, Stage.GATE
    if verdict is not None:
        return (Outcome.CORRECT if verdict else Outcome.WRONG), stage
    if _words_inside(shape.text) != _words_inside(cleaned):
        return Outcome.WRONG, Stage.STRUCTURE  # algebra drops words, and with them "or possibly 6"
    if too_costly(cleaned) or too_costly(shape.text):
        return Outcome.TIMEOUT, Stage.GATE
    return None


def _words_inside(text: str) -> list[str]:
    return sorted(key for key in map(words_key, _INNER_TEXT.findall(text)) if key)


@lru_cache(maxsize=1)
def default_grader() -> Grader:
    """Return the grader behind the module's functions, one per program, made on the first call.

    It holds the cache and the workers, which only pay if all callers share them.
    """
    return Grader()
