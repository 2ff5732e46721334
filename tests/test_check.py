"""`r1rl check`: what it shows and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from r1rl.cli import main as cli
from r1rl.config.bundled import bundled_path

RECIPE = """\
run_name: test
max_steps: 6
model: {path: model}
data: {source: train.jsonl}
prompt: {template: plain, prefill: "<think>"}
rewards:
  - {function: accuracy}
  - {function: format, weight: 0.1}
rollout: {num_prompts: 2, num_generations: 4, max_completion_length: 40}
"""


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a recipe, four problems, and a model folder with a tokenizer that makes one token of each
    character.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {character: index for index, character in enumerate(["[UNK]", "</s>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="[UNK]").save_pretrained(
        tmp_path / "model"
    )
    Qwen3Config(max_position_embeddings=64).save_pretrained(tmp_path / "model")
    write_rows(
        tmp_path / "train.jsonl",
        [{"id": f"row{n}", "problem": f"{n}+{n}?", "answer": str(2 * n)} for n in range(4)],
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert cli.main(["check", "recipe.yaml", *overrides]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_a_sound_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys)
    assert "data 4 problems from train.jsonl; columns answer, problem" in text
    assert "6 steps visit 12 prompts, 3 epochs" in text
    assert "rewards accuracy x 1, format x 0.1 outcome accuracy" in text
    assert "2 prompts x 4 generations = 8 completions 1 optimizer step of 8 completions each" in text
    # "User: 0+0?\nAssistant:<think>" has 28 characters, all prompts the same number.
    assert "prompts 28 tokens in the middle, 28 at 95 %, 28 at most" in text
    assert "example User: 0+0? Assistant:<think>" in text
    assert "Ready: r1rl grpo recipe.yaml" in text
    assert text.count("warning") == 1  # 28 + 40 tokens do not fit 64 positions
    assert (
        "the longest prompt has 28 tokens and the completion may have 40, together 68, but the model's "
        "configuration allows 64" in text
    )


def test_long_prompts_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"problem": "1" * 50, "answer": "1"}) + "\n")
    text = shown(capsys, "data.max_prompt_tokens=30", "rollout.max_completion_length=8")
    assert "28 at most; 1 over data.max_prompt_tokens are dropped" in text
    assert "warning" not in text


def test_gold_answers_that_do_not_grade_themselves_correct(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        for number in range(25):
            file.write(
                json.dumps({"id": f"bad{number:02}", "problem": f"bad {number}?", "answer": "\\frac{1}{"})
                + "\n"
            )
    text = shown(capsys, "rollout.max_completion_length=8")
    assert "25 gold answers can't be graded and 0 only by their text" in text
    before = len((folder / "train.jsonl").read_text(encoding="utf-8").splitlines()) - 25
    assert f"line {before + 1} " in text
    assert "bad00" in text
    assert "bad19" in text
    assert "bad20" not in text
    assert "and 5 more" in text
    assert "row0" not in text


def test_data_without_a_usable_gold_answer_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(
        folder / "train.jsonl",
        [{"problem": "a?", "answer": "\\frac{1}{"}, {"problem": "b?", "answer": "\\sqrt{"}],
    )
    assert cli.main(["check", "recipe.yaml"]) == 2
    assert "no gold answer can be graded" in capsys.readouterr().err


def test_other_outcomes_have_rules_of_their_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"problem": "make 5 from 2, 3", "answer": "\\frac{1}{", "numbers": [2, 3], "target": 5}]
    write_rows(folder / "train.jsonl", rows)
    text = shown(capsys, "rewards.0.function=countdown", "rollout.max_completion_length=8")
    assert "outcome countdown" in text
    assert "gold" not in text


def test_without_the_tokenizer_the_rest_is_checked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is checked as for a hub model on a machine without network."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection\nsome advice about another library's options")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    text = shown(capsys, "model.path=some/hub-model")
    assert (
        "model.path: the tokenizer of some/hub-model can't be loaded here (no connection). Prompts and "
        "their lengths" in text
    )
    assert (
        "not checked: the memory: the config.json of some/hub-model is not here (no connection). Name a "
        "copy of it" in text
    )
    assert "Ready" in text


def test_a_tokenizer_without_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this case transformers makes an empty tokenizer, which turns every text into no tokens."""
    for file in (folder / "model").glob("tokenizer*"):
        file.unlink()
    assert cli.main(["check", "recipe.yaml"]) == 2
    assert "its tokenizer makes no tokens of a prompt" in capsys.readouterr().err


def test_a_model_that_does_not_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "recipe.yaml", "model.path=./nowhere"]) == 2
    assert "model.path: there is no folder nowhere" in capsys.readouterr().err


def test_a_template_that_the_tokenizer_does_not_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "recipe.yaml", "prompt.template=chat"]) == 2
    assert "has no chat template" in capsys.readouterr().err


# other kinds of recipes


