"""The example examples/grpo_flat.py is short, stands on its own, has the trainer's gradients, and runs."""

from __future__ import annotations

import ast
import copy
import importlib.util
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from update_helpers import LAYOUTS, VOCABULARY, build

from r1rl.config.schema import DataConfig, OptimizerConfig, RewardConfig, RolloutConfig
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.update import PolicyUpdate
from r1rl.monitor import metric_names as names
from r1rl.objective.advantages import group_advantages
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.sampling import Sampling
from r1rl.policy.batching import build_train_batch
from r1rl.policy.logprobs import PolicyForward
from r1rl.problems import split_of
from r1rl.rewards import countdown
from r1rl.rewards import format as format_reward
from r1rl.types import Completion, FinishReason

FILE = Path(__file__).resolve().parent.parent / "examples" / "grpo_flat.py"
EXACT = {
    "3*7+25": True,
    " 25 + 3 * 7 ": True,
    "\n25+3*7\n": True,
    "46\n25+3*7": False,
    "25+3*7\n46": False,
    "25+3*7;46": False,
    "(25+3*7)": True,
    "25-(-3)*7": True,
    "25+7/(1/3)": False,
    "25+3*7=46": None,
    "3*7+25+0": False,
    "46": False,
    "3*7": False,
    "3+7+25": False,
    "25+3*7*1": False,
    "7*3+25/1": False,
    "25//3*7": False,
    "3**7": False,
    "9**9**9**9": False,
    "25+3(7)": False,
    "25+3*7)": False,
    "()": False,
    "": False,
    "__import__('os')": False,
    "25+3*True": False,
    "2_5+3*7": False,
    "25.0+3*7": False,
    "25/(3-3)+7": False,
    "((((((((((25+3*7))))))))))": True,
}
"""Answers to "make 46 from 3, 7, 25"; None: the trainer's reward reads it, and the lesson does not."""
WRAPPED = (
    ("a </think> <answer>{}</answer>", True),
    ("a </think>\n\nIt is\n<answer>{}</answer> there", True),
    ("a <answer>{}</answer>", False),
    ("a </think> {}", False),
    ("a </think> <answer>{}", False),
    ("<answer>{}</answer> </think> none", False),
)
"""Completions around an answer, and whether it counts."""


@pytest.fixture(scope="module")
def flat() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grpo_flat", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embedded(flat: ModuleType) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return AutoModelForCausalLM.from_pretrained(flat.EMBEDDED), AutoTokenizer.from_pretrained(flat.EMBEDDED)


def test_is_short_and_stands_alone() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 110
    roots = set()
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(str(node.module).partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"torch", "transformers"}


def random_groups(flat: ModuleType, seed: int, num_groups: int = 3) -> list[list[object]]:
    """Return groups of four completions of 1 to 20 tokens; old logprobs are near what a random model
    gives.
    """
    generator = random.Random(seed)

    def tokens(lengths: list[int]) -> list[int]:
        return [generator.randrange(VOCABULARY) for _ in range(generator.choice(lengths))]

    groups = []
    for _ in range(num_groups):
        prompt_ids, group = tokens([1, 4, 9]), []
        for _ in range(4):
            token_ids = tokens([1, 2, 7, 20])
            old = [-3.4 + generator.gauss(0.0, 0.4) for _ in token_ids]
            group.append(flat.Completion(prompt_ids, token_ids, old))
        groups.append(group)
    return groups


