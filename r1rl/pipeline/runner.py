"""The runner of a pipeline: one stage after the other as the plan says, with a record of what made each."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from r1rl import __version__
from r1rl.compute.environment import git_revision
from r1rl.errors import UserError
from r1rl.monitor.progress import format_seconds
from r1rl.pipeline.hashing import Hashes
from r1rl.pipeline.plan import Action, Decision, decide
from r1rl.pipeline.processes import run_process
from r1rl.pipeline.stage import Stage, command_line
from r1rl.pipeline.state import PipelineState, Record
from r1rl.runs.run_directory import RunDirectory

PROVENANCE = "provenance.json"
LOG = "stage.log"


class Runner:
    """One run of a pipeline."""

    def __init__(
        self, stages: Sequence[Stage], state: PipelineState, hashes: Hashes, console: Console
    ) -> None:
        self.stages = stages
        self.state = state
        self.hashes = hashes
        self.console = console
        self.git = git_revision()
        self.reached: set[str] = set()
        """The stages whose turn has come in this run."""

    def run(self) -> None:
        """Run every stage that is not finished with its inputs. Raises UserError when one fails; those before
        it stay finished.
        """
        for number, stage in enumerate(self.stages, start=1):
            self.reached.add(stage.name)
            decision = decide(stage, self.stages, self.state, self.hashes)
            self.hashes.save()
            if decision.action is Action.SKIP:
                continue
            self.console.rule(
                Text(f"stage {number} of {len(self.stages)}: {stage.name} ({decision.why})"), align="left"
            )
            if decision.action is not Action.NOTE:
                self._execute(decision)
            self._finish(stage)

    def _execute(self, decision: Decision) -> None:
        stage, resume = decision.stage, decision.action is Action.RESUME
        if not resume:
            place = self.state.set_aside(stage)
            if place is not None:
                self.console.print(Text(f"What {stage.name} had left is kept in {place}."), soft_wrap=True)
        record = self._begin(decision, resume)
        words = command_line(stage, self.stages, resume and stage.checkpoint() is not None)
        self.console.print(Text(shlex.join(words), style="dim"), soft_wrap=True)
        started = time.monotonic()
        record.state = "interrupted"
        try:
            code = run_process(words, stage.folder, self.state.log_path(stage))
            record.state = "running" if code == 0 else "failed"
        finally:
            record.seconds += time.monotonic() - started
            self.state.save()
        if code != 0 or stage.lacks():
            raise UserError(self._failure(stage, code))

    def _begin(self, decision: Decision, resume: bool) -> Record:
        """Write down that a stage is started, before it is."""
        assert decision.inputs is not None  # they are known when a stage's turn comes
        former, now = (
            self.state.records.get(decision.stage.name),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if resume and former is not None:
            record = former
            record.attempts += 1
            record.state = "running"
        else:
            inputs = decision.inputs
            record = Record("running", inputs.fingerprint, inputs.values, inputs.files, now)
            if former is not None:
                record.former_seconds = (
                    former.seconds if former.state == "finished" else former.former_seconds
                )
        record.revision = revision(self.git)
        self.state.records[decision.stage.name] = record
        self.state.save()
        return record

    def _finish(self, stage: Stage) -> None:
        """Write down that a stage is finished: first in its folder, then in pipeline.json."""
        record = self.state.records[stage.name]
        record.finished = datetime.now(UTC).isoformat(timespec="seconds")
        found = {name: stage.output(name) for name in stage.record.outputs}
        outputs = {name: path for name, path in found.items() if path is not None}
        record.outputs = {name: str(path.relative_to(stage.folder)) for name, path in outputs.items()}
        record.summary = stage.summary()
        hashes = {name: self.hashes.of(path) for name, path in outputs.items()}
        made = provenance(stage, self.stages, record, hashes, self.git)
        RunDirectory(stage.folder).write_json(stage.folder / PROVENANCE, made)
        log = self.state.log_path(stage)
        if log.is_file():
            log.replace(stage.folder / LOG)
        record.state = "finished"
        self.state.save()
        self.hashes.save()
        self.console.print(f"{stage.name} took {format_seconds(record.seconds)}.")

    def _failure(self, stage: Stage, code: int) -> str:
        log = self.state.log_path(stage)
        if code == 0:
            lacking = ", ".join(stage.lacks())
            return (
                f"stage {stage.name} ended without an error, but {stage.folder} lacks {lacking}; see {log}."
            )
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        memory = " (often: no memory left)" if code == -9 else ""
        return (
            f"stage {stage.name} {how}{memory}; what it said is above and in {log}. Once mended, the same "
            f"command goes on here."
        )


def provenance(
    stage: Stage, stages: Sequence[Stage], record: Record, outputs: dict[str, str], git: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what made a stage's output, as JSON values: the command, its inputs, their origin, the code and
    the times.
    """
    sources = {key: {"path": path, "content": record.inputs[key]} for key, path in record.files.items()}
    for source in sources.values():
        maker = next((one.name for one in stages if _is_within(source["path"], one)), None)
        if maker is not None:
            source["stage"] = maker
    return {
        "stage": stage.name,
        "command": stage.command,
        "command_line": command_line(stage, stages, resume=False),
        "recipe": str(stage.recipe_path),
        "fingerprint": record.fingerprint,
        "inputs": record.inputs,
        "files": sources,
        "stages": {name: record.inputs.get(f"stage {name}") for name in stage.needs},
        "outputs": {
            name: {"path": record.outputs[name], "content": content} for name, content in outputs.items()
        },
        "r1rl": __version__,
        "git": git,
        "started": record.started,
        "finished": record.finished,
        "seconds": round(record.seconds, 3),
        "attempts": record.attempts,
    }


def revision(git: dict[str, Any] | None) -> str:
    """Return the version of r1rl, and in a checkout its commit: "0.1.0 3f0c2ab", with a + where files have
    changed since.
    """
    return (
        __version__
        if git is None
        else f"{__version__} {git['commit'][:7]}{'+' if git['has_changes'] else ''}"
    )


def _is_within(path: str, stage: Stage) -> bool:
    return str(path) == str(stage.folder) or str(path).startswith(f"{stage.folder}/")
