"""The recipe, as typed dataclasses: one per component, each field with its help. The only place where a setting is declared.

Every field's `help` is what `r1rl COMMAND --help` prints. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def option(default: Any, help: str) -> Any:
    """A dataclass field with a help text; lists and dicts get a fresh copy per recipe."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


def required(help: str) -> Any:
    """A dataclass field that every recipe must set."""
    return field(metadata={"help": help})


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """The policy: where its weights come from and the precision that it computes in."""

    path: str = option("embedded", 'a hub name, a folder, or "embedded" for the small base model that ships with r1rl')
    revision: str | None = option(None, "the hub revision (branch, tag or commit); recorded with the run")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "what forward and backward compute in; auto: bfloat16 on a GPU, float32 on a CPU. Master weights stay float32"
    )
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, about a third more time")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where problems come from."""

    source: str = required("a hub name, a .jsonl/.parquet/.csv file, or a generator: arithmetic, word_problems, countdown")
    subset: str | None = option(None, "the hub data set's configuration, such as main")
    split: str = option("train", "the split to read; generators have train and test, which never share a problem")
    revision: str | None = option(None, "the hub data set's revision")
    columns: dict[str, str] = option({}, "our column: theirs, such as {problem: question, answer: solution}")
    answer_format: Literal["plain", "boxed", "after_hashes"] = option(
        "plain", "where the answer stands in its column. plain: all of it; boxed: in the last \\boxed{} (MATH); after_hashes: after #### (GSM8K)"
    )
    arguments: dict[str, Any] = option({}, "the generator's arguments, such as {count: 4096, numbers: [3, 4]}")
    where: dict[str, Any] = option({}, "keep rows whose column has this value or one of these values, such as {level: [3, 4, 5]}")
    max_prompt_tokens: int | None = option(None, "prompts longer than this are dropped and counted")
    limit: int | None = option(None, "use only the first so many problems, after where")
    shuffle: bool = option(True, "visit the rows in an order drawn from the run's seed")


@dataclass(kw_only=True, slots=True)
class PromptConfig:
    """How a problem becomes the text that the policy continues."""

    template: str = option("r1_zero", "r1_zero, plain, chat, none, or a path to a text file that contains {problem}")
    prefill: str = option("", 'text put after the template as the policy\'s first words, such as "<think>"; counted as its own by the rewards')
    system: str | None = option(None, "system message; chat template only")
    stop: list[str] = option([], 'strings that end a completion, such as ["</answer>"]; kept in the text')
    eos_token_ids: list[int] = option([], "token ids that end a completion; empty: those of the model's generation config and tokenizer")


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    """One reward function of the recipe."""

    function: str = required("a built-in name (accuracy), a module (rewards.my_module:function) or a file (path/to/file.py:function)")
    weight: float = option(1.0, "its factor in the total reward; 0 only measures it")
    arguments: dict[str, Any] = option({}, "keyword arguments for the function")
    when: dict[str, Any] = option({}, "gate: applies only where another reward of this recipe is in a range, such as {accuracy: 0} or {format: {min: 0.5}}")
    timeout: float = option(30.0, "seconds for one batch; rows not scored by then count as not applicable and are reported")


@dataclass(kw_only=True, slots=True)
class RolloutConfig:
    """How completions are sampled."""

    engine: Literal["auto", "native", "transformers"] = option("auto", "native: r1rl's engine on the policy's own weights; transformers: model.generate, the reference")
    num_prompts: int = option(32, "P: prompts per optimizer batch, over all processes")
    num_generations: int = option(8, "G: completions per prompt")
    max_completion_length: int = option(1024, "tokens")
    temperature: float = option(1.0, "sampling temperature; the loss trains the same tempered distribution")
    top_p: float = option(1.0, "nucleus sampling; 1 is off")
    top_k: int = option(0, "sample among the k likeliest; 0 is off")
    min_p: float = option(0.0, "drop tokens below this share of the likeliest; 0 is off")
    repetition_penalty: float = option(1.0, "evaluation and generation only: it can't be part of a trained distribution")
    max_rows: int = option(0, "rows that decode at once; 0: as many as fit")


