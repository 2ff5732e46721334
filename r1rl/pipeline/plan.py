"""The plan of a pipeline: for each stage an action and its reason, from its inputs, its record and its
folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from r1rl.pipeline.hashing import HASH, Hashes, Inputs, recipe_inputs
from r1rl.pipeline.stage import Stage, load_stage
from r1rl.pipeline.state import PipelineState, Record

SHOWN_DIFFERENCES = 2


class Action(StrEnum):
    """The action that is taken with a stage."""

    RUN = "run"
    RESUME = "resume"
    NOTE = "note"
    """The action for a stage whose command did everything before the pipeline was killed: write that down."""
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """The action that is taken with one stage, and its reason."""

    stage: Stage
    action: Action
    why: str
    recipe: Any
    inputs: Inputs | None
    """The inputs; None where a stage must run first whose output is one of them."""


def make_plan(stages: Sequence[Stage], state: PipelineState, hashes: Hashes) -> list[Decision]:
    """Return a decision for every stage, in their order, as far as it can be told before any has run."""
    plan: dict[str, Decision] = {}
    for stage in stages:
        awaited = [name for name in stage.needs if plan[name].action in (Action.RUN, Action.RESUME)]
        if awaited:
            recipe, record = load_stage(stage, stages), state.records.get(stage.name)
            again = "again " if record is not None and record.state == "finished" else ""
            plan[stage.name] = Decision(stage, Action.RUN, f"{again}after {', '.join(awaited)}", recipe, None)
        else:
            plan[stage.name] = decide(stage, stages, state, hashes)
    return list(plan.values())


def decide(stage: Stage, stages: Sequence[Stage], state: PipelineState, hashes: Hashes) -> Decision:
    """Return the decision for a stage, all of whose inputs exist."""
    recipe = load_stage(stage, stages)
    inputs = recipe_inputs(stage.command, recipe, stage.recipe_path, hashes)
    # What ran again, or ran elsewhere, is another input even where its result happens to be the same.
    inputs.values.update(
        {f"stage {name}": state.records[name].fingerprint for name in stage.needs if name in state.records}
    )
    action, why = _action(stage, state.records.get(stage.name), inputs)
    return Decision(stage, action, why, recipe, inputs)


def _action(stage: Stage, record: Record | None, inputs: Inputs) -> tuple[Action, str]:
    if record is None:
        return Action.RUN, "first run"
    changed = "" if record.fingerprint == inputs.fingerprint else differences(record.inputs, inputs.values)
    if record.state == "finished":
        if changed:
            return Action.RUN, f"changed: {changed}"
        lacking = stage.lacks()
        return (
            (Action.RUN, f"its output is gone: {', '.join(lacking)}")
            if lacking
            else (Action.SKIP, "same inputs")
        )
    happened = {"failed": "failed", "interrupted": "was stopped"}.get(record.state, "was killed")
    if changed:
        return Action.RUN, f"{happened}, and changed: {changed}"
    if stage.has_everything():
        return Action.NOTE, "had finished when the pipeline was killed"
    if stage.record.continuation == "by itself":
        return Action.RESUME, f"{happened}; goes on with what is missing"
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        return Action.RESUME, f"{happened}; goes on from {checkpoint.name}"
    no_checkpoint = " before its first checkpoint" if stage.record.continuation == "from a checkpoint" else ""
    return Action.RUN, f"{happened}{no_checkpoint}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the first few differences between two sets of inputs, in words."""
    found = []
    for key in dict.fromkeys([*new, *old]):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key.startswith("stage "):
            found.append(f"{key.removeprefix('stage ')} ran again")
        elif HASH in str(before) and HASH in str(after):
            found.append(f"{key} has other content")
        else:
            found.append(f"{key}: {_short(before)} -> {_short(after)}")
    more = f" and {len(found) - SHOWN_DIFFERENCES} more" if len(found) > SHOWN_DIFFERENCES else ""
    return ", ".join(found[:SHOWN_DIFFERENCES]) + more


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    if HASH in text:
        return "a file"
    return text if len(text) <= 40 else f"{text[:37]}..."
