"""An evaluation with a scripted engine: figures, ungraded samples, the same samples however the problems are
spread.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_evaluate_scores import config, prompt, samples

from r1rl.config.schema import RewardConfig
from r1rl.objective.sampling import Sampling
from r1rl.rewards import RewardSet
from r1rl.scoring.completions import ScoredCompletion, ScoredProblem, Traits
from r1rl.scoring.figures import figures as figures_of
from r1rl.scoring.grades import grade_problems
from r1rl.scoring.held_out import evaluate
from r1rl.scoring.intervals import over_problems, over_samples
from r1rl.scoring.record import Evaluation, find_contrast
from r1rl.types import Completion, CompletionGroup, FinishReason, Problem, Prompt

REWARDS = """
def outcome(completions, answer, *, events):
    events.update({"grading/timeout": sum(c == "timeout" for c in completions)})
    return [None if c == "timeout" else float(c.split()[-1] == a) for c, a in zip(completions, answer)]

def format(completions):
    return [1.0 if "so" in c else 0.5 for c in completions]
"""


class ScriptedEngine:
    """Answers each prompt with a script: (text, number of tokens, finish reason) for each sample. Groups come
    last first.
    """

    name = "scripted"
    reason = "a test"

    def __init__(self, script: dict[int, list[tuple[str, int, FinishReason]]]) -> None:
        self.script = script

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[CompletionGroup]:
        for index in reversed(range(len(prompts))):
            answers = self.script[prompts[index][0]][:num_generations]
            yield CompletionGroup(
                index,
                [Completion([1] * length, [-1.0] * length, text, reason) for text, length, reason in answers],
            )

    def refresh(self) -> None: ...


class RandomEngine:
    """Draws one of two answers from the seed that it is given."""

    name = "random"
    reason = "a test"

    def generate(
        self, prompts: Sequence[Sequence[int]], num_generations: int, sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[CompletionGroup]:
        for index, seed in enumerate(seeds):
            draw = random.Random(seed)
            texts = [draw.choice(["4", "5"]) for _ in range(num_generations)]
            yield CompletionGroup(index, [Completion([1], [-1.0], text, FinishReason.EOS) for text in texts])

    def refresh(self) -> None: ...


@pytest.fixture
def rewards(tmp_path: Path) -> Iterator[RewardSet]:
    file = tmp_path / "scripted_rewards.py"
    file.write_text(REWARDS)
    configs = [RewardConfig(function=f"{file}:outcome"), RewardConfig(function=f"{file}:format")]
    made = RewardSet(configs, "outcome", tmp_path, {"answer", "problem"})
    yield made
    made.close()


SAMPLING = Sampling(max_completion_length=50, temperature=0.5, eos_token_ids=(0,))
EOS, LENGTH = FinishReason.EOS, FinishReason.LENGTH
SCRIPT = {
    # problem 0 (answer 4): three of four right, one of which checks itself
    0: [("so 4", 10, EOS), ("wait, let me check: 4", 30, EOS), ("4", 5, EOS), ("so 9", 15, LENGTH)],
    # problem 1 (answer 5): one right, one wrong, two that the grader could not tell
    1: [("5", 20, EOS), ("6", 20, EOS), ("timeout", 50, LENGTH), ("timeout", 50, LENGTH)],
    # problem 2 (answer 7): nothing graded
    2: [("timeout", 50, LENGTH)] * 4,
}


def make_prompts(*answers: str) -> list[Prompt]:
    return [
        Prompt(Problem(f"id-{i}", f"problem {i}", answer), f"Q{i}", [i]) for i, answer in enumerate(answers)
    ]


def test_figures(rewards: RewardSet) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        ScriptedEngine(SCRIPT),
        make_prompts("4", "5", "7"),
        rewards,
        4,
        SAMPLING,
        0,
        lambda *at: seen.append(at),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [problem.id for problem in found.problems] == ["id-0", "id-1", "id-2"]
    figures = found.figures()
    # Ungraded samples are in no accuracy: problem 0 has 3/4, problem 1 has 1/2 of its two graded ones,
    # problem 2 none.
    assert figures["accuracy"] == {"value": 0.625, "ci95": list(over_problems([0.75, 0.5]))}
    assert figures["accuracy_ci95_same_problems"] == list(over_samples([0.75, 0.5], [4, 2]))
    assert (figures["num_problems"], figures["num_samples"], figures["num_undecided"]) == (3, 4, 6)
    assert figures["events"] == {"grading/timeout": 6}
    # pass@1 = (3/4 + 1/2) / 2; pass@2: 1 - C(1,2)/C(4,2) = 1 and 1 - C(1,2)/C(2,2) = 1; pass@4 of problem 0
    # alone
    assert [figures[f"pass_at_{k}"]["value"] for k in (1, 2, 4)] == [0.625, 1.0, 1.0]
    assert figures["pass_at_4"]["ci95"] is None
    # lengths: problem means (10 + 30 + 5 + 15)/4 = 15, 140/4 = 35, 50
    assert figures["mean_length"]["value"] == pytest.approx(100 / 3)
    assert figures["truncated_rate"]["value"] == pytest.approx((0.25 + 0.5 + 1.0) / 3)
    assert figures["reflection_rate"]["value"] == pytest.approx(0.25 / 3)
    assert figures["well_formed_rate"]["value"] == pytest.approx(
        0.5 / 3
    )  # two of problem 0's four have the full value


def test_nothing_graded_is_no_accuracy_of_zero(rewards: RewardSet) -> None:
    prompt = Prompt(Problem("a", "p", "7"), "Q", [2])
    figures = evaluate(ScriptedEngine(SCRIPT), [prompt], rewards, 4, SAMPLING, 0).figures()
    assert figures["accuracy"] is None and figures["pass_at_1"] is None
    assert figures["mean_length"] == {"value": 50.0, "ci95": None}
    assert figures["num_undecided"] == 4


def test_no_format_reward_is_no_rate_of_well_formed_ones() -> None:
    problem = answered("a", ("4", 1.0, False))
    figures = Evaluation([problem], 1, 0, {}).figures()
    assert figures["well_formed_rate"] is None
    assert figures["accuracy"] == {"value": 1.0, "ci95": None}


def test_record_survives_json(rewards: RewardSet) -> None:
    found = evaluate(ScriptedEngine(SCRIPT), make_prompts("4", "5", "7"), rewards, 4, SAMPLING, 3)
    record = json.loads(json.dumps(found.as_json(), allow_nan=False))
    again = Evaluation.from_json(record)
    assert again.figures() == found.figures() == record["figures"]
    assert again.problems == found.problems
    assert (again.seed, record["sampling"]["temperature"]) == (3, 0.5)


def test_an_evaluation_of_an_earlier_version_is_still_read() -> None:
    """A run that was begun with it goes on, and its end shows the figures from before."""
    sample = {
        "text": "so 4", "length": 3, "finish_reason": "length", "outcome": 1.0,
        "rewards": {"format": 0.5, "outcome": 1.0}, "reflects": True, "language": 0.75,
    }  # fmt: skip
    undecided = {**sample, "outcome": None, "rewards": {"format": 1.0, "outcome": None}, "language": None}
    problem = {
        "id": "a", "problem": "p", "answer": "4", "prompt": "Q", "samples": [sample, undecided],
        "events": {"grading/timeout": 1}, "has_outcome": True, "values": {"domain": "maths"},
    }  # fmt: skip
    record = {"problems": [problem], "num_samples": 2, "seed": 1, "sampling": {}, "figures": {}}
    found = Evaluation.from_json(record)
    first, second = found.problems[0].samples
    assert (first.correct, first.num_tokens, first.is_truncated, first.well_formed) == (True, 3, True, False)
    assert (second.correct, second.well_formed, second.sample) == (None, True, 1)
    assert found.problems[0].groups == {"domain": "maths"}
    figures = found.figures()
    assert figures["accuracy"] == {"value": 1.0, "ci95": None} and figures["num_undecided"] == 1
    assert figures["language_consistency"]["value"] == 0.75 and figures["well_formed_rate"]["value"] == 0.5


def test_runs_and_the_command_have_the_same_figures(rewards: RewardSet) -> None:
    within = evaluate(ScriptedEngine(SCRIPT), make_prompts("4", "5", "7"), rewards, 4, SAMPLING, 0).figures()
    graded = grade_problems(config(), [prompt("4")], [samples("\\boxed{4}", "\\boxed{5}", "x", "y")])
    command = figures_of(graded, 4, 64)
    assert within.keys() == command.keys() - {"by_limit"}
    assert within["rates"].keys() == command["rates"].keys()
    assert within["correct"].keys() == command["correct"].keys()


def test_events_tell_outcomes_where_there_is_one_for_each_completion() -> None:
    one = answered("a", ("x", 1.0, False), ("y", 0.0, False), ("z", None, False))
    told = replace(one, events={"grading/correct": 1, "grading/no_answer": 1, "grading/timeout": 1})
    figures = figures_of([told], 3)
    assert figures["outcomes"]["no_answer"] == 1 and figures["rates"]["extraction_failure"] == 1 / 3
    assert figures["rates"]["truncated_without_answer"] is None  # which completion it was is not known
    for events in ({}, {"grading/timeout": 1}, {"grading/correct": 2, "grading/wrong": 2}):
        figures = figures_of([replace(one, events=events)], 3)
        assert not any(figures["outcomes"].values()) and figures["rates"]["wrong"] is None


def test_samples_do_not_depend_on_how_the_problems_are_spread(rewards: RewardSet) -> None:
    prompts = make_prompts(*["4"] * 12)
    engine = RandomEngine()
    whole = evaluate(engine, prompts, rewards, 4, SAMPLING, 0).problems
    shares = [evaluate(engine, prompts[rank::2], rewards, 4, SAMPLING, 0).problems for rank in range(2)]

    def gather(own: list[ScoredProblem]) -> list[ScoredProblem]:
        return [problem for pair in zip(own, shares[1], strict=True) for problem in pair]

    assert evaluate(engine, prompts[0::2], rewards, 4, SAMPLING, 0, gather=gather).problems == whole
    assert evaluate(engine, prompts[5:6], rewards, 4, SAMPLING, 0).problems == whole[5:6]
    assert evaluate(engine, prompts, rewards, 4, SAMPLING, 1).problems != whole
    assert len({tuple(sample.text for sample in problem.samples) for problem in whole}) > 3


def answered(identity: str, *samples: tuple[str, float | None, bool]) -> ScoredProblem:
    """Return a problem whose completions have a text, an outcome reward and reflect or not."""
    completions = [
        ScoredCompletion(
            place,
            text,
            1,
            "eos",
            None if outcome is None else outcome >= 1.0,
            Traits(reflects, None, None),
            rewards={"outcome": outcome},
        )
        for place, (text, outcome, reflects) in enumerate(samples)
    ]
    return ScoredProblem(identity, f"problem {identity}", "4", "Q", completions)


def test_contrast_shows_what_was_learnt() -> None:
    def evaluation(*problems: ScoredProblem) -> Evaluation:
        return Evaluation(list(problems), 2, 0, {})

    before = evaluation(
        answered("a", ("right", 1.0, False), ("right", 1.0, False)),
        answered("b", ("wrong b", 0.0, False), ("right", 1.0, False)),
        answered("c", ("right", 1.0, False), ("wrong c", 0.0, False)),
    )
    after = evaluation(
        answered("new", ("right", 1.0, True), ("right", 1.0, True)),
        answered("a", ("right", 1.0, True), ("right", 1.0, True)),  # nothing was wrong before
        answered("b", ("right", 1.0, False), ("right", 1.0, False)),  # learnt, without reflection
        answered("c", ("plain", 1.0, False), ("check: right", 1.0, True)),
    )
    contrast = find_contrast(before, after)
    assert contrast is not None
    assert (contrast.problem, contrast.before, contrast.after) == ("problem c", "wrong c", "check: right")
    assert (contrast.before_is_correct, contrast.after_is_correct) == (False, True)
    assert find_contrast(before, evaluation(answered("other", ("x", 0.0, False)))) is None
    unlearnt = find_contrast(
        evaluation(answered("a", ("x", None, False))), evaluation(answered("a", ("y", 0.0, False)))
    )
    assert unlearnt is not None and (unlearnt.before_is_correct, unlearnt.after_is_correct) == (False, False)


def test_figures_by_the_values_of_a_column(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    file.write_text(REWARDS)
    configs = [
        RewardConfig(function=f"{file}:outcome", where={"domain": "reasoning"}),
        RewardConfig(function=f"{file}:format"),
    ]
    by_domain = RewardSet(configs, "outcome", tmp_path, {"problem", "answer", "domain"})
    script = {
        0: [("so 4", 2, FinishReason.EOS), ("5", 1, FinishReason.EOS)],
        1: [("so hello", 4, FinishReason.EOS), ("so bye", 6, FinishReason.EOS)],
    }
    prompts = [
        Prompt(
            Problem(str(index), "?", "4" if domain == "reasoning" else None, {"domain": domain}), "?", [index]
        )
        for index, domain in enumerate(["reasoning", "helpfulness"])
    ]
    evaluation = evaluate(ScriptedEngine(script), prompts, by_domain, 2, Sampling(max_completion_length=8), 0)
    figures = json.loads(json.dumps(evaluation.figures()))
    assert figures["accuracy"]["value"] == 0.5
    assert figures["num_undecided"] == 0
    reasoning, helpful = (figures["by_value"]["domain"][name] for name in ("reasoning", "helpfulness"))
    assert (
        reasoning["accuracy"]["value"],
        reasoning["well_formed_rate"]["value"],
        reasoning["mean_length"]["value"],
    ) == (0.5, 0.5, 1.5)
    assert (helpful["accuracy"], helpful["well_formed_rate"]["value"], helpful["num_problems"]) == (
        None,
        1.0,
        1,
    )
    assert helpful["rewards"] == {"outcome": None, "format": {"value": 1.0, "ci95": None}}
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.as_json()))).problems == evaluation.problems
