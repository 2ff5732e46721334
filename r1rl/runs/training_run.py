"""The life of a training run, the same for every command that trains in steps.

    start    preflight, accelerator, run directory, state, model       TrainingRun.start
    step     the command's own                                         step
    log      metrics.jsonl, terminal, trackers, completions            after_step
    hooks    code of the user's own                                    r1rl.runs.hooks
    evaluate on held-out data, where the recipe says so                evaluate
    save     a checkpoint, where the recipe says so                    save
    finish   the last evaluation, summary.json, curves.png; or stop after Ctrl-C, saved, to be resumed

A command says in a subclass how its recipe is prepared, what its step is and what it shows:

    class GRPORun(EvaluatedRun[GRPORecipe, Preflight, GRPOParts, StepResult]): ...

    GRPORun.start(recipe, recipe_path).train()                           all of it
    for result in GRPORun.start(recipe, recipe_path).steps(): ...        the same, with a look at each step
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from transformers.utils.logging import disable_progress_bar

from r1rl.compute.distributed import gather_shares, leave_together, max_over_processes
from r1rl.compute.trials import trial_report
from r1rl.memory.activation_checkpointing import settle_checkpointing
from r1rl.monitor.curves import save_curves
from r1rl.monitor.progress import ProgressDisplay, format_seconds
from r1rl.runs.checkpoint import Checkpointer
from r1rl.runs.hooks import EvaluationRecord, Hooks, RunEnd, load_hooks
from r1rl.runs.inputs import NOTHING, Given
from r1rl.runs.interrupt import Interrupt
from r1rl.runs.job import Checked, Parts, Recipe, Result, TrainingJob
from r1rl.runs.start import RunStart, open_run, starting_state
from r1rl.runs.trackers import start_trackers


class Ending(IntEnum):
    """The wish of a process after a step; the largest one of all processes is done."""

    GO_ON = 0
    FINISH = 1
    """The last step is done: evaluate, save and sum up."""
    STOP = 2
    """Save, so that the run can be resumed."""


class TrainingRun(TrainingJob[Recipe, Checked, Parts, Result]):
    """One run from its first (or next) step to its summary."""

    @classmethod
    def start(
        cls, recipe: Recipe, recipe_path: Path, resume: str | None = None, given: Given = NOTHING
    ) -> Self:
        """Return the run before its first (or next) step, with its model loaded.

        Rewards, hooks and templates are looked for from the folder of `recipe_path`. `resume`: "latest", or a
        checkpoint folder of the run. Raises UserError before a model is loaded for whatever can be known
        then.
        """
        disable_progress_bar()  # of loading and saving models: the run has a bar of its own
        given.check()
        hooks = [*load_hooks(recipe.hooks, recipe_path.parent), *given.hooks]
        recipe = given.named_in(recipe)
        checked = cls.preflight(recipe, recipe_path, given)
        try:
            recipe = cls.pinned(recipe)
            accelerator = cls.make_accelerator(recipe, checked)
            recipe, checked = cls.settle(recipe, checked, accelerator, given)
            recipe, decided = settle_checkpointing(recipe, accelerator)
            directory, checkpoint = open_run(recipe, resume, accelerator)
            state = starting_state(checkpoint)
            is_main = accelerator.is_main_process
            display = ProgressDisplay(
                recipe.max_steps, state.step, columns=cls.columns, live=recipe.logging.live, enabled=is_main
            )
            for message in (*checked.messages, *decided):
                display.message(message)
            if accelerator.device.type == "cuda":
                display.message("Loading and preparing the model, which takes a minute or more on a GPU.")
            start = RunStart(recipe, given, hooks, accelerator, directory, checkpoint, state, display)
            return cls(start, checked, cls.build(start, checked))
        except BaseException:
            checked.close()
            raise

    def __init__(self, start: RunStart[Recipe], checked: Checked, parts: Parts) -> None:
        super().__init__(start, checked, parts)
        self.hooks = Hooks(start.hooks if self.accelerator.is_main_process else (), self.display.message)
        self.checkpointer = Checkpointer(
            self.directory.checkpoints, self.accelerator, self.recipe.checkpoint.keep
        )
        if start.checkpoint is not None:
            self.checkpointer.load(start.checkpoint, parts.optimizer, parts.schedule)
            parts.order.load_state_dict(self.state.order)
        self.ending = Ending.FINISH if self.state.step >= self.recipe.max_steps else Ending.GO_ON
        self._interrupt = Interrupt(self.display.message)
        self._ends_early = False
        self._saved_step = self.state.step

    def train(self) -> None:
        """Train to `max_steps`. Raises KeyboardInterrupt after Ctrl-C, and HookError where a hook raised;
        everything is saved then.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[Result]:
        """Yield the result of each step once it is logged, and evaluated and saved where the recipe says so.

        The run is finished with the last step. Leaving the loop early saves it, to be resumed. So does
        Ctrl-C, also within the loop's body: the step after it is still done.
        """
        with self.life():
            while self.goes_on:
                result = self.step()
                self.after_step(result)
                yield result

    @contextmanager
    def life(self) -> Iterator[None]:
        """Surround the steps of the run: greet and evaluate before them, finish or stop after them."""
        self._greet()
        start_trackers(self.accelerator, self.recipe, self.directory)
        try:
            with self._interrupt, self.display:
                if self.recipe.evaluation.at_start and self.state.step == 0:
                    self.evaluate("before")
                try:
                    yield
                except GeneratorExit:  # whoever drives the steps has left the loop
                    self.ending = Ending.STOP
                    self._leave()
                    raise
                if self.ending is Ending.FINISH:
                    self.evaluate("after")
            if self.ending is Ending.FINISH:
                self._finish()
            self._leave()
            if self.hooks.failure is not None:
                raise self.hooks.failure
            if self.ending is Ending.STOP:
                raise KeyboardInterrupt
        finally:
            self.checked.close()

    def after_step(self, result: Result) -> None:
        """Log a step, call the hooks, evaluate and save where it is time, and agree on how to go on."""
        self.log(result)
        self.hooks.call("on_step", self, result)
        self.ending = self._agreed_ending()
        if self.ending is Ending.GO_ON and self._is_time(self.recipe.evaluation.every_steps):
            self.evaluate(f"step-{self.state.step:06d}", during=True)
        if self.ending is not Ending.GO_ON or self._is_time(self.recipe.checkpoint.every_steps):
            self.save()

    def evaluate(self, name: str, during: bool = False) -> None:
        """Measure the model as it is on held-out data, if there is any: figures go into the state and to the
        trackers, answers or scores into evaluations/<name>.json. Every process calls this.
        """
        measured = self.measure(during)
        if measured is None:
            return
        self.state.evaluations[name] = {"step": self.state.step, **measured.figures}
        if self.accelerator.is_main_process:
            self.directory.write_evaluation(name, measured.record)
        accuracy = measured.figures["accuracy"]
        if accuracy is not None:
            self.accelerator.log({"evaluation/accuracy": accuracy["value"]}, step=self.state.step)
        self.hooks.call("on_evaluation", self, EvaluationRecord(name, self.state.step, measured.figures))

    def save(self) -> None:
        """Write a checkpoint of the run as it is. Every process calls this."""
        parts = self.parts
        path = self.checkpointer.save(
            self.state,
            parts.policy,
            parts.model,
            parts.tokenizer,
            parts.optimizer,
            parts.schedule,
            self.prefetched(),
        )
        self._saved_step = self.state.step
        self.hooks.call("on_save", self, path)

    @property
    def goes_on(self) -> bool:
        """The state of the run between two steps: true while there is another one to do."""
        return self.ending is Ending.GO_ON

    def finish_early(self) -> None:
        """Let this step be the last: the run is evaluated, saved and summed up after it. A hook may call
        this; after an evaluation or a checkpoint, it is the next step.
        """
        self._ends_early = True

    def close(self) -> None:
        """End what the run holds besides memory, such as the processes of rewards. The end of `steps` calls
        this.
        """
        self.checked.close()

    def _agreed_ending(self) -> Ending:
        """Return how to go on, the same in every process: one that is to stop stops all."""
        wish = Ending.GO_ON
        if self._ends_early or self.state.step >= self.recipe.max_steps:
            wish = Ending.FINISH
        if self._interrupt.requested or self.hooks.failure is not None:
            wish = Ending.STOP
        return Ending(max_over_processes(self.accelerator, wish))

    def _is_time(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def log(self, result: Result) -> None:
        """Write and show what the step did."""
        step, logging = self.state.step, self.recipe.logging
        if self.accelerator.is_main_process:
            self.directory.append_metrics({"step": step, "epoch": self.parts.order.epoch, **result.metrics})
            self.display.step(step, result.metrics)
            for message in self.messages(result):
                self.display.message(message)
        self.accelerator.log(result.metrics, step=step)
        if self._is_time(logging.completions_every):
            rows = gather_shares(self.accelerator, self.completion_rows(result))
            if self.accelerator.is_main_process:
                self.directory.write_completions(step, sorted(rows, key=lambda row: row["slot"]))
                self.display.show_completions(step, self.shown_completions(result))

    def _finish(self) -> None:
        """Write summary.json and curves.png, and print what a person wants to see at the end."""
        if not self.accelerator.is_main_process:
            return
        start = {"run_name": self.recipe.run_name, "seed": self.recipe.seed, "steps": self.state.step}
        measured = {"training_seconds": self.state.seconds, "refused": trial_report(self.trials)}
        self.directory.write_summary({**start, **measured, **self.summary()})
        figures = {record["step"]: record for record in self.state.evaluations.values()}
        title = f"{self.recipe.run_name} (seed {self.recipe.seed})"
        save_curves(self.directory.curves_path, self.directory.read_metrics(), figures, title, self.panels)
        self.conclude(self.state.evaluations.get("before"), self.state.evaluations.get("after"))
        console = self.display.console
        console.print(
            f"{self.state.step} steps in {format_seconds(self.state.seconds)}. In {self.directory.path}:"
        )
        console.print(
            f"  checkpoints/ (loads with {self.loads_with}), summary.json, curves.png, metrics.jsonl, "
            f"completions/, evaluations/"
        )

    def _leave(self) -> None:
        """Save what a stopped run has not saved yet, call the last hooks, and let the processes part."""
        if self.ending is Ending.STOP and self.state.step:
            if self._saved_step != self.state.step:
                self.save()
            self.display.message(
                f"Stopped after step {self.state.step}; everything is saved. Go on with the same command and "
                f"--resume."
            )
        self.hooks.call("on_end", self, RunEnd(self.state.step, self.ending is Ending.FINISH))
        leave_together(self.accelerator)

    def _greet(self) -> None:
        self.display.message(self.greeting())
        if self.state.step:
            self.display.message(f"Going on after step {self.state.step}.")
        if self.directory.was_renamed(self.recipe.run_name):
            self.display.message(
                f"The name {self.recipe.run_name} was taken, so this run is {self.directory.path.name}; "
                f"nothing was overwritten."
            )


AnyRun = TrainingRun[Any, Any, Any, Any]
"""A run of any command."""