@dataclass(kw_only=True, slots=True)
class AlgorithmConfig:
    """The objective. docs/algorithms.md gives the equation and the paper of each choice."""

    surrogate: Literal["clip", "cispo", "online_rft"] = option("clip", "clip: PPO's clipped ratio; cispo: clipped weight on the log-likelihood; online_rft: likelihood of the completions with positive advantage")
    aggregation: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = option("dapo", "grpo: mean over tokens, then sequences; dr_grpo: sum over a constant; dapo: mean over all tokens of the batch; bnpo: over those of the minibatch")
    importance_level: Literal["token", "sequence"] = option("token", "sequence: one length-normalised ratio per completion (GSPO)")
    baseline: Literal["group", "leave_one_out", "reinforce_plus_plus", "none"] = option("group", "what is subtracted from the reward: the group's mean, the mean of the others (RLOO), the group's mean followed by whitening over the batch (REINFORCE++ with baseline), or nothing")
    scale: Literal["group", "batch", "none"] = option("group", "what the advantage is divided by: the group's or the batch's standard deviation, or nothing")
    std_correction: Literal["population", "sample"] = option("sample", "divide by G (DeepSeekMath) or by G - 1 (TRL)")
    advantage_epsilon: float = option(1e-4, "added to the standard deviation")
    epsilon_low: float = option(0.2, "the ratio is clipped below 1 - epsilon_low")
    epsilon_high: float = option(0.2, "the ratio is clipped above 1 + epsilon_high; DAPO uses 0.28")
    delta: float | None = option(None, "upper bound on the ratio when the advantage is negative (two-sided clip); above 1 + epsilon_high")
    beta: float = option(0.0, "weight of the KL divergence to the frozen reference; 0 loads no reference")
    kl_estimator: Literal["k1", "k2", "k3"] = option("k3", "k1: log ratio; k2: half its square; k3: unbiased and non-negative (Schulman)")
    kl_bias_correction: bool = option(False, "multiply the KL estimate by the ratio to the sampling policy (DeepSeek-V3.2): k1 and k3 then have the gradient of the KL divergence")
    entropy_coefficient: float = option(0.0, "weight of the entropy bonus")
    num_iterations: int = option(1, "mu: passes over each rollout")
    num_minibatches: int = option(1, "optimizer steps per pass")
    importance_cap: float | None = option(2.0, "truncated importance sampling: cap on trainer/sampler probability; null turns the correction off. Used only where the sampler's logprobs differ from the trainer's")
    mask_truncated: bool = option(False, "leave completions that hit the length limit out of the loss")
    dynamic_sampling: bool = option(False, "replace groups whose outcome has no variance by fresh prompts")
    max_refills: int = option(4, "dynamic sampling: at most so many extra rollouts per step")
    variance_tolerance: float = option(1e-6, "a group whose rewards (advantages) or outcomes (dynamic sampling) spread by no more than this counts as having no variance")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = option(1e-6, "peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = option("constant", "after the warm-up")
    warmup_steps: int = option(0, "optimizer steps from 0 to the peak")
    weight_decay: float = option(0.0, "decoupled, on matrices only")
    betas: list[float] = option([0.9, 0.999], "AdamW's moment decays")
    epsilon: float = option(1e-8, "AdamW's epsilon")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm; 0 is off")


@dataclass(kw_only=True, slots=True)
class UpdateConfig:
    """How a batch is cut up for the forward and backward passes. No value here changes the gradient."""

    micro_batch_tokens: int = option(16384, "tokens per forward pass, padding included")
    micro_batch_sequences: int | None = option(None, "at most so many sequences per forward pass")
    logprob_chunk: int = option(4096, "completion tokens whose logits exist at the same time")


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """Held-out problems answered before, during and after training."""

    data: DataConfig | None = option(None, "held-out problems; null: none")
    num_problems: int = option(256, "how many")
    num_samples: int = option(4, "completions per problem, sampled as in training")
    every_steps: int = option(0, "evaluate each so many steps besides before and after; 0: never")
    during_problems: int = option(64, "problems of an evaluation during training")
    at_start: bool = option(True, "evaluate the model that training starts from")


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """What is saved, and when."""

    every_steps: int = option(100, "save each so many steps, besides at the end and on Ctrl-C")
    keep: int = option(2, "keep the newest so many; 0 keeps all")


@dataclass(kw_only=True, slots=True)
class LoggingConfig:
    """What is shown and written while the run goes on."""

    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = option([], "experiment trackers, through accelerate")
    completions_every: int = option(10, "write all completions of each so-many-th step; 0: never")
    show_completions: int = option(1, "completions printed with the table of those steps")
    live: bool = option(True, "live table and progress bar; false: one line per step")


@dataclass(kw_only=True, slots=True)
class GRPORecipe:
    """`r1rl grpo`: reinforcement learning from a reward."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "of everything: data order, sampling, initialisation")
    max_steps: int = option(100, "rollouts; each is followed by num_iterations x num_minibatches optimizer steps")
    model: ModelConfig = field(default_factory=ModelConfig, metadata={"help": "the policy"})
    data: DataConfig = required("training problems")
    prompt: PromptConfig = field(default_factory=PromptConfig, metadata={"help": "template, prefill and stop strings"})
    rewards: list[RewardConfig] = required("what is rewarded")
    outcome: str | None = option(None, "the reward that says whether an answer is right (for accuracy and dynamic sampling); null: the first of accuracy, countdown, code_execution")
    rollout: RolloutConfig = field(default_factory=RolloutConfig, metadata={"help": "sampling"})
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig, metadata={"help": "the objective"})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata={"help": "AdamW and its schedule"})
    update: UpdateConfig = field(default_factory=UpdateConfig, metadata={"help": "micro-batches"})
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig, metadata={"help": "held-out problems"})
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig, metadata={"help": "saving"})
    logging: LoggingConfig = field(default_factory=LoggingConfig, metadata={"help": "progress, trackers, completions"})


@dataclass(kw_only=True, slots=True)
class ArchitectureConfig:
    """The shape of a small decoder made from scratch (Qwen3, which AutoModelForCausalLM loads)."""

    hidden_size: int = option(160, "width")
    num_layers: int = option(4, "depth")
    num_heads: int = option(4, "attention heads")
    num_key_value_heads: int = option(2, "key/value heads (grouped-query attention)")
    head_dim: int = option(40, "width of a head")
    intermediate_size: int = option(448, "width of the gated MLP")
    vocab_size: int = option(512, "entries of the byte-level BPE tokenizer that is trained on the corpus")
    max_position_embeddings: int = option(1024, "longest sequence")


@dataclass(kw_only=True, slots=True)
class CorpusConfig:
    """The synthetic maths text of a small base model: which problems, and which habits their solutions show."""

    tasks: dict[str, float] = option({}, "generator: share of the documents")
    habits: dict[str, float] = option({}, "habit of the solution: share of the documents")
    hit_rate: float = option(0.5, "probability that an attempt at a solution is right, in every habit")
    persistence: float = option(0.5, "probability that a checked solution goes on after a failed attempt")
    max_attempts: int = option(9, "a checked solution gives up after so many attempts")
    stubborn: float = option(0.1, "share of checked solutions that give up only then")
    nearness: float = option(8.0, "countdown: wrong attempts whose value is d off are drawn with weight exp(-d / nearness)")
    tagged: float = option(0.1, "share of documents in think/answer tags")
    sloppy: float = option(0.2, "share of the tagged documents that leave a tag out")
    documents: int = option(400_000, "documents")
    arguments: dict[str, dict[str, Any]] = option({}, "generator: its arguments")


@dataclass(kw_only=True, slots=True)
class PretrainRecipe:
    """`r1rl pretrain`: a small base model from scratch on synthetic maths text."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "of the corpus, the initialisation and the batches")
    max_steps: int = option(2000, "optimizer steps")
    batch_tokens: int = option(65536, "tokens per optimizer step")
    sequence_length: int = option(256, "documents are packed into rows of so many tokens")
    save_dtype: Literal["float32", "bfloat16"] = option("float32", "of the saved weights")
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig, metadata={"help": "shape of the model"})
    corpus: CorpusConfig = field(default_factory=CorpusConfig, metadata={"help": "the text"})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig, metadata={"help": "AdamW and its schedule"})
    measured_problems: int = option(256, "held-out problems of each task that the finished model answers, for its model card; 0: none")
    measured_samples: int = option(8, "completions for each of them")


