"""One-step-off rollouts (`rollout.one_step_off`): the completions of a step are sampled while the update
before it runs.

    step t     advantages of rollout t, which the policy theta_(t-1) wrote (theta_0 wrote rollouts 0 and 1)
               copy = theta_t
               update theta_t -> theta_(t+1)  |  beside it, from the copy: rollout t + 1
               both are waited for; then dynamic sampling refills rollout t + 1, from the copy

So the weights that sample are one update behind those that are trained, which the loss corrects for
(docs/algorithms.md). Between two steps nothing runs beside the main thread: evaluations have the engine for
themselves, and a checkpoint holds the whole next rollout.

The thread reads the engine's own copy of the weights. Inference mode and autocast are each thread's own. The
cache of autocast is not: leaving autocast in the thread empties it, which costs the update a cast. The choice
of attention kernels is the process's too, so it is set once around both. On a GPU the thread works
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
from functools import cached_property
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

from r1rl.attention.steady import steady_attention
from r1rl.compute.distributed import own_share
from r1rl.compute.phase_clock import PhaseClock
from r1rl.grpo.collect import Progress, Rollout, SampledGroup, ScoredGroup
from r1rl.grpo.rollout_state import rollout_from_state, rollout_state
from r1rl.grpo.rollouts import Rollouts
from r1rl.rewards import RewardResult
from r1rl.rollout import RolloutEngine

T = TypeVar("T")


class Stopped(Exception):
    """The end of the thread whose result is not wanted any more. Nobody sees this exception."""


class Background(Generic[T]):
    """A context in which `work` runs in a thread, which has ended when the context is left.

    `work` is given a function to tell of its progress: after an exception in the main thread, Ctrl-C
    included, that call ends the work.
    """

    def __init__(self, work: Callable[[Progress], T], stream: torch.cuda.Stream | None) -> None:
        """Take the work; `stream` is where the thread queues its work for the GPU, None without one."""
        self.seconds = 0.0
        """The seconds that the work took, once its result is there."""
        self._work = work
        self._stream = stream
        self._unwanted = threading.Event()
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name="one-step-off", daemon=True)

    def result(self) -> T:
        """Wait for the work; return what it returned, or raise what it raised."""
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
                value = self._work(self._progress)
                if self._stream is not None:
                    self._stream.synchronize()
            self.seconds = time.perf_counter() - started
            self._future.set_result(value)
        except BaseException as error:
            self._future.set_exception(error)

    def _progress(self, phase: str, done: int, total: int) -> None:
        if self._unwanted.is_set():
            raise Stopped


class OneStepOff(Rollouts):
    """The rollouts of a run that samples each but the first beside the update before it.

    The engine must have a copy of the weights of its own, and the collector leave it as it is
    (`refreshes=False`).
    """

    ahead: Rollout | None = None
    """The rollout of the next step."""

    @cached_property
    def stream(self) -> torch.cuda.Stream | None:
        """The thread's stream, one for the run: torch's allocator keeps the memory of each stream apart."""
        device = self.accelerator.device
        return torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def engine(self) -> RolloutEngine:
        """The engine that samples."""
        return self.collector.engine

    @property
    def settings(self) -> str:
        """The settings that decide how a rollout is made and scored: with others, what was sampled ahead is
        not used.
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

    def sample(self, step: int, clock: PhaseClock) -> list[SampledGroup]:
        """See `Rollouts.sample`. The first rollout after a start is of the policy as it is."""
        if self.ahead is not None:
            return [_as_sampled(group) for group in self.ahead.groups]
        self.engine.refresh()
        return super().sample(step, clock)

    def score(self, sampled: Sequence[SampledGroup], step: int, clock: PhaseClock) -> Rollout:
        """See `Rollouts.score`. A rollout that was sampled ahead is scored and refilled already."""
        ahead, self.ahead = self.ahead, None
        return super().score(sampled, step, clock) if ahead is None else ahead

    @contextmanager
    def prefetch(self, step: int, clock: PhaseClock) -> Iterator[None]:
        """Sample the rollout of step `step` while the block, the update before it, runs. Raises what sampling
        it raised.
        """
        with clock.phase("rollout"):
            self.engine.refresh()
        with (
            steady_attention(),
            Background(
                lambda progress: self.collector.score(self._sample(self.slots, step, 0, progress)),
                self.stream,
            ) as background,
        ):
            yield
            with clock.phase("rollout"):
                started = time.perf_counter()
                rollout = background.result()
                waited = time.perf_counter() - started
        # Rewards are what a rollout ends with, so no more of them was waited for than of the rollout.
        waited_for = min(rollout.counts.waited_for_rewards, waited)
        rollout = replace(rollout, counts=replace(rollout.counts, waited_for_rewards=waited_for))
        clock.seconds["rollout_hidden"] = max(0.0, background.seconds - waited)
        with clock.phase("rollout"):
            rollout = self._refilled(rollout, step)
        clock.split("rollout", "reward", rollout.counts.waited_for_rewards)
        self.ahead = replace(rollout, lag=1)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the rollout of the next step, the settings it was made with, and the place in the data after
        it.
        """
        if self.ahead is None:
            return None
        return {
            "settings": self.settings,
            "order": self.order.state_dict(),
            "collected": rollout_state(self.ahead, self.prompts),
        }

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> str:
        """See `Rollouts.load_state_dict`. Any number of processes shares out what any other number saved."""
        if not states:
            return ""
        ahead = None
        if all(state["settings"] == self.settings for state in states):
            shares = [state["collected"] for state in states]
            ahead = rollout_from_state(
                shares,
                own_share(self.accelerator, self.slots),
                own_share(self.accelerator, shares),
                self.prompts,
            )
        if ahead is None:
            return (
                "The rollout that was sampled ahead was made with other settings or data: the next step "
                "samples anew."
            )
        self.order.load_state_dict(states[0]["order"])
        self.ahead = ahead
        return ""


def _as_sampled(group: ScoredGroup) -> SampledGroup:
    """Return a group whose rewards are there already as one that may be waited for."""
    scoring: Future[RewardResult] = Future()
    scoring.set_result(group.rewards)
    return SampledGroup(group.slot, group.prompt, group.completions, scoring)
