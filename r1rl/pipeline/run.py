"""`r1rl pipeline RECIPE`: check every stage, run what is not finished, sum up.

runs/<name>/
  pipeline.json        the state of every stage
  <stage>/             what the stage's command leaves, with provenance.json and stage.log
  set-aside/           what stages had left before they ran again
  summary.json, report.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1rl.config.load import dump_recipe
from r1rl.pipeline.hashing import Hashes
from r1rl.pipeline.missing import check_files
from r1rl.pipeline.plan import Action, Decision, make_plan
from r1rl.pipeline.processes import clear_survivors
from r1rl.pipeline.recipe import PipelineRecipe
from r1rl.pipeline.runner import Runner
from r1rl.pipeline.stage import Stage, load_stage, make_stages
from r1rl.pipeline.state import PipelineState, locked
from r1rl.pipeline.status import (
    all_scores,
    plan_table,
    report_page,
    score_rows,
    score_table,
    status_rows,
    status_table,
)
from r1rl.runs.run_directory import RunDirectory, check_writable

FILE_WIDTH = 160
"""Columns of the output where it is printed to a file."""


def run(recipe: PipelineRecipe, recipe_path: Path, dry_run: str | None = None) -> None:
    """Run the pipeline, or with `dry_run` show what would be done. Raises UserError before anything starts
    where that is possible.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, FILE_WIDTH))
    stages = make_stages(recipe, recipe_path)
    for stage in stages:
        check_files(load_stage(stage, stages), stage, stages)
    folder = Path(recipe.output_dir) / recipe.run_name
    if dry_run is not None:
        show_plan(console, stages, folder, recipe_path)
        return
    PipelineState.read(
        folder, recipe_path
    )  # refuses a folder of something else before anything is written to it
    check_writable(folder)
    with locked(folder):
        clear_survivors(folder, console.print)
        state = PipelineState.read(folder, recipe_path)
        hashes = Hashes(folder / "hashes.json")
        plan = make_plan(stages, state, hashes)
        console.print(plan_table(plan, state))
        state.save()
        RunDirectory(folder).write_text(RunDirectory(folder).config_path, dump_recipe(recipe))
        runner = Runner(stages, state, hashes, console)
        try:
            runner.run()
        except KeyboardInterrupt:
            console.print(f"Stopped; what is finished is kept in {folder}. The same command goes on.")
            raise
        finally:
            finish(console, recipe.run_name, plan, state, runner.reached)


def show_plan(console: Console, stages: Sequence[Stage], folder: Path, recipe_path: Path) -> None:
    """Print the plan, for `--dry-run`. Writes nothing."""
    state = PipelineState.read(folder, recipe_path)
    memory = folder / "hashes.json"
    plan = make_plan(stages, state, Hashes(memory if memory.is_file() else None))
    console.print(plan_table(plan, state))
    counts = {action: sum(decision.action is action for decision in plan) for action in Action}
    words = [
        f"{counts[action]} to {action.value}"
        for action in (Action.RUN, Action.RESUME, Action.NOTE, Action.SKIP)
        if counts[action]
    ]
    console.print(f"{len(plan)} stages: {', '.join(words)}. Nothing was run.")


def finish(
    console: Console, name: str, plan: Sequence[Decision], state: PipelineState, reached: set[str]
) -> None:
    """Print the status table and the scores, and write summary.json and report.md."""
    rows = status_rows(plan, state, reached)
    found = all_scores([decision.stage for decision in plan], state)
    scored = score_rows(found)
    console.print(status_table(rows))
    if scored:
        console.print(score_table(scored))
    directory = RunDirectory(state.folder)
    directory.write_summary(
        {
            "run_name": name,
            "stages": {
                stage: {
                    "state": record.state,
                    "seconds": record.seconds,
                    "attempts": record.attempts,
                    "summary": record.summary,
                }
                for stage, record in state.records.items()
            },
            "scores": [asdict(score) for score in found],
        }
    )
    directory.write_text(state.folder / "report.md", report_page(name, rows, scored))
    console.print(
        Text(f"In {state.folder}: report.md, summary.json, and a folder for each stage."), soft_wrap=True
    )
