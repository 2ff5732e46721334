"""A stand-in for `vllm.LLM`, which itself runs on GPUs only; TRL's real client talks to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rollout_helpers import ids
from trl.generation import vllm_generation


class StandInLLM:
    """A stand-in for `vllm.LLM` that holds the weights that it is given and answers each prompt with the next
    of `answers`.

    The log-probability is -(t + 1) / 4 at token t. As in vLLM, an answer has `max_tokens` at most, and is
    over at `eos` unless that is to be ignored; one set of sampling parameters serves all prompts, or each has
    its own.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.weights: dict[str, torch.Tensor] = {}
        self.asleep = False
        self.asked: list[tuple[list[list[int]], list[dict[str, Any]]]] = []
        """The prompts of each call, and the parameters of each prompt."""
        self.answers: list[list[int]] = [ids("ab")]
        self.eos: int | None = None
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load_weights))
        worker = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(model_executor=worker)

    def load_weights(self, named: list[tuple[str, torch.Tensor]]) -> None:
        self.weights |= {name: value.detach().clone() for name, value in named}

    def sleep(self, level: int) -> None:
        self.asleep = True

    def wake_up(self, tags: list[str]) -> None:
        self.asleep = False

    def reset_prefix_cache(self) -> None:
        pass

    def generate(
        self,
        prompts: list[dict[str, Any]],
        sampling_params: SimpleNamespace | list[SimpleNamespace],
        use_tqdm: bool,
    ) -> list[SimpleNamespace]:
        assert not self.asleep
        each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(prompts)
        if len(each) != len(prompts):
            raise ValueError("The lengths of prompts and params must be the same.")
        self.asked.append(
            ([prompt["prompt_token_ids"] for prompt in prompts], [vars(params) for params in each])
        )
        outputs = []
        for row, (prompt, params) in enumerate(zip(prompts, each, strict=True)):
            answer = self.ended(self.answers[row % len(self.answers)], params)
            logprobs = [
                {token: SimpleNamespace(rank=1, logprob=-(t + 1) / 4)} for t, token in enumerate(answer)
            ]
            completion = SimpleNamespace(token_ids=tuple(answer), logprobs=logprobs)
            outputs.append(SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=[completion]))
        return outputs

    def ended(self, answer: list[int], params: SimpleNamespace) -> list[int]:
        """Return the part of the answer that these parameters allow."""
        if self.eos in answer and not getattr(params, "ignore_eos", False):
            answer = answer[: answer.index(self.eos) + 1]
        return answer[: params.max_tokens]


def use_stand_in(monkeypatch: pytest.MonkeyPatch, kind: type[StandInLLM] = StandInLLM) -> list[StandInLLM]:
    """Let TRL's client make LLMs of this kind, on a CPU, and return the list to which it adds each that it
    makes.
    """
    made: list[StandInLLM] = []

    def make(**settings: Any) -> StandInLLM:
        made.append(kind(**settings))
        return made[-1]

    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "empty_cache", lambda: None)  # asks for a CUDA device
    monkeypatch.setattr(vllm_generation, "LLM", make, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # TRL sets them
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    return made