@dataclass(kw_only=True, slots=True)
class EndpointConfig:
    """A server with OpenAI's interface (vLLM, SGLang, llama.cpp, a hosted model) that samples in the place of the rollout engine."""

    url: str = required("up to and with /v1, such as http://localhost:8000/v1")
    model: str | None = option(None, "the model's name at the server; null: the model's path")
    key_variable: str = option("OPENAI_API_KEY", "the environment variable that holds the key; none is sent if it is not set")
    concurrency: int = option(16, "requests under way at once")
    timeout: float = option(600.0, "seconds for one completion")
    retries: int = option(5, "further attempts after a refusal for load (429), a server error or a lost connection")


@dataclass(kw_only=True, slots=True)
class EvaluatedModelConfig:
    """One model of an evaluation."""

    path: str = required('a run directory, a folder with a model, a hub name, or "embedded"')
    name: str | None = option(None, "what tables and folders call it; null: the last part of the path")
    revision: str | None = option(None, "the hub revision (branch, tag or commit)")
    step: int | None = option(None, "of a run directory, the checkpoint of this step; null: the newest")
    every_step: bool = option(False, "of a run directory, every kept checkpoint and the model that training started from: a curve")
    dtype: Literal["auto", "float32", "bfloat16"] = option("auto", "auto: bfloat16 on a GPU, float32 on a CPU")
    endpoint: EndpointConfig | None = option(None, "sample from a server; null: load the model here")


