"""The accuracy of each habit of a model: the table from which the curves of a later RL run follow.

The model answers held-out problems as an RL run would ask them, in tags. Each completion is sorted by the
habit that its thought shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl import problems
from r1rl.config.schema import PromptConfig, RewardConfig
from r1rl.objective.sampling import Sampling
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.problems.habits import HABITS, LANGUAGES
from r1rl.rewards import RewardSet
from r1rl.rollout import EngineSetup, make_engine
from r1rl.scoring.estimators import pass_at_k
from r1rl.seeds import derive_seed
from r1rl.text.prompts import PromptTemplate
from r1rl.types import Completion, Prompt

PROMPT = PromptConfig(template="plain", prefill=" <think>")
"""The form in which the problems are asked."""
_CALCULATION = re.compile(r"=\s*-?\d")
_WHOLE_NUMBER = re.compile(r"</think>\s*<answer>\s*(-?\d+)\s*</answer>")


@dataclass(frozen=True, slots=True)
class HabitTable:
    """The score of a model on one task, as a whole and by habit."""

    task: str
    num_problems: int
    num_samples: int
    pass_at: dict[int, float]
    """The values of pass@1, which is the accuracy, and pass@(number of samples)."""
    mean_length: float
    """The mean number of tokens, EOS included."""
    shares: dict[str, float]
    """The share of each habit among the completions."""
    accuracies: dict[str, float | None]
    """The accuracy of each habit's completions, None if it does not occur."""
    lengths: dict[str, float | None]
    """The mean number of tokens of each habit's completions."""

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return habit, share, accuracy and mean length, as text; the last row is all habits together."""
        rows = [
            (
                habit,
                f"{self.shares[habit]:.1%}",
                _text(self.accuracies[habit], "{:.1%}"),
                _text(self.lengths[habit], "{:.1f}"),
            )
            for habit in HABITS
        ]
        return [*rows, ("all", "100%", f"{self.pass_at[1]:.1%}", f"{self.mean_length:.1f}")]

    def as_rich(self) -> Table:
        """Return the table for a terminal."""
        title = f"{self.task}, {self.num_problems} held-out problems x {self.num_samples}"
        table = Table("habit", "share", "accuracy", "length", title=title)
        for row in self.rows():
            table.add_row(*row)
        return table

    def as_json(self) -> dict[str, Any]:
        """Return the figures for summary.json."""
        return {
            "num_problems": self.num_problems,
            "num_samples": self.num_samples,
            **{f"pass_at_{k}": value for k, value in self.pass_at.items()},
            "mean_length": self.mean_length,
            "habits": {
                habit: {
                    "share": self.shares[habit],
                    "accuracy": self.accuracies[habit],
                    "mean_length": self.lengths[habit],
                }
                for habit in HABITS
            },
        }


def habit_of(text: str) -> str:
    """Return the habit that a completion shows.

    It is `checked` if the completion compares a result, `worked` if it calculates, else `direct`.
    """
    if any(remarks.check in text for remarks in LANGUAGES.values()):
        return "checked"
    return "worked" if _CALCULATION.search(text) else "direct"


def measure_habits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    arguments: dict[str, Any],
    recipe: PretrainRecipe,
    base_dir: Path,
) -> HabitTable:
    """Sample answers to held-out problems of a task at temperature 1 and sort them by habit."""
    held_out = problems.generate(task, "test", recipe.seed, count=recipe.measured_problems, **arguments)
    prompts = PromptTemplate(PROMPT, tokenizer).render_batch(held_out)
    room = recipe.sequence_length - max(len(prompt.token_ids) for prompt in prompts)
    sampling = Sampling(max_completion_length=room, eos_token_ids=(int(tokenizer.eos_token_id),))
    seeds = [derive_seed(recipe.seed, "habits", prompt.problem.id) for prompt in prompts]
    groups = make_engine("auto", EngineSetup(model, tokenizer, dtype=torch.float32)).generate(
        [prompt.token_ids for prompt in prompts], recipe.measured_samples, sampling, seeds
    )
    by_prompt = {group.index: group.completions for group in groups}
    asked = [(prompts[index], completion) for index in sorted(by_prompt) for completion in by_prompt[index]]
    right = _outcomes(task, asked, room, base_dir)
    answers = [(habit_of(completion.text), len(completion.token_ids)) for _, completion in asked]
    return summarize(task, answers, right, recipe.measured_samples)


def summarize(
    task: str, answers: Sequence[tuple[str, int]], right: Sequence[bool], num_samples: int
) -> HabitTable:
    """Return the table of answers (habit, length), `num_samples` of them for each problem, one problem after
    the other.
    """
    groups = [right[start : start + num_samples] for start in range(0, len(right), num_samples)]
    chosen = {habit: [i for i, (one, _) in enumerate(answers) if one == habit] for habit in HABITS}
    return HabitTable(
        task=task,
        num_problems=len(groups),
        num_samples=num_samples,
        pass_at={
            k: fmean(pass_at_k(num_samples, sum(group), k) for group in groups) for k in (1, num_samples)
        },
        mean_length=fmean(length for _, length in answers),
        shares={habit: len(rows) / len(answers) for habit, rows in chosen.items()},
        accuracies={habit: fmean(right[i] for i in rows) if rows else None for habit, rows in chosen.items()},
        lengths={
            habit: fmean(answers[i][1] for i in rows) if rows else None for habit, rows in chosen.items()
        },
    )


def _outcomes(task: str, asked: Sequence[tuple[Prompt, Completion]], room: int, base_dir: Path) -> list[bool]:
    """Return whether each answer is right.

    Countdown answers are expressions, for its reward to evaluate; those of the other tasks are whole numbers.
    """
    if task != "countdown":
        found = [_WHOLE_NUMBER.search(completion.text) for _, completion in asked]
        return [
            match is not None and match[1] == prompt.problem.answer
            for match, (prompt, _) in zip(found, asked, strict=True)
        ]
    rewards = RewardSet([RewardConfig(function="countdown")], None, base_dir, {"numbers", "target"})
    result = rewards.score(
        [prompt for prompt, _ in asked], [completion for _, completion in asked], room, PROMPT.prefill
    )
    rewards.close()
    return [outcome == 1.0 for outcome in result.outcome]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