def test_the_kind_is_found_by_the_keys_and_a_misspelt_one_does_not_hide_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Ready: r1rl pretrain" in checked(capsys, "recipes/pretrain/tiny.yaml")
    recipe = (
        "run_name: e\nmodels: [{path: model}]\nbenchmarks: [own.jsonl]\nmax_completion_length: 8\n"
        "question: '{problem}'\n"
    )
    (folder / "e.yaml").write_text(recipe)
    write_rows(folder / "own.jsonl", [{"problem": "1+1?", "answer": "2"}])
    text = checked(capsys, "e.yaml", "prompt.template=plain")
    assert "benchmarks own: 1 problems x 4 samples of at most 8 tokens" in text
    assert "Ready: r1rl evaluate e.yaml" in text
    (folder / "e.yaml").write_text("run_name: e\nmodels: [{path: model}]\nbenchmark: [countdown]\n")
    assert cli.main(["check", "e.yaml"]) == 2
    assert "benchmark is unknown; did you mean benchmarks?" in capsys.readouterr().err


def test_a_recipe_that_could_be_of_two_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "both.yaml").write_text("run_name: both\nmodel: {path: model}\ndata: {source: train.jsonl}\n")
    assert cli.main(["check", "both.yaml"]) == 2
    assert "both.yaml could be a recipe of r1rl " in capsys.readouterr().err
    (folder / "both.yaml").write_text(
        "# Command  r1rl generate both.yaml\n" + (folder / "both.yaml").read_text()
    )
    assert "Ready: r1rl generate both.yaml" in checked(
        capsys, "both.yaml", "prompt.template=plain", "max_completion_length=8"
    )


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["check", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_generate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(
        "run_name: g\nmodel: {path: model}\ndata: {source: train.jsonl}\nprompt: {template: "
        "plain}\nmax_completion_length: 50\n"
    )
    text = checked(capsys, "g.yaml")
    assert "data 4 problems x 1 samples of at most 50 tokens" in text
    assert (
        "the longest prompt has 21 tokens and the completion may have 50, together 71, but the model's "
        "configuration allows 64" in text
    )


def test_every_stage_of_a_pipeline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "g.yaml").write_text(
        "run_name: g\ndata: {source: train.jsonl}\nprompt: {template: plain}\nmax_completion_length: 8\n"
    )
    stages = """\
run_name: p
stages:
  - {name: zero, command: grpo, recipe: recipe.yaml, set: {rollout.max_completion_length: 8}}
  - {name: samples, command: generate, recipe: g.yaml, set: {model.path: "${zero.model}"}}
  - name: again
    command: grpo
    recipe: recipe.yaml
    set: {model.path: "${zero.model}", data.source: "${samples.data}", rollout.max_completion_length: 8}
"""
    (folder / "p.yaml").write_text(stages)
    text = checked(capsys, "p.yaml")
    assert "stage zero: r1rl grpo recipe.yaml" in text
    # the model that stage zero will make is looked at as the one that it starts from
    assert "stage samples: r1rl generate g.yaml ─" in text
    assert "4 problems x 1 samples of at most 8 tokens prompts 21 tokens in the middle" in text
    assert "not checked: data: stage samples makes it, and has not run." in text
    assert text.count("parameters; 1 GPU") == 3
    assert "Ready: r1rl pipeline p.yaml" in text
    (folder / "p.yaml").write_text(
        stages.replace("recipe: g.yaml, set: {", "recipe: g.yaml, set: {prompt.template: chat, ")
    )
    assert cli.main(["check", "p.yaml"]) == 2
    assert "stage samples: " in capsys.readouterr().err


def test_the_launch_of_the_header_and_of_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m r1rl grpo r.yaml"
    (folder / "r.yaml").write_text(f"# Hardware   8 GPUs with 80 GB\n# Command    {command}\n{RECIPE}")
    text = checked(capsys, "r.yaml", "rollout.num_prompts=8")
    assert "8 GPUs, FSDP2 (the recipe's header)" in text
    assert "4 x N / 8" in text
    assert "4 GPUs, FSDP2 (--gpus 4, the recipe's header)" in checked(
        capsys, "r.yaml", "rollout.num_prompts=8", "--gpus", "4"
    )
    text = checked(capsys, "r.yaml", "rollout.num_prompts=8", "--accelerate", "recipes/accelerate/ddp.yaml")
    assert "8 GPUs, each with a whole model (as in recipes/accelerate/ddp.yaml)" in text
    assert cli.main(["check", "r.yaml"]) == 2  # 2 prompts for 8 processes
    assert (
        "rollout.num_prompts is 2, which 8 processes x 1 minibatches do not divide" in capsys.readouterr().err
    )
    assert cli.main(["check", "r.yaml", "--gpus=many"]) == 2
    assert "--gpus is many; it must be a whole number" in capsys.readouterr().err


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("Couldn't reach it on the Hub")


def eight_gpus() -> list[Path]:
    """Return the recipes whose header names 8 GPUs."""
    files = [
        file for file in sorted(bundled_path("recipes").rglob("*.yaml")) if file.parent.name != "accelerate"
    ]
    return [file for file in files if "8 GPUs" in file.read_text(encoding="utf-8").split("\nrun_name:")[0]]


