"""The commands of r1rl: what each is for, which recipe it reads, and the function that runs it."""

from __future__ import annotations

from dataclasses import dataclass

from r1rl.config.load import RECIPES


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag `--name [VALUE]` of a command: absent None, without a value `bare`, else the value.

    With `places`, the names of several values, it needs all of them, gives them as a list, and takes the
    place of the recipe.
    """

    name: str
    bare: str
    help: str
    places: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """How it is written."""
        return f"--{self.name} {' '.join(self.places) if self.places else '[VALUE]'}"


@dataclass(frozen=True, slots=True)
class Command:
    """One command: what it is for, and the function `target` ("module:function") that gets the recipe, its
    path and the flags.
    """

    name: str
    summary: str
    explanation: str
    examples: tuple[str, ...]
    target: str
    flags: tuple[Flag, ...] = ()
    many_processes: bool = False

    @property
    def recipe(self) -> type | None:
        """The recipe that the command reads; None if it reads those of all others."""
        return RECIPES.get(self.name)


TINY = "recipes/zero_rl/tiny.yaml"
DISTILL = "recipes/distill/qwen2.5-7b_to_1.5b_math.yaml"

COMMANDS = {
    command.name: command
    for command in (
        Command(
            name="check",
            summary="everything about a recipe of any command that can be known before the model is loaded",
            explanation=(
                "Reads the data, resolves the rewards and compares their parameters with the columns, "
                "renders a prompt, grades every gold "
                "answer against itself, counts prompt tokens, and estimates the memory that each GPU needs. "
                "Takes the recipe of every "
                "command, trains nothing and needs no GPU. What can't be reached from here, such as data on "
                "the hub, is named and left out."
            ),
            examples=(
                f"r1rl check {TINY}",
                f"r1rl check {TINY} data.limit=100",
                "r1rl check recipes/zero_rl/qwen2.5-math-7b_math.yaml --gpus 4 --model-config config.json",
            ),
            target="r1rl.check.run:run",
            flags=(
                Flag(
                    "gpus",
                    "1",
                    "estimate the memory for so many GPUs; without it, for those of the recipe's header",
                ),
                Flag(
                    "accelerate",
                    "recipes/accelerate/fsdp2.yaml",
                    "estimate it for a launch with this accelerate configuration",
                ),
                Flag(
                    "model-config",
                    "config.json",
                    "the model's config.json, where the model itself is not here",
                ),
            ),
        ),
        Command(
            name="grpo",
            summary="reinforcement learning from rewards, such as zero-RL on a base model",
            explanation=(
                "Each step samples num_generations completions for each of num_prompts problems, scores "
                "them with the rewards, compares "
                "each with its group, and updates the policy. A run leaves metrics, completions, "
                "checkpoints, curves and a summary."
            ),
            examples=(
                f"r1rl grpo {TINY}",
                f"r1rl grpo {TINY} max_steps=20 rewards.1.weight=0.2 run_name=short",
                f"r1rl grpo {TINY} --resume",
                "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl grpo "
                "recipes/zero_rl/qwen2.5-math-7b_math.yaml",
            ),
            target="r1rl.grpo.run:run",
            flags=(
                Flag(
                    "resume",
                    "latest",
                    "go on from the run's last checkpoint, or from the checkpoint folder VALUE",
                ),
            ),
            many_processes=True,
        ),
        Command(
            name="distill",
            summary="a student learns a teacher's token distribution",
            explanation=(
                "Each step compares student and teacher at every token of completions that the student "
                "samples (on-policy), of completions "
                "from a file (off-policy), or of both, and makes the student's distribution more like the "
                "teacher's. docs/distillation.md."
            ),
            examples=(
                f"r1rl distill {DISTILL}",
                f"r1rl distill {DISTILL} divergence.kind=jsd divergence.beta=0.5",
                f"r1rl distill {DISTILL} --resume",
            ),
            target="r1rl.distill.run:run",
            flags=(
                Flag(
                    "resume",
                    "latest",
                    "go on from the run's last checkpoint, or from the checkpoint folder VALUE",
                ),
            ),
            many_processes=True,
        ),
        Command(
            name="evaluate",
            summary="scores of models on benchmarks, with intervals, what went wrong, and a report",
            explanation=(
                "Samples completions of every benchmark problem from every model, grades them, and compares "
                "the models on the same "
                "problems. The same command goes on where it was interrupted. Leaves a manifest beside "
                "every score and one report.html."
            ),
            examples=(
                "r1rl evaluate recipes/evaluate/tiny.yaml",
                "r1rl evaluate recipes/evaluate/tiny.yaml models.1.path=runs/tiny models.1.every_step=true",
                "r1rl evaluate recipes/evaluate/math.yaml local_dir=benchmarks benchmarks='[math500, "
                "my_problems.jsonl]'",
                "r1rl evaluate --compare runs/evaluate-tiny/base runs/evaluate-tiny/trained",
            ),
            target="r1rl.evaluation.run:run",
            flags=(
                Flag(
                    "compare",
                    "",
                    "no recipe: the paired difference B minus A of two folders with results",
                    places=("A", "B"),
                ),
                Flag("force", "yes", "compare also what was measured differently, and say what differs"),
            ),
            many_processes=True,
        ),
        Command(
            name="generate",
            summary="completions of problems from any model, as data for training",
            explanation=(
                "Samples num_samples completions of every problem from a model that is loaded here or from "
                "a server, with few-shot "
                "demonstrations or a verification round if asked for. The same command goes on where it was "
                "interrupted."
            ),
            examples=(
                "r1rl generate recipes/rejection/qwen2.5-7b_generate.yaml",
                "r1rl generate recipes/rejection/qwen2.5-7b_generate.yaml model.path=runs/mine "
                "num_samples=8 data.limit=1000",
                "accelerate launch --num_processes 8 -m r1rl generate "
                "recipes/rejection/qwen2.5-7b_generate.yaml",
            ),
            target="r1rl.generate.run:run",
            many_processes=True,
        ),
        Command(
            name="select",
            summary="the completions that are worth learning from: graded, filtered, without duplicates, "
            "with a report",
            explanation=(
                "Grades completions from files, such as r1rl generate writes, and runs the recipe's steps "
                "in a fixed order. Leaves the "
                "selected rows, the problems with their pass rates, and what each step removed."
            ),
            examples=(
                "r1rl select recipes/rejection/qwen2.5-7b_select.yaml",
                "r1rl select recipes/rejection/qwen2.5-7b_select.yaml "
                "sources.0.path=runs/mine/completions.jsonl per_problem=2",
            ),
            target="r1rl.select.run:run",
        ),
        Command(
            name="sft",
            summary="supervised fine-tuning on demonstrations, such as cold-start or rejection-sampled "
            "chains of thought",
            explanation=(
                "Trains what follows the prompt, rendered by the same template as in RL and evaluation, and "
                "the token that ends a "
                "completion. Rows that can't be used are counted by reason. The same run directory, "
                "--resume and held-out problems as grpo."
            ),
            examples=(
                "r1rl sft recipes/cold_start/qwen2.5-7b_sft.yaml model.path=runs/mine "
                "data.source=selected.jsonl",
                "r1rl sft recipes/cold_start/qwen2.5-7b_sft.yaml --resume",
                "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl sft "
                "recipes/cold_start/qwen2.5-7b_sft.yaml",
            ),
            target="r1rl.sft.run:run",
            flags=(
                Flag(
                    "resume",
                    "latest",
                    "go on from the run's last checkpoint, or from the checkpoint folder VALUE",
                ),
            ),
            many_processes=True,
        ),
        Command(
            name="reward-model",
            summary="a model that scores answers, from pairs of which one was preferred",
            explanation=(
                "Trains one output on top of any causal language model to score the chosen answer above the "
                "rejected one. The reward "
                "reward_model scores with it in r1rl grpo, on the same text of problem and answer."
            ),
            examples=(
                "r1rl reward-model recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml model.path=runs/mine "
                "data.source=pairs.jsonl",
                "r1rl reward-model recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml --resume",
                "accelerate launch --config_file recipes/accelerate/ddp.yaml -m r1rl reward-model "
                "recipes/all_scenario/qwen2.5-1.5b_reward-model.yaml",
            ),
            target="r1rl.reward_model.run:run",
            flags=(
                Flag(
                    "resume",
                    "latest",
                    "go on from the run's last checkpoint, or from the checkpoint folder VALUE",
                ),
            ),
            many_processes=True,
        ),
        Command(
            name="bench",
            summary="how long rollout, reward and update of a GRPO step take, also beside TRL",
            explanation=(
                "Times steps of a model shape with random weights (or of a model) on random prompts, with "
                "completions of given lengths, "
                "and says which share of the machine's measured speed they reach. Leaves bench.json; keeps "
                "no weights."
            ),
            examples=(
                "r1rl bench recipes/bench/tiny.yaml --against trl",
                "r1rl bench recipes/bench/tiny.yaml completion_length_mean=192 threads=1",
                "r1rl bench recipes/bench/qwen2.5-0.5b.yaml num_prompts=64 update.compile=true",
                "r1rl bench recipes/bench/qwen2.5-0.5b.yaml --against trl-vllm",
            ),
            target="r1rl.bench.run:run",
            flags=(
                Flag(
                    "against",
                    "trl",
                    "time TRL's trainer too, on the same work: trl with transformers' generate, trl-vllm "
                    "with vLLM",
                ),
            ),
        ),
        Command(
            name="pretrain",
            summary="a small base model from scratch on synthetic maths text",
            explanation="Trains a tokenizer and a small decoder; this is how the embedded base model was "
            "made.",
            examples=("r1rl pretrain recipes/pretrain/tiny.yaml",),
            target="r1rl.pretrain.run:run",
        ),
        Command(
            name="pipeline",
            summary="a chain of stages, such as the whole DeepSeek-R1 recipe, that goes on where it stopped",
            explanation=(
                "Runs the stages of a recipe in the order of their needs. A finished stage whose inputs "
                "(settings, data, weights, rewards) "
                "are unchanged is skipped; a changed one and those that depend on it run again, and what "
                "they had left is set aside; one "
                "that was interrupted goes on. STAGE.key=value overrides a key of a stage's recipe."
            ),
            examples=(
                "r1rl pipeline PIPELINE.yaml --dry-run",
                "r1rl pipeline PIPELINE.yaml r1_zero.max_steps=100",
            ),
            target="r1rl.pipeline.run:run",
            flags=(Flag("dry-run", "yes", "show what would run, why, and what it costs; run nothing"),),
        ),
    )
}
