"""Whole `r1rl sft` runs of a tiny random policy: loss and gradient, packing, resume, processes, what is left,
that it learns to stop.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from run_helpers import do_run, final_weights, start_two, untimed
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.config.load import load_recipe
from r1rl.config.schema import PromptConfig, UpdateConfig
from r1rl.data import PromptOrder
from r1rl.data.demonstrations import read_demonstrations
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import find_checkpoint
from r1rl.models.loading import load_policy
from r1rl.objective.sampling import Sampling
from r1rl.policy.layout import choose_layout
from r1rl.policy.packing import Layout
from r1rl.rollout import EngineSetup, make_engine
from r1rl.runs.rows import check_batch
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.start import starting_state
from r1rl.runs.trl_steps import TRLSteps
from r1rl.sft import run as sft
from r1rl.sft import setup
from r1rl.sft.batches import RowBatches
from r1rl.sft.recipe import SFTRecipe
from r1rl.sft.rows import make_rows
from r1rl.text.prompts import PromptTemplate, resolve_eos_token_ids
from r1rl.types import FinishReason, Problem

RECIPE = """
run_name: test
output_dir: {folder}/runs
max_steps: 4
batch_size: 4
max_length: 128
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: {folder}/rows.jsonl}}
prompt: {{template: plain}}
optimizer: {{learning_rate: 1.0e-2}}
checkpoint: {{every_steps: 2}}
logging: {{live: false, completions_every: 2, show_completions: 0}}
"""

HELD_OUT = """
rewards: [{function: countdown}, {function: format, weight: 0.1}]
evaluation:
  data: {source: countdown, split: test, arguments: {count: 6}}
  num_problems: 6
  during_problems: 4
  every_steps: 3
  num_samples: 2
  max_completion_length: 12
"""


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    save_tiny_policy(folder / "policy")
    rows = [
        {
            "problem": f"{n}+1",
            "answer": str(n + 1),
            "completion": f" <think>{' hm' * (n % 7)} </think> <answer> {n + 1}</answer>",
        }
        for n in range(40)
    ]
    rows[3]["finish_reason"] = "length"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    (folder / "held_out.yaml").write_text(RECIPE.format(folder=folder) + HELD_OUT)
    return folder


def train(
    folder: Path, *overrides: str, file: str = "recipe.yaml", resume: str | None = None
) -> RunDirectory:
    return do_run("sft", sft.run, folder / file, *overrides, resume=resume)


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train an uninterrupted run of four steps with held-out problems."""
    return train(folder, "run_name=uninterrupted", file="held_out.yaml")


def test_run_directory_holds_everything(finished: RunDirectory) -> None:
    left = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "summary.json", "curves.png"}
    expected |= {f"evaluations/{name}.json" for name in ("before", "step-000003", "after")}
    expected |= {"completions/step-000002.jsonl", "completions/step-000004.jsonl"}
    assert expected <= left and not any(name.startswith("rows") for name in left)
    assert [path.name for path in sorted(finished.checkpoints.iterdir())] == ["step-000002", "step-000004"]
    summary = json.loads(finished.summary_path.read_text())
    assert (
        summary["steps"] == 4
        and len(summary["accuracy_after"]["ci95"]) == 2
        and summary["mean_length_before"] > 0
    )
    model = AutoModelForCausalLM.from_pretrained(finished.checkpoints / "step-000004")
    assert model.config.model_type == "qwen3" and model.generation_config.eos_token_id == [1]


def test_metrics_of_each_step(finished: RunDirectory) -> None:
    records = finished.read_metrics()
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    # The vocabulary has 280 entries: a random policy's loss is near ln 280 = 5.63; cosine ends the fourth
    # step at (1 + cos(3 pi / 4)) / 2.
    assert 5.3 < records[0]["loss"] < 5.9 and records[3]["loss"] < records[0]["loss"] - 0.5
    assert [round(record["learning_rate"], 6) for record in records] == [0.01, 0.008536, 0.005, 0.001464]
    assert all(
        record["grad_norm"] > 0 and record["update/skipped"] == 0 and 0 <= record["token_accuracy"] <= 1
        for record in records
    )


