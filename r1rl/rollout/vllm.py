"""The rollout engine vLLM, through TRL's `VLLMGeneration`: inside the trainer's process, or in a server of
its own.

vLLM draws with random numbers of its own, so its completions depend on neither `seeds` nor the recipe's seed,
and they come all at once. Ends and log-probabilities follow r1rl's rules: tokens after the first end are cut
off, and vLLM is asked for the log-probabilities of the distribution that it sampled. They are bfloat16's, so
the update corrects for the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.compute.distributed import max_over_processes
from r1rl.compute.trials import Trial
from r1rl.config.engines import VLLM
from r1rl.config.schema import VLLMConfig
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling
from r1rl.rollout.engine import ASKED_FOR, EngineSetup
from r1rl.rollout.requests import GroupCollector, check_request
from r1rl.rollout.stopping import Stopping, StoppingRules
from r1rl.types import CompletionGroup, FinishReason


class VLLMEngine:
    """See `RolloutEngine`. Every process must call `generate` equally often, also with no prompts: weights
    are gathered in it.
    """

    name = "vllm"
    reason = ASKED_FOR
    properties = VLLM

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        config: VLLMConfig,
        max_rows: int = 0,
    ) -> None:
        """Start vLLM. `model` is the policy itself, also once it is sharded; `max_rows` limits how many
        sequences vLLM decodes at once (0: its own choice). Raises UserError if vLLM doesn't start.
        """
        from trl.generation.vllm_generation import VLLMGeneration

        self.tokenizer = tokenizer
        self.accelerator = accelerator
        self.trials: list[Trial] = []
        embedding: Any = model.get_input_embeddings()
        self.vocabulary = embedding.weight.shape[0]
        self.stopping = StoppingRules(tokenizer, self.vocabulary)
        try:
            self.vllm = VLLMGeneration(
                model,
                accelerator,
                tokenizer,
                mode=config.mode,
                server_base_url=config.server_url,
                server_timeout=config.server_timeout,
                tensor_parallel_size=config.tensor_parallel_size,
                gpu_memory_utilization=config.gpu_memory_utilization,
                max_num_seqs=max_rows or None,
                enable_sleep_mode=config.mode
                == "colocate",  # its memory belongs to the update while it doesn't sample
            )
        except (ImportError, ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"rollout.engine: vLLM does not start: {type(error).__name__}: {error}"
            ) from error

    def refresh(self) -> None:
        """Send the policy's weights to vLLM. Every process must call it."""
        self.vllm.sync_weights()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        refresh: bool = True,
    ) -> Iterator[CompletionGroup]:
        """See `RolloutEngine.generate`; `seeds` have no effect on vLLM."""
        check_request(prompts, num_generations, sampling, seeds, self.vocabulary)
        return self._stream(prompts, num_generations, sampling, self.stopping.of(sampling), refresh)

    def _stream(
        self,
        prompts: Sequence[Sequence[int]],
        num_generations: int,
        sampling: Sampling,
        stopping: Stopping,
        refresh: bool,
    ) -> Iterator[CompletionGroup]:
        # TRL takes the processes' shares to be equally long: shorter ones are filled up, and the filling is
        # thrown away.
        share = max_over_processes(self.accelerator, len(prompts))
        if share == 0:
            return
        filled = [list(prompt) for prompt in prompts] + [[0]] * (share - len(prompts))
        if refresh:
            self.refresh()
        self._set(sampling)
        rows = [prompt for prompt in filled for _ in range(num_generations)]
        _, token_ids, logprobs, _ = self.vllm.generate(rows, None, num_generations)
        if logprobs is None:
            raise UserError(
                "rollout.engine: vLLM returned no log-probabilities, which the update needs: its version "
                "does not fit TRL's."
            )
        groups = GroupCollector(self.tokenizer, len(prompts), num_generations)
        groups.add(
            [
                (
                    row // num_generations,
                    row % num_generations,
                    *cut(list(token_ids[row]), logprobs[row], stopping),
                )
                for row in range(len(prompts) * num_generations)
            ]
        )
        yield from groups.take()

    def _set(self, sampling: Sampling) -> None:
        """Set what TRL's client reads at each call."""
        self.vllm.temperature = sampling.temperature
        self.vllm.top_p = sampling.top_p
        self.vllm.top_k = sampling.top_k
        self.vllm.min_p = sampling.min_p
        self.vllm.repetition_penalty = sampling.repetition_penalty
        self.vllm.max_completion_length = sampling.max_completion_length
        self.vllm.generation_kwargs = {"stop_token_ids": list(sampling.eos_token_ids), "ignore_eos": True}
        if sampling.stop:
            self.vllm.generation_kwargs |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}


def make_vllm(setup: EngineSetup) -> VLLMEngine:
    """Return vLLM as the engine of a training run. Raises UserError if it doesn't start."""
    if setup.accelerator is None or setup.vllm is None:
        raise ValueError("vLLM is given the policy's weights by the processes of a training run")
    return VLLMEngine(setup.model, setup.tokenizer, setup.accelerator, setup.vllm, setup.max_rows)


def cut(
    token_ids: list[int], logprobs: Sequence[Sequence[float | None]], stopping: Stopping
) -> tuple[list[int], list[float], FinishReason]:
    """Return the completion up to its first end, the log-probability of each token, and why it ended."""
    count, reason = stopping.end(token_ids, 0) or (len(token_ids), FinishReason.LENGTH)
    values = [float("nan") if row[0] is None else row[0] for row in logprobs[:count]]
    return token_ids[:count], values, reason
