"""What `r1rl check` finds in the recipes of the other commands: each runs what its command checks before it
loads a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1rl.config.schema import EvaluatedModelConfig
from r1rl.distill.recipe import DistillRecipe
from r1rl.errors import HubUnreachable
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.generate.recipe import GenerateRecipe
from r1rl.preflight.awaited import Awaited
from r1rl.preflight.findings import Findings
from r1rl.preflight.prompts import ModelUnavailable, add_prompts, render_prompts
from r1rl.preflight.settings import check_model_folder
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.runs.run_directory import check_writable
from r1rl.select.recipe import SelectRecipe
from r1rl.sft.recipe import SFTRecipe
from r1rl.text.prompts import CHAT, template_text


def check_pretrain(recipe: PretrainRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """Tasks, habits and sizes."""
    from r1rl.pretrain.run import check_corpus

    check_writable(recipe.output_dir)
    check_corpus(recipe.corpus, recipe_path)
    tokens = recipe.max_steps * recipe.batch_tokens
    return Findings(
        [
            ("corpus", f"{recipe.corpus.documents:,} documents"),
            ("training", f"{recipe.max_steps} steps, {tokens:,} tokens"),
        ]
    )


def check_evaluate(recipe: EvaluateRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """Benchmarks, models, and whether prompts and completions fit into them."""
    from r1rl.data.benchmarks import load_benchmark
    from r1rl.evaluation.benchmarks import benchmarks_of
    from r1rl.sampling_jobs.loading import check_fit
    from r1rl.sampling_jobs.targets import find_targets

    findings = Findings()
    check_writable(recipe.output_dir)
    _check_template(recipe.prompt.template)
    loaded = []
    for config in benchmarks_of(recipe):
        try:
            loaded.append(
                load_benchmark(config, recipe.local_dir, recipe.num_problems, recipe.fresh_seed or 0)
            )
        except HubUnreachable as error:
            findings.unchecked.append(str(error))
    for benchmark in loaded:
        length, samples = benchmark.config.max_completion_length, benchmark.config.num_samples
        row = f"{benchmark.config.name}: {len(benchmark.problems)} problems x {samples} samples of at most {length} tokens"
        findings.rows.append(("" if findings.rows else "benchmarks", row))
        findings.notes += benchmark.notes
    here: list[EvaluatedModelConfig] = []
    for number, model in enumerate(recipe.models):
        reason = awaited.get(f"models.{number}.path")
        if reason is not None:
            findings.unchecked.append(f"models.{number}.path: {reason}.")
        else:
            here.append(model)
    for target in find_targets(here):
        findings.rows.append(("model", f"{target.label}: {target.path}"))
        if target.config.endpoint is None and loaded:
            try:
                findings.notes.append(check_fit(target, recipe.prompt, loaded))
            except HubUnreachable as error:
                findings.unchecked.append(str(error))
    return findings


def check_generate(recipe: GenerateRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """Problems, questions and prompts."""
    from r1rl.data import read_problems
    from r1rl.generate.run import read_questions

    findings = Findings()
    check_writable(recipe.output_dir)
    _check_template(recipe.prompt.template)
    question = read_questions(recipe)[0]
    if recipe.model.endpoint is None:
        check_model_folder(recipe.model.path)
    findings.rows.append(
        (
            "model",
            recipe.model.path if recipe.model.endpoint is None else f"behind {recipe.model.endpoint.url}",
        )
    )
    if "data.source" in awaited:
        findings.unchecked.append(f"data: {awaited['data.source']}.")
        return findings
    try:
        loaded = read_problems(recipe.data, recipe.seed)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    asked = [question.ask(problem) for problem in loaded.problems]
    findings.rows.append(
        (
            "data",
            f"{len(asked)} problems x {recipe.num_samples} samples of at most "
            f"{recipe.max_completion_length} tokens",
        )
    )
    findings.notes += [*loaded.notes, *loaded.warnings]
    if recipe.model.endpoint is None:
        try:
            rendered = render_prompts(recipe.model, recipe.prompt, asked, recipe.data.max_prompt_tokens)
        except ModelUnavailable as error:
            findings.unchecked.append(f"{error} Prompts and their lengths were not checked.")
        else:
            add_prompts(findings, rendered, recipe.max_completion_length, "max_completion_length")
    return findings


def check_distill(recipe: DistillRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """Data, models and rewards."""
    from r1rl.distill.preflight import preflight

    findings = Findings([("student", recipe.model.path), ("teacher", recipe.teacher.path)])
    reasons = [
        f"{key.removesuffix('.source')}: {reason}."
        for key, reason in awaited.items()
        if key.endswith(".source")
    ]
    if reasons:
        findings.unchecked += reasons
        return findings
    try:
        found = preflight(recipe, recipe_path)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    found.close()
    written = len(found.completions.demonstrations)
    findings.rows.append(
        ("data", f"{len(found.problems)} problems for the student, {written} completions from the file")
    )
    findings.notes += found.messages
    return findings


def check_sft(recipe: SFTRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """Demonstrations, held-out problems and what scores them."""
    from r1rl.data.demonstrations import read_demonstrations
    from r1rl.sft.run import preflight

    findings = Findings([("model", recipe.model.path)])
    rewards = None
    try:
        held_out, rewards = preflight(recipe, recipe_path)
        findings.rows.append(
            (
                "held out",
                f"{len(held_out)} problems x {recipe.evaluation.num_samples} samples" if held_out else "none",
            )
        )
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
    finally:
        if rewards is not None:
            rewards.close()
    if "data.source" in awaited:
        findings.unchecked.append(f"data: {awaited['data.source']}.")
        return findings
    try:
        loaded = read_demonstrations(recipe.data)
    except HubUnreachable as error:
        findings.unchecked.append(str(error))
        return findings
    findings.rows.append(("data", f"{len(loaded.demonstrations)} demonstrations from {loaded.name}"))
    findings.notes += loaded.notes
    if loaded.bad:
        findings.warnings.append(
            f"{len(loaded.bad)} rows can't be used, such as {loaded.bad[0].place}: {loaded.bad[0].detail}."
        )
    return findings


def check_select(recipe: SelectRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """The files, their columns, and the function that grades."""
    from r1rl.rewards.loader import load_reward
    from r1rl.select.rows import read_sources
    from r1rl.select.run import check_language

    findings = Findings()
    check_language(recipe.filters.language)
    check_writable(recipe.output_dir)
    load_reward(recipe.grade.function, recipe_path.parent)
    here = []
    for number, source in enumerate(recipe.sources):
        reason = awaited.get(f"sources.{number}.path")
        if reason is not None:
            findings.unchecked.append(f"sources.{number}.path: {reason}.")
        else:
            here.append(source)
    if here:
        loaded = read_sources(here)
        findings.rows.append(("rows", f"{len(loaded.rows)} from {', '.join(source.path for source in here)}"))
        findings.notes += [f"a row could not be used: {example}" for example in loaded.bad_examples]
    return findings


def check_reward_model(recipe: RewardModelRecipe, recipe_path: Path, awaited: Awaited) -> Findings:
    """The pairs and the model's folder."""
    from r1rl.data.preferences import read_preferences

    check_writable(recipe.output_dir)
    check_model_folder(recipe.model.path)
    findings = Findings([("model", recipe.model.path)])
    for key, data in (("data", recipe.data), ("evaluation.data", recipe.evaluation.data)):
        if data is None or f"{key}.source" in awaited:
            findings.unchecked += [f"{key}: {awaited[f'{key}.source']}."] if data is not None else []
            continue
        try:
            loaded = read_preferences(data, key)
        except HubUnreachable as error:
            findings.unchecked.append(str(error))
            continue
        findings.rows.append((key, f"{len(loaded.pairs)} pairs from {loaded.name}"))
    return findings


def check_any(recipe: Any, recipe_path: Path, awaited: Awaited) -> Findings:
    """A recipe whose command has no more to say before it loads its model."""
    check_writable(recipe.output_dir)
    model = getattr(recipe, "model", None)
    if model is not None:
        check_model_folder(model.path)
    return Findings([("model", model.path)] if model is not None else [], unchecked=["the data."])


def _check_template(template: str) -> None:
    if template != CHAT:
        template_text(template)
