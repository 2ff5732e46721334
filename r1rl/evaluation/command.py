"""The record of `r1rl evaluate`."""

from __future__ import annotations

from r1rl.config.commands import Command, Flag, StageRecord
from r1rl.config.cost import Cost
from r1rl.evaluation.recipe import EvaluateRecipe, contradictions


def _cost(recipe: EvaluateRecipe) -> Cost:
    """Return the completions and their tokens at most where the recipe limits the problems; the benchmarks'
    own sizes are not read for it.
    """
    from r1rl.evaluation.benchmarks import benchmarks_of

    if recipe.num_problems is None:
        return Cost()
    counts = [
        (recipe.num_problems * benchmark.num_samples, benchmark.max_completion_length)
        for benchmark in benchmarks_of(recipe)
    ]
    models = len(recipe.models)
    completions = models * sum(completions for completions, _ in counts)
    return Cost(
        completions=completions, tokens=models * sum(completions * length for completions, length in counts)
    )


COMMAND = Command(
    name="evaluate",
    position=40,
    summary="scores of models on benchmarks, with intervals, what went wrong, and a report",
    explanation=(
        "Samples completions of every benchmark problem from every model, grades them, and compares the "
        "models on the same problems. The same command goes on where it was interrupted. Leaves a manifest "
        "beside every score and one report.html."
    ),
    examples=(
        "r1rl evaluate recipes/evaluate/tiny.yaml",
        "r1rl evaluate recipes/evaluate/tiny.yaml models.1.path=runs/tiny models.1.every_step=true",
        (
            "r1rl evaluate recipes/evaluate/math.yaml local_dir=benchmarks benchmarks='[math500, "
            "my_problems.jsonl]'"
        ),
        "r1rl evaluate --compare runs/evaluate-tiny/base runs/evaluate-tiny/trained",
    ),
    run="r1rl.evaluation.run:run",
    recipe=EvaluateRecipe,
    flags=(
        Flag(
            "compare",
            "",
            "no recipe: the paired difference B minus A of two folders with results",
            places=("A", "B"),
        ),
        Flag(
            "force",
            "yes",
            "compare also what was measured differently, and say what differs",
        ),
    ),
    many_processes=True,
    contradictions=contradictions,
    check="r1rl.evaluation.check:check",
    memory="r1rl.evaluation.memory:memory",
    stage=StageRecord(outputs={}, continuation="by itself", last_written="report.html", cost=_cost),
)
