"""Hooks: code of the user's own that a training run calls after certain events.

A hook is an object with one or more of these methods, each called with the run and a record of the event:

    on_step(run, result)          a step is done and logged; `result.metrics` has its figures
    on_evaluation(run, record)    the model was measured on held-out data            `EvaluationRecord`
    on_save(run, path)            a checkpoint is written whole
    on_end(run, end)              the run is finished, or was stopped and saved        `RunEnd`

Hooks are given in Python (`Given.hooks`) or named in a recipe, as a class that is made without arguments or
as an object: `hooks: [path/to/file.py:MyHook, my_package.my_module:my_hook]`. The hooks of the recipe are
called first, each list in its order.

They run in the main process only, between two steps, so the others wait for them; what all processes must do
together, such as `run.evaluate`, is not for them. A hook that raises ends the run as Ctrl-C does: the step
that is under way is done, logged and saved, then the run stops with a HookError that names the hook. A hook
that raises is not called again; the others are.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from r1rl.config.plugins import LoadedCode, Wanted, load_code
from r1rl.errors import HookError

if TYPE_CHECKING:
    from r1rl.runs.training_run import AnyRun


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """An evaluation within a run."""

    name: str
    """The name of its file in evaluations/: before, step-000020, after."""
    step: int
    """Steps done before it."""
    figures: dict[str, Any]
    """The figures by name, as summary.json has them."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run."""

    step: int
    """Steps done."""
    finished: bool
    """The reason of the end: true after the last step, false where the run was stopped and can be resumed."""


@runtime_checkable
class OnStep(Protocol):
    """A hook that is called after each step."""

    def on_step(self, run: AnyRun, result: Any) -> None:
        """Look at what the step left: `result` is the command's step result, with `metrics`."""
        ...


@runtime_checkable
class OnEvaluation(Protocol):
    """A hook that is called after each evaluation."""

    def on_evaluation(self, run: AnyRun, record: EvaluationRecord) -> None:
        """Look at the figures of an evaluation."""
        ...


@runtime_checkable
class OnSave(Protocol):
    """A hook that is called after each checkpoint."""

    def on_save(self, run: AnyRun, path: Path) -> None:
        """Take the checkpoint's folder, which is complete."""
        ...


@runtime_checkable
class OnEnd(Protocol):
    """A hook that is called once, at the end of the run."""

    def on_end(self, run: AnyRun, end: RunEnd) -> None:
        """Look back at the run. It is not called where the run fails with an error."""
        ...


Hook = OnStep | OnEvaluation | OnSave | OnEnd
Event = Literal["on_step", "on_evaluation", "on_save", "on_end"]
EVENTS = get_args(Event)


@dataclass(frozen=True, slots=True)
class Handler:
    """A method of a hook."""

    hook: Hook
    event: Event
    call: Callable[[AnyRun, Any], None]

    @property
    def name(self) -> str:
        """The name that messages have for it: "MyHook.on_step"."""
        return f"{type(self.hook).__name__}.{self.event}"


def handlers_of(hook: Hook) -> list[Handler]:
    """Return the methods of a hook that a run calls."""
    found = []
    if isinstance(hook, OnStep):
        found.append(Handler(hook, "on_step", hook.on_step))
    if isinstance(hook, OnEvaluation):
        found.append(Handler(hook, "on_evaluation", hook.on_evaluation))
    if isinstance(hook, OnSave):
        found.append(Handler(hook, "on_save", hook.on_save))
    if isinstance(hook, OnEnd):
        found.append(Handler(hook, "on_end", hook.on_end))
    return found


def check_hook(hook: Hook) -> None:
    """Raise HookError for an object that nothing would call, or a method that can't be called with two
    arguments.
    """
    handlers = handlers_of(hook)
    if not handlers:
        raise HookError(
            f"hooks: {type(hook).__name__} has none of the methods {', '.join(EVENTS)}, so nothing would "
            f"ever call "
            f"it: write one, such as on_step(self, run, result)."
        )
    for handler in handlers:
        try:
            inspect.signature(handler.call).bind(None, None)
        except TypeError as error:
            raise HookError(
                f"hooks: {handler.name} is called with two arguments, the run and a record ({error})."
            ) from error


def _is_hook(value: Any) -> bool:
    return issubclass(value, Hook) if inspect.isclass(value) else isinstance(value, Hook)


WANTED = Wanted(
    key="hooks",
    accepts=_is_hook,
    noun="hook",
    module_example="my_package.my_module:MyHook",
    file_example="path/to/file.py:MyHook",
    error=HookError,
)
"""A hook, as `hooks` of a recipe names it."""


def find_hooks(specs: Sequence[str], base_dir: Path) -> list[LoadedCode]:
    """Return the classes and objects that a recipe names as hooks, and make none yet; `base_dir` is its
    folder.

    Raises HookError for one that can't be found or has no method that a run calls.
    """
    return [load_code(spec, base_dir, WANTED) for spec in specs]


def load_hooks(specs: Sequence[str], base_dir: Path) -> list[Hook]:
    """Return the hooks that a recipe names; `base_dir` is its folder. Raises HookError for one that can't be
    used.
    """
    hooks = [_made(code) for code in find_hooks(specs, base_dir)]
    for hook in hooks:
        check_hook(hook)
    return hooks


def _made(code: LoadedCode) -> Hook:
    if not inspect.isclass(code.value):
        return code.value
    try:
        hook: Any = code.value()
    except Exception as error:
        raise HookError(
            f"hooks: making {code.place} failed: {type(error).__name__}: {error}. A class is called without "
            f"arguments; a hook that needs some can be named as an object: my_hook = {code.name}(...)."
        ) from error
    return hook


class Hooks:
    """The hooks of a run in this process."""

    def __init__(self, hooks: Sequence[Hook], tell: Callable[[str], None]) -> None:
        """Take the hooks of this process; `tell` shows a message to the person who watches the run."""
        self.failure: HookError | None = None
        """The first error that a hook raised: the run is to stop."""
        self._handlers = [handler for hook in hooks for handler in handlers_of(hook)]
        self._tell = tell

    def call(self, event: Event, run: AnyRun, record: Any) -> None:
        """Call the hooks that wait for this event, in their order; keep the first error and leave its hook
        out.
        """
        for handler in [one for one in self._handlers if one.event == event]:
            try:
                handler.call(run, record)
            except Exception as error:
                self._handlers = [one for one in self._handlers if one.hook is not handler.hook]
                self._tell(f"Hook {handler.name} raised.\n{traceback.format_exc()}")
                self.failure = self.failure or self._failure_of(handler, run.state.step, error)

    @staticmethod
    def _failure_of(handler: Handler, step: int, error: Exception) -> HookError:
        failure = HookError(
            f"hooks: {handler.name} raised {type(error).__name__} after step {step}: {error}. Everything is "
            f"saved: "
            f"mend the hook or leave it out, and go on with --resume."
        )
        failure.__cause__ = error
        return failure
