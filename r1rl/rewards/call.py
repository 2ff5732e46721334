"""One call of one reward function: bounded in time, its errors typed and kept to the rows that cause them."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1rl.errors import RewardError, UserError
from r1rl.rewards.contract import EVENTS_KEYWORD, OUTCOME_KEYWORD, RewardBatch
from r1rl.rewards.loader import LoadedReward
from r1rl.rewards.signature import Inputs

MAX_STUCK_CALLS = 4
"""The number of calls of one reward that may still run past their limit before further batches are
skipped.
"""


class BadResult(Exception):
    """The function returned something else than a list of one number or None per row; `kind` names the
    event.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(slots=True)
class Report:
    """The results of one call, row by row."""

    values: list[float | None]
    events: Counter[str]
    seconds: float
    traceback: str | None


class RewardCaller:
    """The caller of one reward function.

    Calls don't overlap, except with an earlier one that is stuck past its limit.
    """

    def __init__(self, name: str, reward: LoadedReward, inputs: Inputs, timeout: float) -> None:
        self.name = name
        self.reward = reward
        self.inputs = inputs
        self.timeout = timeout
        self._turn = threading.Lock()
        self._stuck: list[threading.Thread] = []
        self._proved = False
        self._shown = False

    def score(self, batch: RewardBatch, rows: Sequence[int], outcome: Sequence[float | None]) -> Report:
        """Score some rows of a batch, and return after at most `timeout` seconds of its own.

        Raise `RewardError` if the function raised one, or if its very first results are not one number per
        row.
        """
        if not rows:
            return Report([], Counter(), 0.0, None)
        with self._turn:
            self._stuck = [thread for thread in self._stuck if thread.is_alive()]
            if len(self._stuck) >= MAX_STUCK_CALLS:
                return Report([None] * len(rows), Counter({self._event("timeout"): len(rows)}), 0.0, None)
            return self._score_in_thread(_Attempt(self, batch, rows, outcome))

    def check_arguments(self) -> None:
        """Call the function with an empty batch, so that it can raise `RewardError` for its arguments.

        Other errors are ignored.
        """
        try:
            self.invoke(RewardBatch([], [], max_completion_length=1, prefill=""), [], [], Counter())
        except UserError:
            raise
        except Exception:
            return

    def invoke(
        self, batch: RewardBatch, rows: Sequence[int], outcome: Sequence[float | None], events: Counter[str]
    ) -> Any:
        """Call the function for some rows and return its result."""
        values = {keyword: batch.values(keyword, rows) for keyword in self.inputs.from_batch}
        if self.inputs.wants_outcome:
            values[OUTCOME_KEYWORD] = list(outcome)
        if self.inputs.wants_events:
            values[EVENTS_KEYWORD] = events
        result = self.reward.function(**values, **self.inputs.arguments)
        # The grace lets score() see the end of the time limit before the coroutine is cancelled.
        return asyncio.run(_wait(result, self.timeout + 1.0)) if inspect.isawaitable(result) else result

    def _score_in_thread(self, attempt: _Attempt) -> Report:
        started = time.perf_counter()
        thread = threading.Thread(target=attempt.run, name=f"reward-{self.name}", daemon=True)
        thread.start()
        thread.join(self.timeout)
        values, events, missing = attempt.close()
        if attempt.fatal is not None:
            raise attempt.fatal
        if thread.is_alive():
            self._stuck.append(thread)
        if missing:
            events[self._event("timeout")] += missing
        shown, self._shown = self._shown, self._shown or attempt.traceback is not None
        return Report(values, events, time.perf_counter() - started, None if shown else attempt.traceback)

    def _event(self, kind: str) -> str:
        return f"reward/{self.name}/{kind}"


class _Attempt:
    """The work of one call, done in a thread that may be left behind."""

    def __init__(
        self, caller: RewardCaller, batch: RewardBatch, rows: Sequence[int], outcome: Sequence[float | None]
    ) -> None:
        self.caller, self.batch, self.rows, self.outcome = caller, batch, rows, outcome
        self.values: list[float | None] = [None] * len(rows)
        self.finished = [False] * len(rows)
        self.events: Counter[str] = Counter()
        self.traceback: str | None = None
        self.fatal: UserError | None = None
        self._closed = False
        self._guard = threading.Lock()

    def run(self) -> None:
        """Score all rows at once; if that raises, one by one."""
        everything = range(len(self.rows))
        try:
            try:
                self._score(everything)
            # BaseException, because libraries' timeouts and sys.exit() in a reward must not end the thread
            # unseen.
            except BaseException as error:
                if isinstance(error, (UserError, BadResult)) or len(self.rows) == 1:
                    self._fail(everything, error)
                else:
                    self._score_one_by_one()
        except UserError as error:
            self.fatal = error

    def close(self) -> tuple[list[float | None], Counter[str], int]:
        """Stop recording, and return the values and events so far, and how many rows were not reached."""
        with self._guard:
            self._closed = True
            return (
                list(self.values),
                Counter(self.events),
                self.finished.count(False) if self.fatal is None else 0,
            )

    def _score_one_by_one(self) -> None:
        for place in range(len(self.rows)):
            if self._closed:
                return
            try:
                self._score([place])
            except BaseException as error:
                self._fail([place], error)

    def _score(self, places: Sequence[int]) -> None:
        events: Counter[str] = Counter()
        rows = [self.rows[place] for place in places]
        returned = self.caller.invoke(self.batch, rows, [self.outcome[row] for row in rows], events)
        numbers = _as_numbers(returned, len(places))
        self.caller._proved = True
        values = [value if value is None or math.isfinite(value) else None for value in numbers]
        not_finite = sum(value is not None and not math.isfinite(value) for value in numbers)
        if not_finite:
            events[self.caller._event("not_finite")] += not_finite
        self._record(places, values, events)

    def _fail(self, places: Sequence[int], error: BaseException) -> None:
        if isinstance(error, UserError):
            raise error
        if isinstance(error, BadResult) and not self.caller._proved:
            raise RewardError(f"rewards: {self.caller.reward.place} {error}") from error
        kind = error.kind if isinstance(error, BadResult) else "exception"
        with self._guard:
            if self.traceback is None and not self._closed:
                self.traceback = "".join(traceback.format_exception(error))
        self._record(places, [None] * len(places), Counter({self.caller._event(kind): len(places)}))

    def _record(self, places: Sequence[int], values: Sequence[float | None], events: Counter[str]) -> None:
        with self._guard:
            if self._closed:
                return
            for place, value in zip(places, values, strict=True):
                self.values[place] = value
                self.finished[place] = True
            self.events.update(events)


def _as_numbers(returned: Any, num_rows: int) -> list[float | None]:
    if hasattr(returned, "tolist"):  # numpy arrays and tensors
        returned = returned.tolist()
    if isinstance(returned, (str, bytes, dict)) or not hasattr(returned, "__iter__"):
        raise BadResult(
            "not_numeric",
            f"must return a list with one number or None per completion, not {_short(returned)}.",
        )
    results = list(returned)
    if len(results) != num_rows:
        raise BadResult(
            "wrong_count",
            f"returned {len(results)} results for {num_rows} completions; it must return one for each.",
        )
    return [_as_number(result) for result in results]


def _as_number(result: Any) -> float | None:
    if result is None:
        return None
    try:
        if isinstance(result, (str, bytes)):
            raise TypeError
        return float(result)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise BadResult(
            "not_numeric", f"returned {_short(result)} for a completion; it must be a number or None."
        ) from None


def _short(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


async def _wait(awaitable: Any, timeout: float) -> Any:
    return await asyncio.wait_for(awaitable, timeout)
