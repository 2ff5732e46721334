"""The sources of rows for supervised training: texts to imitate, or pairs of a chosen and a rejected
answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from r1rl.config.fields import option, required
from r1rl.config.intervals import COUNT, POSITIVE
from r1rl.config.schema import (
    OptimizerConfig,
)


@dataclass(kw_only=True, slots=True)
class RowsConfig:
    """A data set whose rows hold more than problems."""

    source: str = required(
        "a hub name, a .jsonl/.json/.parquet/.csv file, or a generator: small_talk, solved_countdown",
        path="data",
    )
    subset: str | None = option(None, "the hub data set's configuration, such as main")
    split: str = option("train", "the split to read")
    revision: str | None = option(None, "the hub data set's revision")
    arguments: dict[str, Any] = option({}, "the generator's arguments, such as {count: 4096}")
    columns: dict[str, str] = option({}, "our column: theirs")
    where: dict[str, Any] = option(
        {}, "keep rows whose column has this value or one of these values, such as {level: [3, 4, 5]}"
    )
    limit: int | None = option(None, "use only the first so many rows, after where", within=COUNT)
    shuffle: bool = option(True, "visit the rows in an order drawn from the run's seed")


@dataclass(kw_only=True, slots=True)
class SupervisedOptimizerConfig(OptimizerConfig):
    """AdamW and its schedule, with defaults for learning from given texts."""

    learning_rate: float = option(1e-5, "peak learning rate", within=POSITIVE)
    schedule: Literal["constant", "linear", "cosine"] = option("cosine", "after the warm-up")


@dataclass(kw_only=True, slots=True)
class DemonstrationsConfig(RowsConfig):
    """The source of the texts to imitate."""

    columns: dict[str, str] = option(
        {},
        "our column: theirs; ours are problem, prompt (rendered already), completion, prefill, "
        "finish_reason, messages",
    )


@dataclass(kw_only=True, slots=True)
class PreferencesConfig(RowsConfig):
    """The source of the pairs."""

    columns: dict[str, str] = option({}, "our column: theirs; ours are problem, chosen, rejected")
