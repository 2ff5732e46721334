"""`r1rl pretrain`: a small base model on the synthetic maths text of `r1rl.pretrain.corpus`.

It is made from scratch or from another such model. The run directory gets the metrics, and in checkpoints/ a
folder with the model, its tokenizer and a model card that says how it was made and how often each habit
answers right. The command needs no accelerate and no data set; a GPU is used if there is one.

Legend: B rows of a batch, T tokens of a row.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from r1rl import problems
from r1rl.compute.environment import describe_environment
from r1rl.compute.optimization import make_optimizer, make_schedule
from r1rl.errors import RecipeError
from r1rl.models.checkpoint_folders import checkpoint_path
from r1rl.models.loading import default_device, load_model, load_tokenizer
from r1rl.monitor import metric_names as metrics
from r1rl.pretrain.corpus import END_OF_TEXT, documents, packed_rows
from r1rl.pretrain.habit_table import measure_habits
from r1rl.pretrain.model_card import model_card
from r1rl.pretrain.recipe import ArchitectureConfig, CorpusConfig, PretrainRecipe
from r1rl.pretrain.tokenizer import as_transformers, train_tokenizer
from r1rl.problems.habits import HABITS, LANGUAGES
from r1rl.runs.run_directory import RunDirectory
from r1rl.seeds import derive_seed

TOKENIZER_DOCUMENTS = 20_000
"""The number of documents that the tokenizer is trained on."""
TOKENIZER_CHUNK = -1
"""The chunk as which those documents are drawn; the chunks that the model learns from count from 0."""
MAX_VOCABULARY = 1 << 16
"""The largest vocabulary, since rows are kept as uint16."""
REPORT_EVERY = 20
"""The number of steps between two readings of the loss, each of which waits for the GPU."""


def run(recipe: PretrainRecipe, recipe_path: Path) -> None:
    """Make the model of a recipe. Raise `UserError` for a recipe that can't be run."""
    check_corpus(recipe.corpus, recipe_path)
    directory = RunDirectory.create(recipe.output_dir, recipe.run_name)
    directory.write_start(recipe, describe_environment(recipe.seed))
    console = Console()
    started = time.perf_counter()
    device = default_device()

    tokenizer = (
        make_tokenizer(recipe) if recipe.start is None else starting_tokenizer(recipe.start, recipe_path)
    )
    rows = packed_rows(recipe.corpus, recipe.seed, tokenizer.backend_tokenizer, recipe.sequence_length)
    model = (
        build_model(recipe.architecture, tokenizer, recipe.seed)
        if recipe.start is None
        else load_model(recipe.start, torch.float32, key=f"{recipe_path}: start")
    )
    model = move(model, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    seconds = time.perf_counter() - started
    text = f"{recipe.corpus.documents:,} documents in {rows.size:,} tokens ({seconds:.0f} s)"
    console.print(f"{text}; {parameters:,} parameters on {device}")

    final_loss = train(model, rows, recipe, directory, console)
    seconds = time.perf_counter() - started
    folder = checkpoint_path(directory.checkpoints, recipe.max_steps)
    save(model, tokenizer, recipe, folder)

    model.eval()
    tables = [
        measure_habits(
            model, tokenizer, task, recipe.corpus.arguments.get(task, {}), recipe, Path(recipe_path).parent
        )
        for task in (recipe.corpus.tasks if recipe.measured_problems else ())
        if problems.GENERATORS[task].has_answers
    ]
    figures = {"parameters": parameters, "tokens": rows.size, "seconds": seconds, "loss": final_loss}
    directory.write_summary({**figures, "habits": {table.task: table.as_json() for table in tables}})
    (folder / "README.md").write_text(model_card(recipe, recipe_path, figures, tables), encoding="utf-8")
    for table in tables:
        console.print(table.as_rich())
    console.print(f"{seconds:.0f} s; the model is in {folder}")


def check_corpus(corpus: CorpusConfig, recipe_path: Path) -> None:
    """Raise `RecipeError` or `DataError` if the text can't be written: an unknown task, argument or habit."""
    for habit in corpus.habits:
        if habit not in HABITS:
            raise RecipeError(
                f'{recipe_path}: corpus.habits has "{habit}"; the habits are {", ".join(HABITS)}.'
            )
    for language in corpus.languages:
        if language not in LANGUAGES:
            raise RecipeError(
                f'{recipe_path}: corpus.languages has "{language}"; the languages are {", ".join(LANGUAGES)}.'
            )
    for task in corpus.tasks:
        problems.parse_arguments(task, corpus.arguments.get(task, {}))
        if not problems.GENERATORS[task].is_corpus_task:
            raise RecipeError(f"{recipe_path}: corpus.tasks has {task}, which no texts are written about.")
    for task in corpus.arguments:
        if task not in corpus.tasks:
            raise RecipeError(
                f"{recipe_path}: corpus.arguments has {task}, which corpus.tasks does not name."
            )


def make_tokenizer(recipe: PretrainRecipe) -> PreTrainedTokenizerBase:
    """Train the tokenizer of the recipe's text."""
    texts = documents(
        recipe.corpus, recipe.seed, TOKENIZER_CHUNK, min(TOKENIZER_DOCUMENTS, recipe.corpus.documents)
    )
    tokenizer: Tokenizer = train_tokenizer(texts, recipe.architecture.vocab_size)
    return as_transformers(tokenizer, recipe.architecture.max_position_embeddings)


def starting_tokenizer(start: str, recipe_path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the model that training goes on from.

    Raises RecipeError where it does not have the corpus's own end of text, or more ids than fit into uint16.
    """
    tokenizer = load_tokenizer(start, key=f"{recipe_path}: start")
    if END_OF_TEXT not in tokenizer.get_vocab() or len(tokenizer) > MAX_VOCABULARY:
        raise RecipeError(
            f"{recipe_path}: start: {start} is no model of r1rl pretrain: its tokenizer is another one."
        )
    return tokenizer


def build_model(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Qwen3ForCausalLM:
    """Make a Qwen3 decoder with random weights; input and output embeddings are one matrix."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_key_value_heads,
        head_dim=architecture.head_dim,
        intermediate_size=architecture.intermediate_size,
        max_position_embeddings=architecture.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(derive_seed(seed, "initialisation"))
    return Qwen3ForCausalLM(config)


def move(model: PreTrainedModel, place: torch.device | torch.dtype) -> PreTrainedModel:
    """Move the model to a device or a precision, in place.

    transformers' own `to` has no type that mypy can read.
    """
    torch.nn.Module.to(model, place)
    return model


def train(
    model: PreTrainedModel,
    rows: np.ndarray,
    recipe: PretrainRecipe,
    directory: RunDirectory,
    console: Console,
) -> float:
    """Train next-token prediction on the rows.

    Write one line of metrics for each step, and return the mean loss of the last steps.
    """
    data = torch.from_numpy(rows.astype(np.int32)).to(model.device)
    optimizer = make_optimizer(model, recipe.optimizer)
    schedule = make_schedule(optimizer, recipe.max_steps, recipe.optimizer)
    columns = (
        TextColumn("pretrain"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    waiting: list[tuple[int, float, Tensor, Tensor]] = []
    last, losses = time.perf_counter(), [0.0]
    model.train()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=recipe.max_steps, loss="-")
        for step, rows_B in enumerate(islice(batches(len(data), recipe), recipe.max_steps), start=1):
            learning_rate = float(schedule.get_last_lr()[0])
            loss, norm = train_step(
                model, data[rows_B.to(data.device)].long(), optimizer, recipe.optimizer.max_grad_norm
            )
            schedule.step()
            waiting.append((step, learning_rate, loss, norm))
            if step % REPORT_EVERY and step != recipe.max_steps:
                continue
            losses = [one.item() for _, _, one, _ in waiting]
            seconds, last = (time.perf_counter() - last) / len(waiting), time.perf_counter()
            for (at, rate, _, one_norm), value in zip(waiting, losses, strict=True):
                figures = {
                    "loss": value,
                    metrics.LEARNING_RATE: rate,
                    metrics.GRAD_NORM: one_norm.item(),
                    metrics.TIME_STEP: seconds,
                }
                directory.append_metrics(
                    {metrics.STEP: at, **figures, metrics.TOKENS_PER_SECOND: recipe.batch_tokens / seconds}
                )
            waiting.clear()
            progress.update(bar, completed=step, loss=f"{losses[-1]:.3f}")
    return sum(losses) / len(losses)


def batches(num_rows: int, recipe: PretrainRecipe) -> Iterator[Tensor]:
    """Yield the row numbers of each batch: every row once in a random order, then again in another."""
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "batches"))
    size = recipe.batch_tokens // recipe.sequence_length
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(num_rows, generator=generator)])
        yield order[:size]
        order = order[size:]


def train_step(
    model: PreTrainedModel, tokens_BT: Tensor, optimizer: torch.optim.Optimizer, max_grad_norm: float
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step, and return the loss (nats per token) and the gradient's norm, still on the
    device.
    """
    with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=tokens_BT.is_cuda):
        logits_BTV = model(input_ids=tokens_BT[:, :-1], use_cache=False).logits
    loss = F.cross_entropy(logits_BTV.float().flatten(0, 1), tokens_BT[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
    optimizer.step()
    return loss.detach(), norm.detach()


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: PretrainRecipe, folder: Path
) -> None:
    """Write a folder that AutoModelForCausalLM and AutoTokenizer load."""
    ids: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = move(model, torch.bfloat16 if recipe.save_dtype == "bfloat16" else torch.float32)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