@dataclass(kw_only=True, slots=True)
class BenchmarkConfig:
    """A benchmark: its problems, how they are put to a model, and how answers are graded."""

    name: str = required("what benchmarks and results call it")
    data: DataConfig = required("its problems")
    question: str = option("{problem}", "what the template is filled with; {problem} stands for the problem's text")
    choices: list[str] = option([], "multiple choice: the columns of the wrong answers. The options are lettered in an order drawn from the problem's id")
    grading: Literal["strict", "lenient", "countdown", "continuation"] = option("strict", "strict: the last box or answer tag; lenient: also the last number or formula; countdown: an expression of the numbers; continuation: the completion begins with the answer")
    num_samples: int = option(4, "completions per problem")
    max_completion_length: int = option(4096, "tokens")
    group_by: list[str] = option([], "columns whose values get a score of their own, such as [level]")
    local: str = option("", "its file in local_dir")
    version: int = option(1, "raised whenever a change makes new scores incomparable with old ones")


@dataclass(kw_only=True, slots=True)
class EvaluateSamplingConfig:
    """How completions are drawn."""

    temperature: float = option(0.6, "0 is greedy")
    top_p: float = option(0.95, "nucleus sampling; 1 is off")
    top_k: int = option(0, "sample among the k likeliest; 0 is off")
    min_p: float = option(0.0, "drop tokens below this share of the likeliest; 0 is off")
    repetition_penalty: float = option(1.0, "1 is off")


@dataclass(kw_only=True, slots=True)
class EvaluateRecipe:
    """`r1rl evaluate`: scores of models on benchmarks."""

    run_name: str = required("names the folder of the results; the same command goes on where it was interrupted")
    output_dir: str = option("runs", "result folders are made in here")
    seed: int = option(0, "of all samples: completion g of a problem depends on the seed, the benchmark, the problem's id and g alone")
    models: list[EvaluatedModelConfig] = required("what is evaluated; every other one is compared with the first")
    benchmarks: list[str] = required("names from docs/benchmarks.md or define, or data sets: a .jsonl/.json/.parquet/.csv file or OWNER/NAME")
    define: list[BenchmarkConfig] = option([], "benchmarks of one's own")
    local_dir: str | None = option(None, "folder with the benchmarks' files; one that is not in it comes from the hub")
    num_problems: int | None = option(None, "at most so many problems of each benchmark, a fixed random choice; null: all")
    num_samples: int | None = option(None, "completions per problem; null: the benchmark's own number")
    max_completion_length: int | None = option(None, "tokens; null: the benchmark's own limit")
    question: str | None = option(None, "replaces every benchmark's own question text; contains {problem}")
    fresh_seed: int | None = option(None, "of the benchmark fresh; null: the day on which the evaluation was started, such as 20250131")
    contamination_probe: float = option(0.0, "also show each problem cut off after this share (the paper takes 0.6), and count how often the model recites the rest; 0: off")
    prompt: PromptConfig = field(default_factory=PromptConfig, metadata={"help": "template, prefill and stop strings"})
    sampling: EvaluateSamplingConfig = field(default_factory=EvaluateSamplingConfig, metadata={"help": "how completions are drawn"})
    engine: Literal["auto", "native", "transformers"] = option("auto", "native: r1rl's rollout engine; transformers: model.generate, the reference")
    max_rows: int = option(0, "completions that are decoded at once; 0: as many as fit")
