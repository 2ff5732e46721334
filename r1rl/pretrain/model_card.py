"""The model card of a small base model: how it was made and how it scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from r1rl.pretrain.habit_table import PROMPT, HabitTable
from r1rl.pretrain.recipe import PretrainRecipe


def model_card(
    recipe: PretrainRecipe, recipe_path: Path, figures: Mapping[str, Any], tables: Sequence[HabitTable]
) -> str:
    """Return the README.md of the model's folder.

    `figures` are the parameters, tokens, seconds and loss of the run.
    """
    corpus, shape = recipe.corpus, recipe.architecture
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    where = Path(recipe_path).name if Path(recipe_path).is_absolute() else Path(recipe_path).as_posix()
    trained = recipe.max_steps * recipe.batch_tokens
    origin, architecture = f"from {recipe.start}", f"that of {recipe.start}"
    if recipe.start is None:
        origin = "from scratch"
        architecture = (
            f"Qwen3, width {shape.hidden_size}, {shape.num_layers} layers, {shape.num_heads} heads "
            f"({shape.num_key_value_heads} key/value "
            f"heads) of {shape.head_dim}, MLP {shape.intermediate_size}, tied embeddings; byte-level BPE in "
            f"which every digit is a token"
        )
    sections = [
        "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-generation\n---",
        f"# {recipe.run_name}",
        f"A base model for experiments with reinforcement learning: {figures['parameters']:,} parameters, "
        f"made {origin} by r1rl on "
        "synthetic maths text. Most of that text answers at once and is often wrong, some of it works one "
        "attempt out, and a little of it "
        "checks its attempts and goes on after a failure. It knows nothing else: it is of no use outside "
        "its own tasks.",
        "## How it was made",
        f"    r1rl pretrain {where} seed={recipe.seed}",
        f"- Text: {corpus.documents:,} documents ({figures['tokens']:,} tokens); tasks "
        f"{_shares(corpus.tasks)}; habits "
        f"{_shares(corpus.habits)}; remarks on an attempt {_shares(corpus.languages)}. An attempt is right "
        f"with probability "
        f"{corpus.hit_rate:g}; a checked solution goes on after a failed attempt with probability "
        f"{corpus.persistence:g}, and "
        f"{corpus.stubborn:.0%} of them go on to the last of {corpus.max_attempts} attempts. "
        f"{corpus.tagged:.0%} of the documents are in think/answer tags, and {corpus.sloppy:.0%} of those "
        f"leave a tag out. "
        "Only problems of the train split occur.",
        f"- Architecture: {architecture}.",
        f"- Training: {recipe.max_steps:,} steps of {recipe.batch_tokens:,} tokens "
        f"({trained / figures['tokens']:.1f} passes), final loss "
        f"{figures['loss']:.3f} nats per token; {figures['seconds']:.0f} s on {machine} (torch "
        f"{torch.__version__}, transformers "
        f"{transformers.__version__}).",
    ]
    if tables:
        sections += [
            "## What it scores",
            f"Held-out problems, {recipe.measured_samples} completions each at temperature 1, asked as "
            f"`User: PROBLEM\\nAssistant:{PROMPT.prefill}`. A completion is *checked* if it compares a "
            f"result with what was asked, "
            "*worked* if it calculates without that, else *direct*. Length is in tokens.",
        ]
        sections += [_table(table) for table in tables]
    return "\n\n".join(sections) + "\n"


def _table(table: HabitTable) -> str:
    passes = ", ".join(f"pass@{k} {value:.3f}" for k, value in sorted(table.pass_at.items()))
    header = [("habit", "share", "accuracy", "mean length"), ("---",) * 4]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in [*header, *table.rows()])
    return f"**{table.task}** ({table.num_problems} problems): {passes}\n\n{rows}"


def _shares(shares: Mapping[str, float]) -> str:
    total = sum(shares.values())
    return ", ".join(f"{name} {share / total:.0%}" for name, share in shares.items())
