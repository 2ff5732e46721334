"""The check of a recipe of `r1rl evaluate`: what `r1rl check` shows of it."""

from __future__ import annotations

from r1rl.config.awaited import Awaited
from r1rl.config.schema import EvaluatedModelConfig
from r1rl.data.benchmarks import LoadedBenchmark, load_benchmark
from r1rl.errors import HubUnreachable
from r1rl.evaluation.benchmarks import benchmarks_of
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.preflight.context import CheckContext
from r1rl.preflight.findings import Findings
from r1rl.preflight.settings import check_template
from r1rl.runs.run_directory import check_writable
from r1rl.sampling_jobs.loading import check_fit, render_target
from r1rl.sampling_jobs.targets import find_targets


def check(recipe: EvaluateRecipe, context: CheckContext) -> Findings:
    """Check benchmarks and models, and that prompts and completions fit into the models.

    Raises a UserError for what would keep the evaluation from starting.
    """
    findings = Findings()
    check_writable(recipe.output_dir)
    check_template(recipe.prompt.template)
    loaded = _load_benchmarks(recipe, findings)
    for target in find_targets(_models_here(recipe, context.awaited, findings)):
        findings.rows.append(("model", f"{target.label}: {target.path}"))
        if target.config.endpoint is None and loaded:
            try:
                findings.notes.append(check_fit(render_target(target, recipe.prompt, loaded), loaded))
            except HubUnreachable as error:
                findings.unchecked.append(str(error))
    return findings


def _load_benchmarks(recipe: EvaluateRecipe, findings: Findings) -> list[LoadedBenchmark]:
    loaded = []
    for config in benchmarks_of(recipe):
        try:
            loaded.append(
                load_benchmark(config, recipe.local_dir, recipe.num_problems, recipe.fresh_seed or 0)
            )
        except HubUnreachable as error:
            findings.unchecked.append(str(error))
    for benchmark in loaded:
        config = benchmark.config
        row = (
            f"{config.name}: {len(benchmark.problems)} problems x {config.num_samples} samples of at most "
            f"{config.max_completion_length} tokens"
        )
        findings.rows.append(("" if findings.rows else "benchmarks", row))
        findings.notes += benchmark.notes
    return loaded


def _models_here(recipe: EvaluateRecipe, awaited: Awaited, findings: Findings) -> list[EvaluatedModelConfig]:
    here = []
    for number, model in enumerate(recipe.models):
        reason = awaited.get(f"models.{number}.path")
        if reason is not None:
            findings.unchecked.append(f"models.{number}.path: {reason}.")
        else:
            here.append(model)
    return here