def trainer_update(model: PreTrainedModel, layout: str, num_iterations: int) -> PolicyUpdate:
    """Return the trainer's update with the recipe's objective and plain gradient descent."""
    recipe = GRPORecipe(
        run_name="test",
        data=DataConfig(source="countdown"),
        rewards=[RewardConfig(function="countdown")],
        rollout=RolloutConfig(max_completion_length=20),
        algorithm=AlgorithmConfig(num_iterations=num_iterations),
        optimizer=OptimizerConfig(max_grad_norm=0.0),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    policy = PolicyForward(model, Sampling(max_completion_length=20), recipe.update.logprob_chunk)
    return PolicyUpdate(
        recipe, Accelerator(cpu=True), policy, None, [model], LAYOUTS[layout], optimizer, schedule, True
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_updates", [1, 2])
def test_gradients_are_those_of_the_trainer(flat: ModuleType, layout: str, num_updates: int) -> None:
    """Both take the same steps of gradient descent from the same weights, with ratios far enough from 1 that
    some are clipped.
    """
    model, groups = build("qwen3"), random_groups(flat, seed=5)
    theirs, start = copy.deepcopy(model), copy.deepcopy(model)
    rewards_PG = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    completions = [one for group in groups for one in group]
    batch = build_train_batch(
        [one.prompt_ids for one in completions],
        [Completion(one.token_ids, one.logprobs, "", FinishReason.EOS) for one in completions],
        group_advantages(rewards_PG.double(), AlgorithmConfig()).flatten(),
        with_sampler_logprobs=True,
        lagged=True,  # the ratio is then to the logprobs that came with the completions
    )
    metrics = trainer_update(theirs, layout, num_updates).run(batch)
    assert metrics[names.CLIP_RATIO_HIGH] > 0 and metrics[names.CLIP_RATIO_LOW] > 0

    num_tokens = sum(len(one.token_ids) for one in completions)
    for _ in range(num_updates):
        model.zero_grad()
        for group, advantages_G1 in zip(groups, flat.group_advantages(rewards_PG)[..., None], strict=True):
            (flat.group_loss(model, group, advantages_G1) / num_tokens).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.5 * parameter.grad)

    def step_of(trained: PreTrainedModel) -> torch.Tensor:
        pairs = zip(trained.parameters(), start.parameters(), strict=True)
        return torch.cat([(after - before).detach().flatten().double() for after, before in pairs])

    assert float(step_of(model).norm()) > 1e-2
    assert float((step_of(model) - step_of(theirs)).norm()) < 2e-5 * float(step_of(theirs).norm())


def test_with_one_update_the_gradient_is_that_of_the_logprobs(flat: ModuleType) -> None:
    """The trainer computes no old logprobs then; the lesson has those of the sampler, which are the same."""
    model, (group,) = build("qwen3"), random_groups(flat, seed=6, num_groups=1)
    theirs = copy.deepcopy(model)
    advantages_G = torch.tensor([1.0, -0.5, 0.25, -0.75])
    batch = build_train_batch(
        [one.prompt_ids for one in group],
        [Completion(one.token_ids, one.logprobs, "", FinishReason.EOS) for one in group],
        advantages_G,
    )
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer_update(theirs, "padded", 1).run(batch)
    sampled = [one._replace(logprobs=plain_logprobs(model, one)) for one in group]
    num_tokens = sum(len(one.token_ids) for one in group)
    (flat.group_loss(model, sampled, advantages_G[:, None]) / num_tokens).backward()
    pairs = zip(theirs.parameters(), before, strict=True)
    expected = torch.cat([(after - start).detach().flatten() for after, start in pairs])
    found = torch.cat([-0.5 * parameter.grad.flatten() for parameter in model.parameters()])
    assert float((found - expected).norm()) < 2e-5 * float(expected.norm())


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel, one: tuple[list[int], list[int], list[float]]) -> list[float]:
    """Return the logprobs of a completion's tokens, from one unpadded forward pass."""
    prompt_ids, token_ids, _ = one
    logits_TV = model(torch.tensor([prompt_ids + token_ids])).logits[0, len(prompt_ids) - 1 : -1]
    return logits_TV.log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()


def test_sampler_tells_the_logprobs_of_the_model(flat: ModuleType, embedded) -> None:
    """Prompts of different lengths, which are padded, and rows that leave the batch change nothing."""
    model, tokenizer = embedded
    problems = [
        flat.Problem(f"User: Make {target} from {rest}.\nAssistant: <think>", [], target)
        for target, rest in ((7, "2, 3, 4"), (100, "20, 19, 18"), (46, "3, 7, 25"))
        for _ in range(8)
    ]
    torch.manual_seed(0)
    completions, texts = flat.sample(model, tokenizer, [problem.prompt for problem in problems])
    lengths = [len(one.token_ids) for one in completions]
    assert len(set(lengths)) > 5
    for one, problem, text in zip(completions, problems, texts, strict=True):
        assert one.prompt_ids == tokenizer(problem.prompt).input_ids
        assert one.logprobs == pytest.approx(plain_logprobs(model, one), abs=2e-4)
        ended = one.token_ids[-1] == tokenizer.eos_token_id
        assert ended or len(one.token_ids) == flat.MAX_TOKENS
        assert one.token_ids.count(tokenizer.eos_token_id) == ended
        assert text == tokenizer.decode(one.token_ids[: -1 if ended else None])


