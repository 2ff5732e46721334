"""One-step-off rollouts (`rollout.one_step_off`): the completions of a step are sampled while the update
before it runs.

    step t     advantages of rollout t, which the policy theta_(t-1) wrote (theta_0 wrote rollouts 0 and 1)
               copy = theta_t
               update theta_t -> theta_(t+1)  |  beside it, from the copy: rollout t + 1
               both are waited for; then dynamic sampling refills rollout t + 1, from the copy

So the weights that sample are one update behind those that are trained, which the loss corrects for
(docs/algorithms.md). Between two steps nothing runs beside the main thread: evaluations have the engine for
themselves, and a checkpoint holds the whole next rollout.

The thread reads the engine's own copy of the weights. Inference mode and autocast are each thread's own (not
so autocast's cache of casts: leaving autocast in the thread empties it, which costs the update a cast); which
attention kernels torch may choose is the process's, so it is set once around both. On a GPU the thread works
in a stream of its own. Processes talk to each other from the main thread only, so their exchanges keep one
order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

from r1rl.attention.steady import steady_attention
from r1rl.compute.distributed import own_share
from r1rl.compute.phase_clock import PhaseClock
from r1rl.grpo.collect import Collected
from r1rl.grpo.rollouts import Rollouts
from r1rl.grpo.saved_rollout import as_plain, from_plain
from r1rl.rollout import RolloutEngine

T = TypeVar("T")


class Stopped(Exception):
    """Raised in the thread, and seen by nobody: its result is not wanted any more."""


class Background(Generic[T]):
    """A context in which `work` runs in a thread, which has ended when the context is left.

    `work` is given a function to call now and then: after an exception in the main thread, Ctrl-C included,
    it ends the work.
    """

    def __init__(
        self, work: Callable[[Callable[[str, int, int], None]], T], stream: torch.cuda.Stream | None
    ) -> None:
        """`stream`: where the thread queues its work for the GPU; None without one."""
        self.seconds = 0.0
        """That the work took, once its result is there."""
        self._work = work
        self._stream = stream
        self._unwanted = threading.Event()
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name="one-step-off", daemon=True)

    def result(self) -> T:
        """Waits for the work and returns what it returned, or raises what it raised."""
        return self._future.result()

    def __enter__(self) -> Background[T]:
        if self._stream is not None:
            self._stream.wait_stream(
                torch.cuda.current_stream(self._stream.device)
            )  # what the main thread has queued comes first
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unwanted.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.perf_counter()
        try:
            with (
                nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
            ):  # which also makes its GPU the thread's
                value = self._work(self._go_on)
                if self._stream is not None:
                    self._stream.synchronize()
            self.seconds = time.perf_counter() - started
            self._future.set_result(value)
        except BaseException as error:
            self._future.set_exception(error)

    def _go_on(self, phase: str, done: int, total: int) -> None:
        if self._unwanted.is_set():
            raise Stopped


class OneStepOff(Rollouts):
    """Each rollout but the first is sampled beside the update before it. The engine must have a copy of the
    weights of its own, and the collector leave it as it is (`refreshes=False`).
    """

    def __init__(self, *arguments: Any) -> None:
        """See `Rollouts`."""
        super().__init__(*arguments)
        self.ahead: Collected | None = None
        """The rollout of the next step."""
        device = self.accelerator.device
        # One for the run: torch's allocator keeps the memory of each stream apart.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def engine(self) -> RolloutEngine:
        """What samples."""
        return self.collector.engine

    @property
    def settings(self) -> str:
        """What decides how a rollout is made and scored: with other settings, what was sampled ahead is not
        used.
        """
        recipe, algorithm = self.recipe, self.recipe.algorithm
        refilling = (algorithm.dynamic_sampling, algorithm.max_refills, algorithm.variance_tolerance)
        return repr(
            (
                recipe.seed,
                recipe.data,
                recipe.prompt,
                recipe.rollout,
                recipe.rewards,
                recipe.outcome,
                refilling,
            )
        )

    def take(self, step: int, clock: PhaseClock) -> Collected:
        """See `Rollouts.take`. The first rollout after a start is of the policy as it is."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            return ahead
        self.engine.refresh()
        return super().take(step, clock)

    @contextmanager
    def meanwhile(self, step: int, clock: PhaseClock) -> Iterator[None]:
        """Samples the rollout of step `step` while the block, the update before it, runs. Raises what
        sampling it raised.
        """
        with clock.phase("rollout"):
            self.engine.refresh()
        with (
            steady_attention(),
            Background(lambda go_on: self._sample(self.slots, step, 0, go_on), self.stream) as background,
        ):
            yield
            with clock.phase("rollout"):
                started = time.perf_counter()
                collected = background.result()
                waited = time.perf_counter() - started
        collected.waited_for_rewards = min(
            collected.waited_for_rewards, waited
        )  # rewards are what a rollout ends with
        clock.seconds["rollout_hidden"] = max(0.0, background.seconds - waited)
        with clock.phase("rollout"):
            collected = self._refilled(collected, step)
        clock.split("rollout", "reward", collected.waited_for_rewards)
        self.ahead = replace(collected, lag=1)

    def saved(self) -> dict[str, Any] | None:
        """See `Rollouts.saved`: the rollout, what it was made with, and the place in the data after it."""
        if self.ahead is None:
            return None
        return {
            "settings": self.settings,
            "order": self.order.state_dict(),
            "collected": as_plain(self.ahead, self.prompts),
        }

    def go_on(self, saved: Sequence[dict[str, Any]]) -> str:
        """See `Rollouts.go_on`. Any number of processes shares out what any other number had saved."""
        if not saved:
            return ""
        ahead = None
        if all(one["settings"] == self.settings for one in saved):
            shares = [one["collected"] for one in saved]
            ahead = from_plain(
                shares,
                own_share(self.accelerator, self.slots),
                own_share(self.accelerator, shares),
                self.prompts,
            )
        if ahead is None:
            return "The rollout that was sampled ahead was made with other settings or data: the next step samples anew."
        self.order.load_state_dict(saved[0]["order"])
        self.ahead = ahead
        return ""
