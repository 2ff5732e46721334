"""The file that `r1rl generate` leaves, one completion a line, and the figures of its summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from r1rl.generate.recipe import GenerateRecipe
from r1rl.generate.rounds import Round, Tally, in_output_order
from r1rl.monitor.progress import format_seconds
from r1rl.sampling_jobs.sample_log import OWN_COLUMNS
from r1rl.types import Prompt, Sample


def output_rows(rounds: Sequence[Round], model: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of all rounds, in the order of the problems and their samples; an answer comes before
    its verification.
    """
    first, *others = [in_output_order(one) for one in rounds]
    waiting = [next(other, None) for other in others]
    for pair in first:
        yield output_row(rounds[0].name, *pair, model)
        for place, other in enumerate(others):
            found = waiting[place]
            if found is not None and found[1].key == pair[1].key:
                yield output_row(rounds[place + 1].name, *found, model)
                waiting[place] = next(other, None)


def output_row(name: str, prompt: Prompt, sample: Sample, model: str) -> dict[str, Any]:
    """Return one line: the problem with all its columns, and what the model wrote after the prefill.

    A column of the data that is called like one of ours is kept as source_<name>.
    """
    problem = prompt.problem
    columns = {
        f"source_{name}" if name in OWN_COLUMNS else name: value for name, value in problem.columns.items()
    }
    return {
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        **{name: _as_json(value) for name, value in columns.items()},
        "prompt": prompt.text,
        "prefill": prompt.prefill,
        "completion": sample.text,
        "finish_reason": sample.finish_reason,
        "tokens": sample.tokens,
        "sample": sample.sample,
        "seed": sample.seed,
        "model": model,
        "round": name,
    }


def _as_json(value: Any) -> Any:
    """Return the value, or its text where JSON has no such type (dates and bytes of parquet files)."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def summarize(
    recipe: GenerateRecipe,
    model: str,
    num_problems: int,
    rounds: Sequence[Round],
    tallies: Sequence[Tally],
    seconds: float,
    path: Path,
) -> dict[str, Any]:
    """Return the figures of summary.json. `tokens_per_second` is that of the last session, None if it sampled
    nothing.
    """
    tokens: dict[str, list[int]] = {one.name: [] for one in rounds}
    reasons: dict[str, Counter[str]] = {one.name: Counter() for one in rounds}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            tokens[row["round"]].append(row["tokens"])
            reasons[row["round"]][row["finish_reason"]] += 1
    sampled = sum(tally.tokens for tally in tallies)
    return {
        "run_name": recipe.run_name,
        "model": model,
        "seed": recipe.seed,
        "num_problems": num_problems,
        "num_samples": recipe.num_samples,
        "num_completions": sum(map(len, tokens.values())),
        "rounds": {
            one.name: {
                "num_completions": len(tokens[one.name]),
                "mean_length": sum(tokens[one.name]) / len(tokens[one.name]) if tokens[one.name] else None,
                "truncated_rate": reasons[one.name]["length"] / len(tokens[one.name])
                if tokens[one.name]
                else None,
                "finish_reasons": dict(sorted(reasons[one.name].items())),
                "prompts_too_long": tally.too_long,
                "requests_refused": tally.refused,
            }
            for one, tally in zip(rounds, tallies, strict=True)
        },
        "sampled_in_last_session": sum(tally.completions for tally in tallies),
        "seconds": round(seconds, 3),
        "tokens_per_second": round(sampled / seconds, 1) if sampled and seconds else None,
    }


def print_summary(console: Console, summary: dict[str, Any], path: Path) -> None:
    """Print a few lines for the terminal."""
    for name, figures in summary["rounds"].items():
        if figures["mean_length"] is not None:
            sizes = f"{figures['mean_length']:.0f} tokens on average, {figures['truncated_rate']:.1%} cut off"
            console.print(Text(f"{name}: {figures['num_completions']} completions, {sizes}"))
        for key, words in (
            ("prompts_too_long", "prompts were too long and were left out"),
            ("requests_refused", "requests were refused"),
        ):
            if figures[key]:
                console.print(Text(f"{name}: {figures[key]} {words}", style="yellow"))
    if summary["tokens_per_second"]:
        console.print(
            Text(f"{summary['tokens_per_second']:.0f} tokens/s over {format_seconds(summary['seconds'])}")
        )
    console.print(Text(f"In {path}"))
