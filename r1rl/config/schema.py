"""The recipe, as typed dataclasses: one per component, each field with its help.

A setting is declared here and nowhere else. Every field's `help` is what `r1rl COMMAND --help` prints.
Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from r1rl.config.engines import training_engine
from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, POSITIVE, SHARE, Interval


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """The policy: the source of its weights and the precision that it computes in."""

    path: str = option(
        "embedded",
        'a hub name, a folder, a run directory (its newest checkpoint), or "embedded" for the small base '
        "model that ships with r1rl (embedded-small: a smaller one)",
        path="any",
    )
    revision: str | None = option(None, "the hub revision (branch, tag or commit); recorded with the run")
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        "precision of the forward and backward passes; auto: bfloat16 on a GPU, float32 on a CPU. Weights "
        "that are trained stay float32",
    )
    gradient_checkpointing: bool | None = option(
        None,
        "activation checkpointing: recompute activations in the backward pass, which takes less memory and "
        "about a third more time. null: on a GPU that can't hold them, by the estimate of r1rl check",
    )


@dataclass(kw_only=True, slots=True)
class LoRAConfig:
    """Low-rank adapters: the model's weights stay as they are, and W x + (alpha / rank) B A x is computed in
    the place of W x.
    """

    rank: int = option(32, "rows of A and columns of B", within=COUNT)
    alpha: int = option(32, "the adapter's part is multiplied by alpha / rank", within=COUNT)
    target_modules: list[str] = option(
        [],
        "names of the decoder's linear layers that get an adapter, such as [q_proj, v_proj]; empty: all of "
        "them",
    )


@dataclass(kw_only=True, slots=True)
class PolicyConfig(ModelConfig):
    """The policy, trained as a whole or through adapters."""

    lora: LoRAConfig | None = option(
        None,
        "train adapters only, with the extra peft ({}: its defaults); the model's own weights are loaded in "
        "dtype, frozen, and are the reference of beta. null: train all weights",
    )


@dataclass(kw_only=True, slots=True)
class SourceConfig:
    """One source of problems."""

    source: str = required(
        "a hub name, a .jsonl/.parquet/.csv file, or a generator: arithmetic, word_problems, countdown, "
        "solved_countdown, small_talk",
        path="data",
    )
    subset: str | None = option(None, "the hub data set's configuration, such as main")
    split: str = option(
        "train", "the split to read; generators have train and test, which never share a problem"
    )
    revision: str | None = option(None, "the hub data set's revision")
    columns: dict[str, str] = option({}, "our column: theirs, such as {problem: question, answer: solution}")
    answer_format: Literal["plain", "boxed", "after_hashes"] = option(
        "plain",
        "the place of the answer in its column. plain: the whole column; boxed: in the last \\boxed{} "
        "(MATH); after_hashes: after #### (GSM8K)",
    )
    arguments: dict[str, Any] = option(
        {}, "the generator's arguments, such as {count: 4096, numbers: [3, 4]}"
    )
    where: dict[str, Any] = option(
        {}, "keep rows whose column has this value or one of these values, such as {level: [3, 4, 5]}"
    )
    limit: int | None = option(None, "use only the first so many problems, after where", within=COUNT)
    constants: dict[str, Any] = option(
        {}, "columns that have one value in all rows of this source, such as {domain: reasoning}"
    )


@dataclass(kw_only=True, slots=True)
class ProblemsConfig(SourceConfig):
    """The source of problems, or several sources that are mixed."""

    mix: list[SourceConfig] = option(
        [],
        "further sources whose rows are added to these; the number of rows of each is its share (see limit, "
        "and the generators' count)",
    )


@dataclass(kw_only=True, slots=True)
class PromptsConfig(ProblemsConfig):
    """The source of problems, and the longest prompt that is asked."""

    max_prompt_tokens: int | None = option(
        None, "prompts longer than this are dropped and counted", within=COUNT
    )


@dataclass(kw_only=True, slots=True)
class DataConfig(PromptsConfig):
    """The source of the problems of a training, and their order."""

    shuffle: bool = option(True, "visit the rows in an order drawn from the run's seed")


@dataclass(kw_only=True, slots=True)
class PromptConfig:
    """The form in which a problem becomes the text that the policy continues."""

    template: str = option(
        "r1_zero", "r1_zero, plain, chat, none, or a path to a text file that contains {problem}", path="any"
    )
    prefill: str = option(
        "",
        'text put after the template as the policy\'s first words, such as "<think>"; counted as its own by '
        "the rewards",
    )
    system: str | None = option(None, "system message; chat template only")
    demonstrations: str | None = option(
        None,
        "few-shot: a .jsonl file of {problem, completion}, which are put, with their answers, before every "
        "problem",
        path="any",
    )
    stop: list[str] = option([], 'strings that end a completion, such as ["</answer>"]; kept in the text')
    eos_token_ids: list[int] = option(
        [], "token ids that end a completion; empty: those of the model's generation config and tokenizer"
    )


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    """One reward function of the recipe."""

    function: str = required(
        "a built-in name (accuracy), a module (rewards.my_module:function) or a file "
        "(path/to/file.py:function)",
        path="code",
    )
    name: str | None = option(None, "its name in metrics, gates and outcome; null: the function's name")
    weight: float = option(1.0, "its factor in the total reward; 0 only measures it")
    arguments: dict[str, Any] = option({}, "keyword arguments for the function")
    where: dict[str, Any] = option(
        {},
        "applies only to rows whose column has this value or one of these values, such as {domain: "
        "reasoning}",
    )
    when: dict[str, Any] = option(
        {},
        "gate: applies only where another reward of this recipe is in a range, such as {accuracy: 0} or "
        "{format: {min: 0.5}}",
    )
    timeout: float = option(
        30.0,
        "seconds for one batch; rows not scored by then count as not applicable and are reported",
        within=POSITIVE,
    )


@dataclass(kw_only=True, slots=True)
class VLLMConfig:
    """The settings of vLLM as the rollout engine."""

    mode: Literal["colocate", "server"] = option(
        "colocate",
        "colocate: on the training GPUs, asleep during the update; server: one that was started with vllm "
        "serve",
    )
    server_url: str = option("http://localhost:8000", "server: its address")
    server_timeout: float = option(240.0, "server: seconds to wait for it at the start", within=POSITIVE)
    tensor_parallel_size: int = option(
        1, "colocate: GPUs that share one copy of the model; divides the number of processes", within=COUNT
    )
    gpu_memory_utilization: float = option(
        0.3,
        "colocate: share of a GPU's memory for vLLM's weights and cache",
        within=Interval(above=0, below=1),
    )


@dataclass(kw_only=True, slots=True)
class RolloutConfig:
    """The size of a step, and how its completions are sampled."""

    engine: str = training_engine()
    vllm: VLLMConfig = section(VLLMConfig, "engine: vllm only")
    num_prompts: int = option(32, "P: prompts per optimizer batch, over all processes", within=COUNT)
    num_generations: int = option(8, "G: completions per prompt", within=COUNT)
    max_completion_length: int = option(1024, "tokens", within=COUNT)
    temperature: float = option(
        1.0, "sampling temperature; the loss trains the same tempered distribution", within=POSITIVE
    )
    top_p: float = option(1.0, "nucleus sampling; 1 is off", within=Interval(above=0, most=1))
    top_k: int = option(0, "sample among the k likeliest; 0 is off", within=COUNT_OR_OFF)
    min_p: float = option(
        0.0, "drop tokens below this share of the likeliest; 0 is off", within=Interval(least=0, below=1)
    )
    max_rows: int = option(0, "rows that decode at once; 0: as many as fit", within=COUNT_OR_OFF)
    compile_layers: bool | None = option(
        None,
        "native, on a GPU: compile the decoder layers of decode steps, which takes a while at the start; "
        "null: yes on a GPU",
    )


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = option(1e-6, "peak learning rate", within=POSITIVE)
    schedule: Literal["constant", "linear", "cosine"] = option("constant", "after the warm-up")
    warmup_steps: int = option(
        0, "steps, counted as max_steps counts them, in which the rate rises to its peak", within=COUNT_OR_OFF
    )
    final_share: float = option(0.0, "linear and cosine end at this share of the peak", within=SHARE)
    weight_decay: float = option(0.0, "decoupled, on matrices only", within=NOT_NEGATIVE)
    betas: list[float] = option([0.9, 0.999], "AdamW's moment decays")
    epsilon: float = option(1e-8, "AdamW's epsilon", within=POSITIVE)
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm; 0 is off", within=NOT_NEGATIVE)


@dataclass(kw_only=True, slots=True)
class UpdateConfig:
    """The division of a batch into micro-batches. No value here changes the gradient."""

    layout: Literal["auto", "packed", "padded"] = option(
        "auto",
        "packed: sequences one after the other, without padding; padded: a row each; auto: packed where "
        "that gives what the model's plain forward gives",
    )
    share_prompts: bool = option(
        True, "compute a prompt once for the completions of its group; packed layout only"
    )
    micro_batch_tokens: int = option(16384, "tokens per forward pass, padding included", within=COUNT)
    micro_batch_sequences: int | None = option(
        None, "at most so many sequences per forward pass", within=COUNT
    )
    logprob_chunk: int = option(4096, "completion tokens whose logits exist at the same time", within=COUNT)
    compile: bool | None = option(
        None,
        "compile the policy's forward with torch.compile; null: on a GPU in bfloat16, without gradient "
        "checkpointing",
    )


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """Held-out problems answered before, during and after training."""

    data: ProblemsConfig | None = option(None, "held-out problems; null: none")
    num_problems: int = option(256, "problems of the evaluations before and after training", within=COUNT)
    num_samples: int = option(4, "completions per problem, sampled as in training", within=COUNT)
    every_steps: int = option(
        0,
        "steps between evaluations during training, besides those before and after; 0: none during training",
        within=COUNT_OR_OFF,
    )
    during_problems: int = option(64, "problems of an evaluation during training", within=COUNT)
    at_start: bool = option(True, "evaluate the model that training starts from")


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """The checkpoints: when one is saved, and how many are kept."""

    every_steps: int = option(
        100, "steps between checkpoints; one is also saved at the end and on Ctrl-C", within=COUNT_OR_OFF
    )
    keep: int = option(2, "number of newest checkpoints that are kept; 0 keeps all", within=COUNT_OR_OFF)


def hooks_option() -> Any:
    """Declare the key `hooks` of a recipe that trains in steps."""
    return option(
        [],
        "code of your own that the run calls after a step, an evaluation, a checkpoint and at the end, such "
        "as [path/to/file.py:MyHook, my_package.my_module:MyHook]; docs/hooks.md",
    )


@dataclass(kw_only=True, slots=True)
class LoggingConfig:
    """The display, the logs and the trackers of a run."""

    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = option(
        [], "experiment trackers, through accelerate"
    )
    completions_every: int = option(
        10, "steps between those whose completions are written; 0: none are", within=COUNT_OR_OFF
    )
    show_completions: int = option(
        1, "completions printed with the table of those steps", within=COUNT_OR_OFF
    )
    live: bool = option(True, "live table and progress bar; false: one line per step")


@dataclass(kw_only=True, slots=True)
class EndpointConfig:
    """A server with OpenAI's interface that samples in the place of the rollout engine.

    Such servers are vLLM, SGLang, llama.cpp and hosted models.
    """

    url: str = required("base address of the API, /v1 included, such as http://localhost:8000/v1")
    model: str | None = option(None, "the model's name at the server; null: the model's path")
    key_variable: str = option(
        "OPENAI_API_KEY", "the environment variable that holds the key; none is sent if it is not set"
    )
    concurrency: int = option(16, "requests that may be open at the same time", within=COUNT)
    timeout: float = option(600.0, "seconds for one completion", within=POSITIVE)
    retries: int = option(
        5,
        "further attempts after a refusal for load (429), a server error or a lost connection",
        within=COUNT_OR_OFF,
    )


@dataclass(kw_only=True, slots=True)
class SampledModelConfig:
    """A model that only writes: nothing trains it."""

    path: str = option(
        "embedded",
        'a run directory, a folder with a model or a PEFT adapter, a hub name, or "embedded"',
        path="any",
    )
    revision: str | None = option(None, "the hub revision (branch, tag or commit)")
    base: str | None = option(
        None,
        "the model that a PEFT adapter is merged into; null: the one that its configuration names",
        path="any",
    )
    step: int | None = option(
        None, "the checkpoint of this step of a run directory; null: the newest", within=COUNT_OR_OFF
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "auto: bfloat16 on a GPU, float32 on a CPU"
    )
    endpoint: EndpointConfig | None = option(None, "sample from a server; null: load the model here")


@dataclass(kw_only=True, slots=True)
class SamplingConfig:
    """The settings of sampling where nothing is trained on the distribution of the completions."""

    temperature: float = option(0.6, "0 is greedy", within=NOT_NEGATIVE)
    top_p: float = option(0.95, "nucleus sampling; 1 is off", within=Interval(above=0, most=1))
    top_k: int = option(0, "sample among the k likeliest; 0 is off", within=COUNT_OR_OFF)
    min_p: float = option(
        0.0, "drop tokens below this share of the likeliest; 0 is off", within=Interval(least=0, below=1)
    )
    repetition_penalty: float = option(1.0, "1 is off", within=POSITIVE)


@dataclass(kw_only=True, slots=True)
class EvaluatedModelConfig(SampledModelConfig):
    """One model of an evaluation."""

    path: str = required(
        'a run directory, a folder with a model or a PEFT adapter, a hub name, or "embedded"', path="any"
    )
    name: str | None = option(None, "its name in tables and folders; null: the last part of the path")
    every_step: bool = option(
        False,
        "evaluate every kept checkpoint of a run directory and the model that training started from: a curve",
    )
