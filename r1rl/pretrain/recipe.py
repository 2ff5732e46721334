"""The recipe of `r1rl pretrain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from r1rl.config.fields import option, required, section
from r1rl.config.intervals import COUNT, COUNT_OR_OFF, NOT_NEGATIVE, POSITIVE, SHARE, Interval
from r1rl.config.issues import Contradiction
from r1rl.config.schema import OptimizerConfig


@dataclass(kw_only=True, slots=True)
class ArchitectureConfig:
    """The shape of a small decoder made from scratch (Qwen3, which AutoModelForCausalLM loads)."""

    hidden_size: int = option(160, "width", within=COUNT)
    num_layers: int = option(4, "depth", within=COUNT)
    num_heads: int = option(4, "attention heads", within=COUNT)
    num_key_value_heads: int = option(2, "key/value heads (grouped-query attention)", within=COUNT)
    head_dim: int = option(40, "width of a head", within=COUNT)
    intermediate_size: int = option(448, "width of the gated MLP", within=COUNT)
    vocab_size: int = option(
        512, "entries of the byte-level BPE tokenizer that is trained on the corpus", within=COUNT
    )
    max_position_embeddings: int = option(1024, "longest sequence", within=COUNT)


@dataclass(kw_only=True, slots=True)
class CorpusConfig:
    """The synthetic maths text of a small base model: its problems, and the habits that their solutions
    show.
    """

    tasks: dict[str, float] = option({}, "generator: share of the documents")
    habits: dict[str, float] = option({}, "habit of the solution: share of the documents")
    hit_rate: float = option(
        0.5,
        "probability that an attempt at a solution is right, in every habit",
        within=Interval(above=0, most=1),
    )
    persistence: float = option(
        0.5, "probability that a checked solution goes on after a failed attempt", within=SHARE
    )
    max_attempts: int = option(9, "a checked solution gives up after so many attempts", within=COUNT)
    stubborn: float = option(0.1, "share of checked solutions that give up only then", within=SHARE)
    nearness: float = option(
        8.0,
        "countdown: wrong attempts whose value is d off are drawn with weight exp(-d / nearness)",
        within=POSITIVE,
    )
    languages: dict[str, float] = option(
        {"en": 1.0},
        "language of the remarks on an attempt (en, zh): its share. Each attempt draws its own, so that a "
        "text mixes them",
        within=NOT_NEGATIVE,
    )
    tagged: float = option(0.1, "share of documents in think/answer tags", within=SHARE)
    sloppy: float = option(0.2, "share of the tagged documents that leave a tag out", within=SHARE)
    documents: int = option(400_000, "documents", within=COUNT)
    arguments: dict[str, dict[str, Any]] = option({}, "generator: its arguments")


@dataclass(kw_only=True, slots=True)
class PretrainRecipe:
    """`r1rl pretrain`: a small base model on synthetic maths text, from scratch or from another one."""

    run_name: str = required("names the run directory")
    output_dir: str = option("runs", "run directories are made in here")
    seed: int = option(0, "seed of the corpus, the initialisation and the batches", within=NOT_NEGATIVE)
    max_steps: int = option(2000, "optimizer steps", within=COUNT)
    batch_tokens: int = option(65536, "tokens per optimizer step", within=COUNT)
    sequence_length: int = option(256, "documents are packed into rows of so many tokens", within=COUNT)
    save_dtype: Literal["float32", "bfloat16"] = option("float32", "precision of the saved weights")
    start: str | None = option(
        None,
        'a model of r1rl pretrain to continue from (a folder, a run directory, "embedded"), with its '
        "tokenizer; null: random weights",
        path="any",
    )
    architecture: ArchitectureConfig = section(
        ArchitectureConfig, "shape of the model that is made from scratch"
    )
    corpus: CorpusConfig = section(CorpusConfig, "the text")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW and its schedule")
    measured_problems: int = option(
        256,
        "held-out problems of each task that the finished model answers, for its model card; 0: none",
        within=COUNT_OR_OFF,
    )
    measured_samples: int = option(8, "completions for each of them", within=COUNT)


def contradictions(recipe: PretrainRecipe) -> Iterator[Contradiction]:
    """Yield the values of the recipe that contradict each other."""
    shape, corpus = recipe.architecture, recipe.corpus
    if shape.num_heads % shape.num_key_value_heads:
        yield (
            ("architecture.num_key_value_heads", "architecture.num_heads"),
            f"architecture.num_key_value_heads is {shape.num_key_value_heads}, "
            f"which does not divide architecture.num_heads ({shape.num_heads})",
        )
    if recipe.sequence_length > shape.max_position_embeddings:
        yield (
            ("sequence_length", "architecture.max_position_embeddings"),
            f"sequence_length is {recipe.sequence_length}, "
            f"more than architecture.max_position_embeddings ({shape.max_position_embeddings})",
        )
    if recipe.batch_tokens % recipe.sequence_length:
        yield (
            ("batch_tokens", "sequence_length"),
            f"batch_tokens is {recipe.batch_tokens}, which is not a multiple of sequence_length "
            f"({recipe.sequence_length})",
        )
    if recipe.start is not None and shape != ArchitectureConfig():
        yield (
            ("start", "architecture"),
            "architecture is set, but start names a model, which has its own: leave one of them out",
        )
    for key, shares in (
        ("corpus.tasks", corpus.tasks),
        ("corpus.habits", corpus.habits),
        ("corpus.languages", corpus.languages),
    ):
        if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
            yield (
                (key,),
                f"{key} is {shares or 'empty'}; it must give each name its share of the documents, such as "
                f"{{name: 0.5}}",
            )
