"""One module loads models: precision, models in memory, errors that name the key; tokenizers and prompts
once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from r1rl.cli import main as cli
from r1rl.config.load import load_recipe
from r1rl.config.schema import ModelConfig
from r1rl.errors import HubUnreachable, UserError
from r1rl.evaluation.results import EvaluationOutcome
from r1rl.evaluation.run import evaluate, prepare
from r1rl.models.loading import InMemory, load_model, load_policy, load_tokenizer, resolve_dtype
from r1rl.text.prompts import PromptTemplate


@pytest.mark.parametrize(
    ("setting", "device", "dtype"),
    [
        ("auto", "cuda", torch.bfloat16),
        ("auto", "cpu", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_gpu(setting: str, device: str, dtype: torch.dtype) -> None:
    assert resolve_dtype(setting, torch.device(device)) is dtype


def test_a_model_to_train_has_float32_masters_and_no_dropout_also_from_memory(tmp_path: Path) -> None:
    folder = save_tiny_policy(tmp_path / "model")
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for layer in half.model.layers:
        layer.self_attn.attention_dropout = 0.5
    frequencies = half.model.rotary_emb.inv_freq.clone()
    config = ModelConfig(path=str(tmp_path / "elsewhere"))
    trained = load_policy(config, given=half)
    assert trained is half
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    assert {layer.self_attn.attention_dropout for layer in trained.model.layers} == {0.0}
    assert torch.equal(trained.model.rotary_emb.inv_freq, frequencies)
    saved = load_policy(config, checkpoint=folder, given=half)
    assert saved is not half  # a run that goes on takes the weights of its checkpoint
    assert saved.model.norm.weight.dtype is torch.float32


def test_what_can_not_be_loaded_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"teacher.path: no causal language model could be loaded from"
    ) as one:
        load_model(str(tmp_path / "empty"), torch.float32, key="teacher.path")
    assert not isinstance(one.value, HubUnreachable)
    with pytest.raises(
        HubUnreachable, match=r"models: base can't be loaded from .*nothing, which is no folder"
    ):
        load_tokenizer(str(tmp_path / "nothing"), key="models", label="base")


def recipe_file(tmp_path: Path, path: str, name: str) -> Path:
    file = tmp_path / f"{name}.yaml"
    file.write_text(
        f"run_name: {name}\noutput_dir: {tmp_path / 'runs'}\nmodels: [{{name: tiny, path: {path}}}]\n"
        "benchmarks: [arithmetic, word_problems]\nnum_problems: 6\nnum_samples: 2\nmax_completion_length: "
        "16\n"
        "prompt: {template: plain}\nsampling: {temperature: 1.0, top_p: 1.0}\n",
        encoding="utf-8",
    )
    return file


def in_memory(tmp_path: Path, model: PreTrainedModel, name: str, **held: Any) -> EvaluationOutcome:
    recipe = load_recipe("evaluate", recipe_file(tmp_path, "held", name))
    job = prepare(recipe, {"held": InMemory(model, **held)})
    return evaluate(job, Accelerator(), Console(quiet=True))


def test_a_model_in_memory_gets_the_scores_of_its_folder_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = save_tiny_policy(tmp_path / "model")
    assert cli.main(["evaluate", str(recipe_file(tmp_path, str(folder), "folder"))]) == 0
    expected = json.loads((tmp_path / "runs/folder/summary.json").read_text(encoding="utf-8"))["scores"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    outcome = in_memory(tmp_path, model, "memory")
    assert outcome.scores == expected
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    (first, second) = outcome.evaluated
    assert first.result.manifest["model"]["weights"].startswith("in memory ")
    assert first.result.manifest["model"]["weights"] == second.result.manifest["model"]["weights"]


def test_completions_of_another_model_in_memory_are_not_taken_over(tmp_path: Path) -> None:
    folder = save_tiny_policy(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before = in_memory(tmp_path, model, "memory", tokenizer=tokenizer)
    assert in_memory(tmp_path, model, "memory", tokenizer=tokenizer).scores == before.scores
    with torch.no_grad():
        model.model.norm.weight.add_(1e-3)
    with pytest.raises(UserError, match=r"sampled in another way(.|\n)*model.weights: in memory"):
        in_memory(tmp_path, model, "memory", tokenizer=tokenizer)


def test_a_model_in_memory_without_a_name_needs_its_tokenizer(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(save_tiny_policy(tmp_path / "model"))
    nameless = type(model)(model.config)
    nameless.name_or_path = ""
    with pytest.raises(UserError, match="give its tokenizer too"):
        in_memory(tmp_path, nameless, "nameless")


def test_tokenizer_and_prompts_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_policy(tmp_path / "model")
    loads: list[str] = []
    rendered: list[int] = []
    load, render = AutoTokenizer.from_pretrained, PromptTemplate.render_batch

    def counted(path: str, **settings: Any) -> Any:
        loads.append(path)
        return load(path, **settings)

    def rendering(self: PromptTemplate, problems: Any) -> Any:
        rendered.append(len(problems))
        return render(self, problems)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    monkeypatch.setattr(PromptTemplate, "render_batch", rendering)
    assert cli.main(["evaluate", str(recipe_file(tmp_path, str(folder), "once"))]) == 0
    assert loads == [str(folder)]
    assert rendered == [6, 6]  # once for each benchmark