def test_completions_show_what_was_trained(finished: RunDirectory) -> None:
    rows = [
        json.loads(line) for line in (finished.completions / "step-000004.jsonl").read_text().splitlines()
    ]
    assert len(rows) > 4  # packed
    for row in rows:
        assert row["prompt"].startswith("User: ") and row["prompt"].endswith("\nAssistant:")
        number = int(row["prompt"].removeprefix("User: ").partition("+")[0])
        assert row["completion"].startswith(" <think>") and row["completion"].endswith(
            f"<answer> {number + 1}</answer><eos>"
        )


def test_evaluation_changes_nothing(folder: Path, finished: RunDirectory) -> None:
    plain = train(folder, "run_name=plain")
    assert untimed(plain) == untimed(finished)
    assert all(
        torch.equal(value, final_weights(plain)[name]) for name, value in final_weights(finished).items()
    )


@pytest.mark.parametrize("packing", [True, False])
def test_resume_goes_on_exactly(folder: Path, packing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (f"packing={json.dumps(packing)}", "micro_batch_size=2")
    whole = train(folder, f"run_name=whole-{packing}", *settings)
    real = TRLSteps.step

    def dies(self: TRLSteps) -> Any:
        if self.state.step == 3:
            raise InterruptedError
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(TRLSteps, "step", dies)
        train(folder, f"run_name=cut-{packing}", *settings)
    resumed = train(folder, f"run_name=cut-{packing}", *settings, resume="latest")
    assert untimed(resumed) == untimed(whole)
    weights = final_weights(resumed)
    assert all(torch.equal(value, weights[name]) for name, value in final_weights(whole).items())


def gradients(
    recipe: SFTRecipe, tmp_path: Path, layout: Layout | None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradient of one step over all rows, as the run computes them."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    rows, _ = make_rows(recipe, read_demonstrations(recipe.data), tokenizer)
    accelerator, model = Accelerator(), load_policy(recipe.model)
    trainer = setup.make_trainer(recipe, model, tokenizer, rows, accelerator, RunDirectory(tmp_path))
    policy, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
    batches = RowBatches(trainer.data_collator, tokenizer.pad_token_id, model, layout)
    steps = TRLSteps(
        trainer, accelerator, policy, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), rows,
        PromptOrder(len(rows), 0, False), starting_state(None), batch_size=len(rows),
        micro_batch_size=recipe.micro_batch_size, max_grad_norm=0.0,
        length_of=lambda row: len(row["input_ids"]), progress=lambda name, done, total: None, collate=batches,
        around=batches.around,
    )  # fmt: skip
    loss = steps._accumulate([dict(row) for row in rows])
    return loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def one_by_one(recipe: SFTRecipe) -> tuple[float, dict[str, torch.Tensor]]:
    """Compute the definition: each demonstration by itself through the plain model, -sum log p / all trained
    tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.path)
    model = load_policy(recipe.model)
    template, total, trained = PromptTemplate(recipe.prompt, tokenizer), torch.zeros(()), 0
    for one in read_demonstrations(recipe.data).demonstrations:
        prompt = template.render(Problem("", str(one.problem), None)).token_ids
        text = tokenizer(one.text, add_special_tokens=False)["input_ids"] + [1]
        logits = model(input_ids=torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        total = total + F.cross_entropy(logits, torch.tensor(text), reduction="sum")
        trained += len(text)
    (total / trained).backward()
    return total.item() / trained, {
        name: parameter.grad.clone() for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize(
    ("settings", "packed"),
    [
        (("packing=true",), True),
        (("packing=true", "micro_batch_size=2", "model.gradient_checkpointing=true"), True),
        (("packing=true", "micro_batch_size=2"), False),  # packed rows of a model that can't attend in them
        (("packing=false", "micro_batch_size=2"), None),
    ],
)
def test_loss_and_gradient_are_those_of_each_demonstration_by_itself(
    folder: Path, settings: tuple[str, ...], packed: bool | None, tmp_path: Path
) -> None:
    """This shows that no demonstration of a packed row sees another, and that packing and micro-batches
    change nothing.
    """
    recipe = load_recipe("sft", folder / "recipe.yaml", settings)
    own = choose_layout(load_policy(recipe.model), UpdateConfig(), torch.float32)
    assert own.packed
    loss, found = gradients(recipe, tmp_path, None if packed is None else replace(own, packed=packed))
    expected_loss, expected = one_by_one(recipe)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_learns_the_text_and_where_it_ends(folder: Path, tmp_path: Path) -> None:
    """After training on one demonstration, greedy decoding with the same prompt section writes it and stops
    by the EOS token.
    """
    text = " <think> so </think> <answer> 8</answer>"
    (tmp_path / "one.jsonl").write_text(json.dumps({"problem": "7+1", "completion": text}))
    done = train(
        folder, f"output_dir={tmp_path}", f"data.source={tmp_path}/one.jsonl", "max_steps=60", "batch_size=1",
        "optimizer.schedule=constant",
    )  # fmt: skip
    folder_of_model = find_checkpoint(done.checkpoints)
    assert folder_of_model is not None and done.read_metrics()[-1]["loss"] < 0.05
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder_of_model),
        AutoModelForCausalLM.from_pretrained(folder_of_model),
    )
    prompt = PromptConfig(template="plain")
    sampling = Sampling(
        64, temperature=0.0, eos_token_ids=resolve_eos_token_ids(prompt, tokenizer, model.generation_config)
    )
    ids = PromptTemplate(prompt, tokenizer).render(Problem("", "7+1", None)).token_ids
    (group,) = make_engine("native", EngineSetup(model.eval(), tokenizer)).generate([ids], 1, sampling, [0])
    assert group.completions[0].text == text and group.completions[0].finish_reason is FinishReason.EOS


def test_steps_follow_from_the_epochs(folder: Path) -> None:
    """The 39 demonstrations (the 40th was cut off) in batches of 4 are 9.75 steps: the tenth reaches into the
    next epoch.
    """
    done = train(folder, "run_name=epochs", "max_steps=0", "packing=false", "checkpoint.every_steps=0")
    records = done.read_metrics()
    assert len(records) == 10 and records[-1]["epoch"] == pytest.approx(40 / 39)
    half = load_recipe("sft", done.config_path)
    assert half.max_steps == 10


@pytest.mark.slow
def test_two_processes_compute_what_one_does(folder: Path) -> None:
    settings = ["max_steps=3", "batch_size=4", "checkpoint.every_steps=0"]
    alone = train(folder, "run_name=alone", *settings, file="held_out.yaml")
    pair = start_two("sft", folder / "held_out.yaml", "run_name=pair", *settings)
    for one, two in zip(untimed(alone), untimed(pair), strict=True):
        assert one.keys() == two.keys()
        for name in ("loss", "grad_norm", "tokens", "learning_rate", "epoch"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    weights = final_weights(pair)
    for name, value in final_weights(alone).items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4, msg=name)
    rows = [
        [json.loads(line) for line in (run.completions / "step-000002.jsonl").read_text().splitlines()]
        for run in (alone, pair)
    ]
    assert rows[0] == rows[1]
    assert not (pair.path / "rows").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.columns={completion: text}"], r"data\.columns\.completion: .* has no column 'text'"),
        (["max_length=4"], r"no demonstration is left\. .*39 rows skipped \(too_long\)"),
        (["prompt.template=chat"], r"has no chat template"),
        (["prompt.template=mine.txt"], r"prompt\.template: 'mine.txt' is neither a template"),
        (["prompt.prefill=<go>"], r"39 rows skipped \(other_prefill\)"),
        (
            ["batch_size=3", "micro_batch_size=2"],
            r"batch_size is 3, which is not a multiple of micro_batch_size \(2\)",
        ),
        (["evaluation.every_steps=2"], r"evaluation\.every_steps is set, but there are no held-out problems"),
        (
            ["rewards=[{function: accuracy}]"],
            r"rewards only score held-out answers here, and there are no held-out problems",
        ),
        (["data.source=nowhere.jsonl"], r"data\.source: there is no file nowhere\.jsonl"),
        (["model.path=./nowhere"], r"model\.path: there is no folder"),
        (["logging.trackers=[wandb]"], r"logging\.trackers names wandb, which is not installed"),
    ],
)
def test_errors_come_before_the_model_is_loaded(
    folder: Path, overrides: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(setup, "load_policy", load)
    before = sorted((folder / "runs").glob("*"))
    with pytest.raises(UserError, match=sentence):
        train(folder, "run_name=wrong", *overrides)
    assert sorted((folder / "runs").glob("*")) == before  # and no run directory is left behind


def test_batch_must_be_shared_out_evenly() -> None:
    check_batch(8, 2, 4)
    with pytest.raises(
        UserError,
        match="batch_size is 8, which 3 processes x micro_batch_size 2 do not divide: make it a multiple of "
        "6",
    ):
        check_batch(8, 2, 3)
