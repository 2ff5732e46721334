"""PEFT adapters: merged into their model before sampling, told apart in the manifest, refused where they do
not fit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.cli import main as cli
from r1rl.config.bundled import PACKAGE

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save_adapter(folder: Path, model: Path, config: Any = None, seed: int = 1) -> Path:
    """Save a LoRA whose weights are all random, so that it changes the model's completions."""
    torch.manual_seed(seed)
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config or lora())
    for parameter in (parameter for parameter in wrapped.parameters() if parameter.requires_grad):
        parameter.data.normal_(std=0.3)
    wrapped.save_pretrained(folder)
    return folder


def lora(**values: Any) -> LoraConfig:
    return LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **values
    )


def change(folder: Path, **values: Any) -> None:
    """Change adapter_config.json."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def recipe(tmp_path: Path, *models: str, name: str = "e") -> str:
    file = tmp_path / f"{name}.yaml"
    file.write_text(
        f"run_name: {name}\noutput_dir: {tmp_path / 'runs'}\nmodels: [{', '.join(models)}]\nbenchmarks: "
        f"[arithmetic]\nnum_problems: 4\n"
        "num_samples: 2\nmax_completion_length: 16\nprompt: {template: plain}\n",
        encoding="utf-8",
    )
    return str(file)


def texts(tmp_path: Path, model: str, name: str = "e") -> list[str]:
    log = tmp_path / "runs" / name / model / "arithmetic" / "samples-00000.jsonl"
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in sorted(rows, key=lambda row: (row["problem"], row["sample"]))]


def model_of(tmp_path: Path, model: str, name: str = "e") -> dict[str, Any]:
    return json.loads(
        (tmp_path / "runs" / name / model / "arithmetic" / "manifest.json").read_text(encoding="utf-8")
    )["model"]


def test_an_adapter_is_its_model_with_the_product_of_its_matrices_added(tmp_path: Path) -> None:
    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    merged = AutoModelForCausalLM.from_pretrained(base)
    weights = load_safetensors(adapter / "adapter_model.safetensors")
    changed = 0
    for name, weight in merged.named_parameters():
        a, b = (
            weights.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight")
            for side in "AB"
        )
        if a is not None:
            weight.data += 8 / 4 * b @ a  # lora_alpha / r
            changed += 1
    assert changed == 4  # two matrices in each of two layers
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    models = [f"{{path: {folder}}}" for folder in (base, adapter, tmp_path / "merged")]
    assert cli.main(["evaluate", recipe(tmp_path, *models)]) == 0
    assert texts(tmp_path, "adapter") == texts(tmp_path, "merged") != texts(tmp_path, "base")
    # Of the adapter: its own path and weights, and those of its model.
    found, own = model_of(tmp_path, "adapter"), model_of(tmp_path, "base")
    assert (found["path"], found["base"]["path"]) == (str(adapter), str(base))
    assert found["base"]["weights"] == own["weights"] != found["weights"]
    assert "base" not in own


def load_safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_another_scale_is_another_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}")]) == 0
    change(adapter, lora_alpha=16)
    capsys.readouterr()
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}")]) == 2
    assert "weights: " in capsys.readouterr().err


def test_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    from r1rl.config.schema import EvaluatedModelConfig
    from r1rl.sampling_jobs.loading import load_target_model, load_target_tokenizer
    from r1rl.sampling_jobs.targets import find_targets

    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    (target,) = find_targets([EvaluatedModelConfig(path=str(adapter))])
    tokenizer = load_target_tokenizer(target)
    device = torch.device("cpu")
    exact, half = (
        load_target_model(target, tokenizer, dtype, device) for dtype in (torch.float32, torch.bfloat16)
    )
    for (name, one), (_, other) in zip(exact.named_parameters(), half.named_parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other), name
        assert not other.requires_grad
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float32}


def test_a_base_that_lies_elsewhere_is_named_in_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    moved = tmp_path / "moved"
    base.rename(moved)
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}")]) == 2
    assert f"the adapter {adapter} belongs to {base}, which is no folder here" in capsys.readouterr().err
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}, base: {moved}}}")]) == 0
    assert model_of(tmp_path, "adapter")["base"]["path"] == str(moved)
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {moved}, base: {moved}}}")]) == 2
    assert "models.0.base is set, but" in capsys.readouterr().err
    endpoint = f"{{path: m, base: {moved}, endpoint: {{url: http://x}}}}"
    assert cli.main(["evaluate", recipe(tmp_path, endpoint)]) == 2
    assert (
        "models.0 has both base, for an adapter that is loaded here, and endpoint" in capsys.readouterr().err
    )


def test_without_peft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_tiny_policy(tmp_path / "base"))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest)
    )
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}")]) == 2
    assert (
        f"models.0.path: {adapter} holds a PEFT adapter, and peft is not installed: pip install 'r1rl[peft]'."
        in capsys.readouterr().err
    )


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: Path) -> str:
    capsys.readouterr()
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}")]) == 2
    return capsys.readouterr().err


def test_adapters_that_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    shutil.copytree(adapter, tmp_path / "bare")
    change(tmp_path / "bare", base_model_name_or_path=None)
    assert "its adapter_config.json names no model: write models.0.base" in refused(
        tmp_path, capsys, tmp_path / "bare"
    )
    (tmp_path / "bare/adapter_config.json").write_text("{", encoding="utf-8")
    assert "whose adapter_config.json can't be read" in refused(tmp_path, capsys, tmp_path / "bare")

    # Trained on another model: the embedded one has other sizes and more layers.
    change(adapter, base_model_name_or_path="embedded")
    message = refused(tmp_path, capsys, adapter)
    assert "can't be loaded onto" in message and "size mismatch" in message
    change(adapter, base_model_name_or_path=str(base), target_modules=["q_proj", "down_proj", "up_proj"])
    message = refused(tmp_path, capsys, adapter)
    assert "does not fit" in message and "have no counterpart, such as" in message and "up_proj" in message

    tuning = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM", prompt_tuning_init="RANDOM")
    assert "that can't be merged into its model" in refused(
        tmp_path, capsys, save_adapter(tmp_path / "tuned", base, tuning)
    )

    nan = save_adapter(tmp_path / "nan", base)
    from safetensors.torch import save_file

    weights = {
        name: weight * float("nan")
        for name, weight in load_safetensors(nan / "adapter_model.safetensors").items()
    }
    save_file(weights, nan / "adapter_model.safetensors", {"format": "pt"})
    assert "NaNs detected in the merged weights" in refused(tmp_path, capsys, nan)


def test_an_adapter_brings_its_own_tokenizer_if_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_tiny_policy(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{% for m in messages %}[[{{ m.content }}]]{% endfor %}"
    tokenizer.save_pretrained(adapter)
    assert cli.main(["evaluate", recipe(tmp_path, f"{{path: {adapter}}}"), "prompt.template=chat"]) == 0
    manifest = json.loads((tmp_path / "runs/e/adapter/arithmetic/manifest.json").read_text(encoding="utf-8"))
    assert manifest["example"].startswith("[[") and manifest["example"].endswith("]]")
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(adapter)
    assert "the adapter's tokenizer has 281 tokens, but" in refused(tmp_path, capsys, adapter)


@pytest.mark.slow
def test_an_adapter_of_the_hub(tmp_path: Path) -> None:
    base = save_tiny_policy(tmp_path / "base")
    repository = tmp_path / "home/hub/models--me--lora"
    save_adapter(repository / "snapshots" / COMMIT, base)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE.parent),
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "r1rl",
        "evaluate",
        recipe(tmp_path, "{path: me/lora}", "{path: other}"),
        "models.1.path=" + str(base),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "peft" not in done.stderr
    found = model_of(tmp_path, "lora")
    assert (found["path"], found["weights"], found["base"]["path"]) == (
        "me/lora",
        f"commit {COMMIT}",
        str(base),
    )
    assert texts(tmp_path, "lora") != texts(tmp_path, "base")