def test_all_completions_may_end_at_once(flat: ModuleType, embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = embedded
    monkeypatch.setattr(torch.Tensor, "multinomial", lambda self, count: torch.zeros(len(self), 1).long())
    completions, texts = flat.sample(model, tokenizer, [flat.draw_problem(held_out=True).prompt] * 3)
    assert [one.token_ids for one in completions] == [[tokenizer.eos_token_id]] * 3
    assert texts == [""] * 3


def test_advantages_are_those_of_the_trainer(flat: ModuleType) -> None:
    rewards_PG = torch.tensor([[1.1, 0.0, 0.1, 1.0], [0.1, 0.1, 0.1, 0.1], [0.0, 0.0, 0.0, 1.1]])
    found = flat.group_advantages(rewards_PG)
    expected = group_advantages(rewards_PG, AlgorithmConfig())
    assert torch.allclose(found, expected, atol=1e-5)
    assert float(found[0].abs().min()) > 0.3


def test_problems_are_those_of_the_task(flat: ModuleType) -> None:
    random.seed(0)
    for held_out in (True, False) * 50:
        prompt, numbers, target = flat.draw_problem(held_out)
        assert split_of(f"countdown {sorted(numbers)} {target}") == ("test" if held_out else "train")
        assert prompt == f"User: Make {target} from {', '.join(map(str, numbers))}.\nAssistant: <think>"
        assert 1 <= target <= 100 and all(2 <= number <= 20 for number in numbers)
        a, b, c = map(str, numbers)
        orders = [(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)]
        answers = [f"({x}{f}{y}){g}{z}" for x, y, z in orders for f in "+-*" for g in "+-*"]
        problem = flat.Problem(prompt, numbers, target)
        assert any(flat.is_right(f" a </think> <answer>{answer}</answer>", problem) for answer in answers)


def trainers_countdown(text: str, problem: tuple[str, list[int], int]) -> bool:
    return countdown([text], [problem[1]], [problem[2]], prefill="<think>") == [1.0]


@pytest.mark.parametrize("answer", EXACT)
def test_answers_are_checked_as_by_the_trainers_reward(flat: ModuleType, answer: str) -> None:
    problem = flat.Problem("", [3, 7, 25], 46)
    for completion, counts in WRAPPED:
        text = completion.format(answer)
        assert flat.is_right(text, problem) == (counts and bool(EXACT[answer])), text
        if EXACT[answer] is not None:
            assert flat.is_right(text, problem) == trainers_countdown(text, problem), text


def test_a_number_may_not_stand_apart(flat: ModuleType) -> None:
    problem = flat.Problem("", [3, 7, 25], 21)
    for answer in ("3*7\n25", "3*7 25", "3*7, 25", "3*7\n+25"):
        assert not flat.is_right(f"a </think> <answer>{answer}</answer>", problem)
        assert not trainers_countdown(f"a </think> <answer>{answer}</answer>", problem)


def test_fractions_are_exact(flat: ModuleType) -> None:
    problem = flat.Problem("", [8, 3, 8, 3], 24)
    assert flat.is_right("a </think> <answer>8/(3-8/3)</answer>", problem)
    assert not flat.is_right("a </think> <answer>8/(3-8/3)+0</answer>", problem)


def test_rewards_of_sampled_completions_are_the_trainers(flat: ModuleType, embedded) -> None:
    random.seed(1)
    torch.manual_seed(1)
    problems = [flat.draw_problem(held_out=False) for _ in range(64)]
    _, texts = flat.sample(*embedded, [problem.prompt for problem in problems])
    right = [flat.is_right(text, problem) for text, problem in zip(texts, problems, strict=True)]
    assert right == [trainers_countdown(text, problem) for text, problem in zip(texts, problems, strict=True)]
    assert 8 < sum(right) < 40
    for text, problem, is_right in zip(texts, problems, right, strict=True):
        (in_form,) = format_reward([text], prefill="<think>")
        assert flat.reward_of(text, problem) == pytest.approx(is_right + 0.1 * (in_form == 1.0)), text


def test_two_steps_run(flat: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(flat, "P", 2)
    monkeypatch.setattr(flat, "G", 4)
    flat.main(steps=2)
    shown = capsys.readouterr().out
    assert re.findall(r"^step (\d): reward \d\.\d{3}, \d+\.\d tokens$", shown, re.M) == ["1", "2"]
    assert len(re.findall(r"^\d+\.\d% ", shown, re.M)) == 2
    assert shown.count("Assistant: <think>") == 2


@pytest.mark.slow
def test_it_learns(flat: ModuleType, capsys) -> None:
    flat.main(steps=20)
    accuracies = re.findall(r"^(\d+\.\d)% ", capsys.readouterr().out, re.M)
    assert len(accuracies) == 2
    assert float(accuracies[0]) < 40 < 50 < float(accuracies[1])
