"""The checks of an SFT recipe before its model is loaded, and the rows that a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from r1rl.data import column_names
from r1rl.preflight.problems import read_held_out
from r1rl.preflight.settings import check_model_folder, check_template, check_trackers
from r1rl.rewards import RewardSet
from r1rl.runs.inputs import NOTHING, Given
from r1rl.runs.rows import SharedRows
from r1rl.runs.run_directory import check_writable
from r1rl.sft.recipe import SFTRecipe
from r1rl.types import Problem


@dataclass(frozen=True, slots=True)
class TokenizedRows:
    """The demonstrations as the model reads them."""

    tokenizer: PreTrainedTokenizerBase
    rows: SharedRows


@dataclass(frozen=True, slots=True)
class SFTPreflight:
    """The data and rewards that a run starts from. The rewards hold worker processes: call `close()` when
    done.
    """

    evaluation_problems: list[Problem]
    rewards: RewardSet | None
    """The rewards that score the held-out answers; None: there are no held-out problems."""
    messages: list[str] = field(default_factory=list)
    """Sentences about demonstrations that are not used."""
    tokenized: TokenizedRows | None = None
    """The demonstrations; None before a run is launched."""

    def close(self) -> None:
        """End the rewards' processes."""
        if self.rewards is not None:
            self.rewards.close()


def preflight(recipe: SFTRecipe, recipe_path: Path, given: Given = NOTHING) -> SFTPreflight:
    """Check what needs neither tokenizer nor demonstrations.

    Raises a UserError with the file, the key and the remedy at the first thing that can't work.
    """
    check_writable(recipe.output_dir)
    if given.model is None:
        check_model_folder(recipe.model.path)
    check_trackers(recipe.logging)
    check_template(recipe.prompt.template)
    held_out = read_held_out(recipe.evaluation, given.evaluation_rows).problems
    if not held_out:
        return SFTPreflight([], None)
    columns = column_names(held_out)
    return SFTPreflight(
        held_out, RewardSet(recipe.rewards, recipe.outcome, recipe_path.parent, columns, given.functions)
    )
