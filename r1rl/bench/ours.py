"""The side of r1rl in a bench: a GRPO step with forced completion lengths, timed by phase."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1rl.bench.recipe import BenchRecipe
from r1rl.bench.workload import Workload, compute_dtype, reward
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.compute.trials import trial_report
from r1rl.config.schema import DataConfig, OptimizerConfig, RewardConfig
from r1rl.grpo.recipe import GRPORecipe, PolicyRolloutConfig
from r1rl.grpo.update import PolicyUpdate
from r1rl.models.lora import add_adapters
from r1rl.objective.advantages import group_advantages
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.sampling import Sampling
from r1rl.policy.batching import build_train_batch
from r1rl.policy.compilation import compile_policy, fuse_logprobs, wants_compiling
from r1rl.policy.layout import choose_layout
from r1rl.policy.logprobs import PolicyForward
from r1rl.rollout.native.compiled import choose_backend
from r1rl.rollout.native.engine import NativeEngine


class OurStep:
    """One GRPO step after the other, on the same prompts."""

    def __init__(
        self,
        recipe: BenchRecipe,
        workload: Workload,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
    ) -> None:
        dtype = compute_dtype(recipe)
        self.recipe = recipe
        self.workload = workload
        self.accelerator = accelerator
        torch.nn.Module.to(model, accelerator.device)
        if recipe.lora is not None:
            add_adapters(model, recipe.lora, recipe.path or recipe.run_name, None, recipe.seed)
        self.sampling = Sampling(max_completion_length=recipe.completion_length_max)
        self.algorithm = AlgorithmConfig()
        optimizer_config = OptimizerConfig()
        self.layout = choose_layout(model, recipe.update, dtype, tokenizer)
        compiler = choose_backend(recipe.compile_layers, accelerator.device)
        self.engine = NativeEngine(
            model, tokenizer, dtype=dtype, reason="The engine is native", compiler=compiler
        )
        forward = PolicyForward(model, self.sampling, recipe.update.logprob_chunk)
        wanted = wants_compiling(recipe.update.compile, self.accelerator.device, dtype, checkpointed=False)
        fuse_logprobs(forward, dtype, tokenizer)
        if wanted:
            compile_policy(forward, self.layout, dtype, tokenizer)
        trials = [*self.layout.trials, *self.engine.trials, *forward.trials]
        self.notes = [self.engine.reason, *trial_report(trials)]
        policy, optimizer = self.accelerator.prepare(forward, make_optimizer(forward, optimizer_config))
        grpo = GRPORecipe(
            run_name=recipe.run_name,
            data=DataConfig(source="countdown"),
            rewards=[RewardConfig(function="countdown")],
            rollout=PolicyRolloutConfig(max_completion_length=recipe.completion_length_max),
            update=recipe.update,
        )
        self.update = PolicyUpdate(
            grpo,
            self.accelerator,
            policy,
            None,
            [model],
            self.layout,
            optimizer,
            make_schedule(optimizer, 1000, optimizer_config),
            False,
        )

    def run(self, step: int) -> dict[str, float]:
        """Return the seconds of each phase and of the whole step."""
        clock = Clock()
        seeds = [step * len(self.workload.prompts) + place for place in range(len(self.workload.prompts))]
        generations = self.recipe.num_generations
        streamed = self.engine.generate(
            self.workload.prompts, generations, self.sampling, seeds, self.workload.lengths
        )
        groups = sorted(streamed, key=lambda group: group.index)
        clock.lap("rollout")
        completions = [completion for group in groups for completion in group.completions]
        rewards = reward([completion.text for completion in completions])
        advantages_PG = group_advantages(
            torch.tensor(rewards, dtype=torch.float64).view(-1, generations), self.algorithm
        )
        clock.lap("reward")
        prompts = [self.workload.prompts[group.index] for group in groups for _ in group.completions]
        self.update.run(
            build_train_batch(prompts, completions, advantages_PG.flatten(), with_sampler_logprobs=True)
        )
        clock.lap("update")
        found = sorted(len(completion.token_ids) for completion in completions)
        if found != sorted(length for lengths in self.workload.lengths for length in lengths):
            raise AssertionError("the completions do not have the lengths that were asked for")
        return clock.laps | {"step": sum(clock.laps.values())}


class Clock:
    """A clock of the seconds between laps, the device's work included."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = self._now()

    def lap(self, name: str) -> None:
        """End the lap of this name; laps of one name add up."""
        now = self._now()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
