"""The check of one recipe: what its command looks at before it starts, and the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from r1rl.check.others import (
    check_any,
    check_distill,
    check_evaluate,
    check_generate,
    check_pretrain,
    check_reward_model,
    check_select,
    check_sft,
)
from r1rl.distill.recipe import DistillRecipe
from r1rl.evaluation.recipe import EvaluateRecipe
from r1rl.generate.recipe import GenerateRecipe
from r1rl.grpo.check import check_grpo
from r1rl.grpo.recipe import GRPORecipe
from r1rl.grpo.run import check_processes
from r1rl.memory.estimate import NotEstimated, estimate
from r1rl.memory.plan import Launch
from r1rl.memory.report import memory_table, verdict
from r1rl.preflight.awaited import Awaited, of_earlier_runs, without_models
from r1rl.preflight.findings import Findings
from r1rl.pretrain.recipe import PretrainRecipe
from r1rl.reward_model.recipe import RewardModelRecipe
from r1rl.select.recipe import SelectRecipe
from r1rl.sft.recipe import SFTRecipe

CHECKS: dict[type, Callable[[Any, Path, Awaited], Findings]] = {
    GRPORecipe: check_grpo,
    DistillRecipe: check_distill,
    EvaluateRecipe: check_evaluate,
    GenerateRecipe: check_generate,
    PretrainRecipe: check_pretrain,
    RewardModelRecipe: check_reward_model,
    SelectRecipe: check_select,
    SFTRecipe: check_sft,
}


def check_one(
    console: Console,
    recipe: Any,
    recipe_path: Path,
    awaited: Awaited,
    launch: Launch,
    source: str,
    model_config: str | None,
) -> None:
    """One recipe: what its command looks at before it starts, and the memory. `awaited`: keys whose files do
    not exist yet, and why.
    """
    if isinstance(recipe, GRPORecipe):
        check_processes(recipe, launch.processes, launch.sharded)
    awaited = {**of_earlier_runs(recipe), **awaited}
    recipe = without_models(recipe, awaited)
    findings = CHECKS.get(type(recipe), check_any)(recipe, recipe_path, awaited)
    findings.print(console)
    try:
        found = estimate(recipe, launch, findings.prompt_tokens, model_config)
    except NotEstimated as error:
        reason = awaited.get("model.path")
        console.print(f"[yellow]not checked:[/] the memory: {escape(reason or str(error))}.")
        return
    if found is not None:
        context = found.shape.context
        if findings.prompt_tokens is None and context is not None and found.work.length > context:
            needed = f"prompt and completion may take {found.work.length} tokens together, but the model's configuration allows {context}"
            console.print(f"[yellow]warning:[/] {escape(needed)}")
        console.print(memory_table(found, source))
        for sentence in verdict(found):
            console.print(escape(sentence))