@pytest.mark.parametrize("file", eight_gpus(), ids=lambda file: file.stem)
def test_recipes_for_eight_gpus_pass_without_gpus_and_network(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("transformers.utils.hub.is_offline_mode", lambda: True)
    size = "7b" if "7b" in file.stem.replace("7b_to_1.5b", "") else "1.5b"
    config = Path(__file__).parent / "data" / "configs" / f"qwen2.5-{size}.json"
    recipe, teacher = file.read_text(encoding="utf-8"), tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "config.json").write_text(config.with_name("qwen2.5-7b.json").read_text())
    text = checked(
        capsys,
        str(file),
        *([f"teacher.path={teacher}"] if "\nteacher:" in recipe else []),
        "--model-config",
        str(config),
    )
    if file.stem.endswith("_select"):
        return  # it loads no model
    assert "8 GPUs, " in text
    assert "fits in 80 GB" in text
    assert "does not fit" not in text
    assert f"N = {7_615_616_512 if size == '7b' else 1_543_714_304:,} parameters" in text


def test_what_the_hub_does_not_give_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    text = checked(capsys, "recipe.yaml", "data.source=some/data")
    assert "not checked: data.source: the data set 'some/data' (split train) can't be loaded" in text
    assert "So columns, gold answers and the lengths of prompts were not looked at." in text
    text = checked(
        capsys, "recipe.yaml", "evaluation.data={source: some/data}", "rollout.max_completion_length=8"
    )
    assert "not checked: evaluation.data.source: the data set 'some/data'" in text
    assert "data 4 problems from train.jsonl" in text
    assert cli.main(["check", "recipe.yaml", "data.source=some/data", "rewards.0.function=lost.py:f"]) == 2
    assert "lost.py" in capsys.readouterr().err


def test_a_configuration_file_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "recipe.yaml", "--model-config", "train.jsonl"]) == 2
    assert "--model-config: train.jsonl is no model's config.json" in capsys.readouterr().err


# what a check knows of the launch, a run knows too, and the other way around


@pytest.mark.parametrize(
    ("command", "lines", "sentence"),
    [
        (
            "sft",
            "data: {source: train.jsonl}\nbatch_size: 4\nmicro_batch_size: 1\n",
            "batch_size is 4, which 3 processes x micro_batch_size 1 do not divide",
        ),
        (
            "reward-model",
            "data: {source: train.jsonl}\nbatch_size: 4\nmicro_batch_size: 1\n",
            "batch_size is 4, which 3 processes x micro_batch_size 1 do not divide",
        ),
        (
            "distill",
            "teacher: {path: model}\ndata: {source: train.jsonl}\nrollout: {num_prompts: 4}\n",
            "a step has 4 prompts that the student answers",
        ),
    ],
)
def test_a_batch_that_the_processes_do_not_divide(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, lines: str, sentence: str
) -> None:
    (folder / "r.yaml").write_text(f"# Command  r1rl {command}\nrun_name: r\nmodel: {{path: model}}\n{lines}")
    assert cli.main(["check", "r.yaml", "--gpus", "3"]) == 2
    assert sentence in capsys.readouterr().err


def test_rows_beside_the_update_need_a_limit_on_a_gpu(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", "recipe.yaml", "rollout.one_step_off=true", "rollout.max_completion_length=8"]
    assert cli.main(words) == 2
    assert "rollout.max_rows, such as 64" in capsys.readouterr().err
    assert "Ready" in checked(capsys, *words[1:], "rollout.max_rows=8")


@pytest.mark.parametrize("command", ["check", "generate"])
def test_a_template_and_a_question_are_looked_at_before_the_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The model's folder holds no weights: loading it would be another error."""
    write_rows(
        folder / "train.jsonl",
        [{"problem": "1?", "answer": "1", "completion": "one"}, {"problem": "2?", "answer": "2"}],
    )
    (folder / "g.yaml").write_text(
        "run_name: g\nmodel: {path: model}\ndata: {source: train.jsonl}\nprompt: {template: plain}\n"
        "max_completion_length: 8\n"
    )
    assert cli.main([command, "g.yaml", "prompt.template=train.jsonl"]) == 2
    assert "does not contain {problem}" in capsys.readouterr().err
    assert cli.main([command, "g.yaml", "question='{problem} {completion}'"]) == 2
    assert "question has {completion}, but the problem" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "select"])
def test_the_function_that_grades_is_looked_for_before_rows_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr("r1rl.select.run.read_sources", read)
    monkeypatch.setattr("r1rl.select.check.read_sources", read)
    (folder / "s.yaml").write_text(
        "run_name: s\nsources: [{path: train.jsonl}]\ngrade: {function: lost.py:f}\n"
    )
    assert cli.main([command, "s.yaml"]) == 2
    assert "lost.py" in capsys.readouterr().err
