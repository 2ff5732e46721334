"""The engine vLLM: TRL's real client on a stand-in for `vllm.LLM`, which itself runs on GPUs only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rollout_helpers import PROMPTS, SEEDS, flat, ids, run, tiny_model, tokenizer
from tiny_policy import save_tiny_policy
from trl.generation import vllm_generation
from vllm_stand_in import StandInLLM, use_stand_in

from r1rl.cli.main import main
from r1rl.config import engines
from r1rl.config.schema import VLLMConfig
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout import vllm
from r1rl.rollout.vllm import VLLMEngine
from r1rl.runs.run_directory import RunDirectory
from r1rl.types import FinishReason

EOS = ids("$")[0]
SAMPLING = Sampling(
    12, temperature=0.7, top_p=0.9, top_k=5, min_p=0.01, eos_token_ids=(EOS,), stop=("</answer>",)
)


RECIPE = """
run_name: vllm
output_dir: {folder}/runs
max_steps: 2
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: countdown, arguments: {{count: 8}}}}
prompt: {{template: plain}}
rewards: [{{function: {folder}/reward.py:shortness}}]
rollout: {{engine: vllm, num_prompts: 2, num_generations: 4, max_completion_length: 8}}
optimizer: {{learning_rate: 1.0e-2}}
logging: {{live: false, completions_every: 0}}
"""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> VLLMEngine:
    use_stand_in(monkeypatch)
    return VLLMEngine(
        tiny_model(), tokenizer(), Accelerator(cpu=True), VLLMConfig(gpu_memory_utilization=0.4), max_rows=64
    )


def test_settings_reach_vllm(engine: VLLMEngine) -> None:
    run(engine, PROMPTS, 3, SAMPLING, SEEDS)
    settings = engine.vllm.llm.settings
    assert settings["gpu_memory_utilization"] == 0.4
    assert settings["max_num_seqs"] == 64
    assert settings["logprobs_mode"] == "processed_logprobs"  # of the distribution that was sampled
    assert settings["trust_remote_code"] is False
    ((asked, (params, *_)),) = engine.vllm.llm.asked
    assert asked == [prompt for prompt in PROMPTS for _ in range(3)]
    expected = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.01,
        "repetition_penalty": 1.0,
        "max_tokens": 12,
    }
    assert {key: params[key] for key in expected} == expected
    assert params["stop_token_ids"] == [EOS]
    assert params["stop"] == ["</answer>"]
    assert params["include_stop_str_in_output"] is True


def test_ends_follow_our_rules(engine: VLLMEngine) -> None:
    long = ids("abcdefghijkl")
    engine.vllm.llm.answers = [ids("ab$"), [*ids("x</"), *ids("answer>zz")], ids("ab$c"), long]
    completions = flat(run(engine, [[5]], 4, SAMPLING, [0]))
    assert [completion.token_ids for completion in completions] == [
        ids("ab$"),
        ids("x</answer>"),
        ids("ab$"),
        long,
    ]
    reasons = [FinishReason.EOS, FinishReason.STOP, FinishReason.EOS, FinishReason.LENGTH]
    assert [completion.finish_reason for completion in completions] == reasons
    for completion in completions:
        assert completion.logprobs == [-(t + 1) / 4 for t in range(len(completion.token_ids))]


def test_every_rollout_takes_the_policy_s_weights_and_sleeps_afterwards(engine: VLLMEngine) -> None:
    model, llm = engine.vllm.model, engine.vllm.llm
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5)
        run(engine, PROMPTS, 1, SAMPLING, SEEDS)
        assert llm.weights.keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(llm.weights[name], parameter, rtol=0, atol=0)
        assert llm.asleep


def test_a_process_without_prompts_takes_part(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has 2 prompts: this one, with none, must sync and generate as often, and hands nothing
    over.
    """
    monkeypatch.setattr(vllm, "max_over_processes", lambda accelerator, count: 2)
    assert list(engine.generate([], 3, SAMPLING, [])) == []
    assert len(engine.vllm.llm.asked[0][0]) == 6
    assert engine.vllm.llm.weights
    assert run(engine, [[5]], 3, SAMPLING, [0])[0][0].token_ids == ids("ab")
    assert len(engine.vllm.llm.asked[1][0]) == 6


def test_a_missing_logprob_is_nan_and_none_at_all_is_refused(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine.vllm, "generate", lambda rows, images, count: (rows, [[EOS]], [[[None]]], None)
    )
    (completion,) = flat(run(engine, [[5]], 1, SAMPLING, [0]))
    assert completion.logprobs[0] != completion.logprobs[0]
    monkeypatch.setattr(engine.vllm, "generate", lambda rows, images, count: (rows, [[EOS]], None, None))
    with pytest.raises(UserError, match="no log-probabilities"):
        list(engine.generate([[5]], 1, SAMPLING, [0]))


def test_start_that_fails_is_a_sentence(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(**settings: Any) -> None:
        raise ValueError("No available memory for the cache blocks.")

    monkeypatch.setattr(vllm_generation, "LLM", no_memory)
    with pytest.raises(
        UserError, match=r"rollout\.engine: vLLM does not start: ValueError: No available memory"
    ):
        VLLMEngine(tiny_model(), tokenizer(), Accelerator(cpu=True), VLLMConfig())


def test_run_on_vllm(engine: VLLMEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of `r1rl grpo`: the second samples from updated weights, and the update knows that the
    sampler is another one.
    """

    class Recorded(StandInLLM):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.answers = [[5, 6, 1], [7, 8, 9, 1], [40] * 8, [5, 1]]
            self.first: list[torch.Tensor] = []

        def generate(self, *arguments: Any, **keywords: Any) -> Any:
            self.first.append(next(iter(self.weights.values())))
            return super().generate(*arguments, **keywords)

    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    made = use_stand_in(monkeypatch, Recorded)
    monkeypatch.setattr(engines, "is_installed", lambda package: True)
    save_tiny_policy(tmp_path / "policy")
    (tmp_path / "reward.py").write_text(
        "def shortness(completion_ids, **columns):\n    return [1 / len(ids) for ids in completion_ids]\n"
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=tmp_path))
    assert main(["grpo", str(tmp_path / "recipe.yaml")]) == 0
    records = RunDirectory(tmp_path / "runs" / "vllm").read_metrics()
    assert [record["completions/mean_length"] for record in records] == [17 / 4, 17 / 4]
    assert records[0]["sampler/logprob_diff_mean"] > 0.1  # the stand-in's log-probabilities are made up
    (llm,) = made
    assert len(llm.first) == 2
    assert not torch.equal(*llm.first)
    assert "PYTORCH_ALLOC_CONF" not in os.environ  # vLLM sleeps in segments of its own


def test_without_the_package_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"vllm, which is not installed: pip install 'r1rl\[vllm\]'"):
        engines.find_engine("vllm", Path())
