"""Which numbers each setting accepts, by dataclass and field."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of numbers; `above` and `below` leave the bound itself out."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def contains(self, value: float) -> bool:
        """True when the value is allowed."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = [("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below)]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))


COUNT = Interval(least=1)
COUNT_OR_OFF = Interval(least=0)
POSITIVE = Interval(above=0)
NOT_NEGATIVE = Interval(least=0)

INTERVALS: dict[str, Interval] = {
    "GRPORecipe.seed": NOT_NEGATIVE,
    "GRPORecipe.max_steps": COUNT,
    "DataConfig.max_prompt_tokens": COUNT,
    "DataConfig.limit": COUNT,
    "RewardConfig.timeout": POSITIVE,
    "RolloutConfig.num_prompts": COUNT,
    "RolloutConfig.num_generations": COUNT,
    "RolloutConfig.max_completion_length": COUNT,
    "RolloutConfig.temperature": POSITIVE,
    "RolloutConfig.top_p": Interval(above=0, most=1),
    "RolloutConfig.top_k": COUNT_OR_OFF,
    "RolloutConfig.min_p": Interval(least=0, below=1),
    "RolloutConfig.repetition_penalty": POSITIVE,
    "RolloutConfig.max_rows": COUNT_OR_OFF,
    "AlgorithmConfig.advantage_epsilon": NOT_NEGATIVE,
    "AlgorithmConfig.epsilon_low": POSITIVE,
    "AlgorithmConfig.epsilon_high": POSITIVE,
    "AlgorithmConfig.delta": POSITIVE,
    "AlgorithmConfig.beta": NOT_NEGATIVE,
    "AlgorithmConfig.num_iterations": COUNT,
    "AlgorithmConfig.num_minibatches": COUNT,
    "AlgorithmConfig.importance_cap": POSITIVE,
    "AlgorithmConfig.max_refills": COUNT,
    "AlgorithmConfig.variance_tolerance": NOT_NEGATIVE,
    "OptimizerConfig.learning_rate": POSITIVE,
    "OptimizerConfig.warmup_steps": COUNT_OR_OFF,
    "OptimizerConfig.weight_decay": NOT_NEGATIVE,
    "OptimizerConfig.epsilon": POSITIVE,
    "OptimizerConfig.max_grad_norm": NOT_NEGATIVE,
    "UpdateConfig.micro_batch_tokens": COUNT,
    "UpdateConfig.micro_batch_sequences": COUNT,
    "UpdateConfig.logprob_chunk": COUNT,
    "EvaluationConfig.num_problems": COUNT,
    "EvaluationConfig.num_samples": COUNT,
    "EvaluationConfig.every_steps": COUNT_OR_OFF,
    "EvaluationConfig.during_problems": COUNT,
    "CheckpointConfig.every_steps": COUNT_OR_OFF,
    "CheckpointConfig.keep": COUNT_OR_OFF,
    "LoggingConfig.completions_every": COUNT_OR_OFF,
    "LoggingConfig.show_completions": COUNT_OR_OFF,
    "PretrainRecipe.seed": NOT_NEGATIVE,
    "PretrainRecipe.max_steps": COUNT,
    "PretrainRecipe.batch_tokens": COUNT,
    "PretrainRecipe.sequence_length": COUNT,
    "ArchitectureConfig.hidden_size": COUNT,
    "ArchitectureConfig.num_layers": COUNT,
    "ArchitectureConfig.num_heads": COUNT,
    "ArchitectureConfig.num_key_value_heads": COUNT,
    "ArchitectureConfig.head_dim": COUNT,
    "ArchitectureConfig.intermediate_size": COUNT,
    "ArchitectureConfig.vocab_size": COUNT,
    "ArchitectureConfig.max_position_embeddings": COUNT,
    "PretrainRecipe.measured_problems": COUNT_OR_OFF,
    "PretrainRecipe.measured_samples": COUNT,
    "CorpusConfig.hit_rate": Interval(above=0, most=1),
    "CorpusConfig.persistence": Interval(least=0, most=1),
    "CorpusConfig.max_attempts": COUNT,
    "CorpusConfig.stubborn": Interval(least=0, most=1),
    "CorpusConfig.nearness": POSITIVE,
    "CorpusConfig.tagged": Interval(least=0, most=1),
    "CorpusConfig.sloppy": Interval(least=0, most=1),
    "CorpusConfig.documents": COUNT,
    "EndpointConfig.concurrency": COUNT,
    "EndpointConfig.timeout": POSITIVE,
    "EndpointConfig.retries": COUNT_OR_OFF,
    "EvaluatedModelConfig.step": COUNT_OR_OFF,
    "BenchmarkConfig.num_samples": COUNT,
    "BenchmarkConfig.max_completion_length": COUNT,
    "BenchmarkConfig.version": COUNT,
    "EvaluateSamplingConfig.temperature": NOT_NEGATIVE,
    "EvaluateSamplingConfig.top_p": Interval(above=0, most=1),
    "EvaluateSamplingConfig.top_k": COUNT_OR_OFF,
    "EvaluateSamplingConfig.min_p": Interval(least=0, below=1),
    "EvaluateSamplingConfig.repetition_penalty": POSITIVE,
    "EvaluateRecipe.seed": NOT_NEGATIVE,
    "EvaluateRecipe.num_problems": COUNT,
    "EvaluateRecipe.num_samples": COUNT,
    "EvaluateRecipe.max_completion_length": COUNT,
    "EvaluateRecipe.fresh_seed": NOT_NEGATIVE,
    "EvaluateRecipe.contamination_probe": Interval(least=0, below=1),
    "EvaluateRecipe.max_rows": COUNT_OR_OFF,
}
