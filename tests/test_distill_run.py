"""Whole distillation runs of tiny random models: what they leave, resume, processes, every source and
divergence, what is refused.
"""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import pytest
import torch
from run_helpers import HELD_OUT, do_run, final_weights, start_two, untimed
from tiny_policy import save_tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1rl.cli.main import main
from r1rl.config.load import load_recipe
from r1rl.distill.preflight import check_processes
from r1rl.distill.run import DistillRun, run
from r1rl.distill.trainer import DistillTrainer, StepResult
from r1rl.errors import UserError
from r1rl.models.checkpoint_folders import find_checkpoint
from r1rl.runs.run_directory import RunDirectory

RECIPE = """
run_name: test
output_dir: {folder}/runs
max_steps: 4
model: {{path: {folder}/student, dtype: float32}}
teacher: {{path: {folder}/teacher}}
on_policy: 0.5
data: {{source: countdown, arguments: {{count: 64}}}}
completions: {{source: {folder}/written.jsonl}}
prompt: {{template: plain, prefill: " <think>"}}
rollout: {{num_prompts: 4, num_generations: 2, max_completion_length: 12}}
rewards: [{{function: countdown}}]
# The epsilon is larger, so that rounding in tiny gradients is not scaled up.
optimizer: {{learning_rate: 1.0e-2, epsilon: 1.0e-4}}
update: {{micro_batch_tokens: 256, logit_chunk: 16}}
{held_out}
logging: {{live: false, completions_every: 2, show_completions: 1}}
"""
NO_EVALUATION = ("evaluation.data=null", "rewards=[]")


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    save_tiny_policy(folder / "student", seed=0)
    save_tiny_policy(folder / "teacher", seed=1)
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher")
    with torch.no_grad():  # a random model is nearly uniform; this one has opinions
        for parameter in teacher.parameters():
            parameter.mul_(4.0 if parameter.ndim == 2 else 1.0)
    teacher.save_pretrained(folder / "teacher")
    row = {"prefill": " <think>", "finish_reason": "eos"}
    rows = [{"problem": f"Make {n} from {n}, 1.", "completion": f" {n}*1</think>", **row} for n in range(9)]
    (folder / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "other.jsonl").write_text(json.dumps({"problem": "2+2", "text": "4"}) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, held_out=HELD_OUT))
    return folder


def train(folder: Path, *overrides: str, resume: str | None = None) -> RunDirectory:
    return do_run("distill", run, folder / "recipe.yaml", *overrides, resume=resume)


def digest(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train an uninterrupted run of four steps, half of them on-policy."""
    return train(folder, "run_name=uninterrupted")


def test_run_directory_holds_everything(finished: RunDirectory) -> None:
    left = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    expected = {"config.yaml", "environment.json", "metrics.jsonl", "summary.json", "curves.png"}
    assert (
        expected | {"evaluations/before.json", "evaluations/after.json", "completions/step-000004.jsonl"}
        <= left
    )
    assert [path.name for path in sorted(finished.checkpoints.iterdir())] == ["step-000002", "step-000004"]
    low, high = json.loads(finished.summary_path.read_text())["accuracy_after"]["ci95"]
    assert low <= high


def test_half_of_a_step_is_the_students_own(finished: RunDirectory) -> None:
    rows = [
        json.loads(line) for line in (finished.completions / "step-000004.jsonl").read_text().splitlines()
    ]
    assert [(row["slot"], row["on_policy"]) for row in rows] == [
        (slot, slot < 2) for slot in range(4) for _ in range(2)
    ]
    written = [row for row in rows if not row["on_policy"]]
    assert all(
        row["prompt"].endswith("Assistant: <think>") and row["completion"].endswith("*1</think>")
        for row in written
    )
    record = finished.read_metrics()[-1]
    on_policy, off_policy = ([row for row in rows if row["on_policy"] is kind] for kind in (True, False))
    for name, some in (("loss/on_policy", on_policy), ("loss/off_policy", off_policy)):
        total = sum(row["divergence"] * row["num_tokens"] for row in some)
        assert record[name] == pytest.approx(total / sum(row["num_tokens"] for row in some), rel=1e-6)
    assert record["completions/mean_length"] == pytest.approx(sum(row["num_tokens"] for row in rows) / 8)
    # A mean over tokens, as the recipe says.
    assert record["loss"] == pytest.approx(record["divergence/reverse_kl"], rel=1e-5)


def test_checkpoint_loads_as_a_plain_model_and_was_trained(folder: Path, finished: RunDirectory) -> None:
    before = AutoModelForCausalLM.from_pretrained(folder / "student").state_dict()
    after = final_weights(finished)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert AutoTokenizer.from_pretrained(find_checkpoint(finished.checkpoints)).eos_token == "<eos>"


def test_teacher_is_never_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = digest(folder / "teacher")
    seen: list[dict[str, torch.Tensor]] = []
    original = DistillRun._finish

    def look(run: DistillRun) -> None:
        teacher = run.parts.teacher.model  # type: ignore[attr-defined]
        assert not any(
            parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters()
        )
        seen.append(teacher.state_dict())
        original(run)

    monkeypatch.setattr(DistillRun, "_finish", look)
    train(folder, "run_name=teacher", "max_steps=2", *NO_EVALUATION)
    expected = AutoModelForCausalLM.from_pretrained(folder / "teacher").state_dict()
    assert all(torch.equal(seen[0][name], expected[name]) for name in expected)
    assert digest(folder / "teacher") == files


def test_resumed_run_equals_the_uninterrupted_one(folder: Path, finished: RunDirectory) -> None:
    train(folder, "run_name=resumed", "max_steps=2")
    directory = train(folder, "run_name=resumed", "max_steps=4", resume="latest")
    assert untimed(directory) == untimed(finished)
    weights, expected = final_weights(directory), final_weights(finished)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_two_processes_equal_one(folder: Path, finished: RunDirectory) -> None:
    directory = start_two("distill", folder / "recipe.yaml", "run_name=two")
    for one, two in zip(untimed(finished), untimed(directory), strict=True):
        assert one == pytest.approx(two, rel=0, abs=1e-5)
    weights, expected = final_weights(directory), final_weights(finished)
    for name in expected:
        torch.testing.assert_close(weights[name], expected[name], rtol=0, atol=1e-5)


def test_interrupt_saves_and_the_run_goes_on(
    folder: Path, finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step_and_press_ctrl_c(trainer: DistillTrainer) -> StepResult:
        signal.raise_signal(signal.SIGINT)
        return one_step(trainer)

    one_step = DistillTrainer.step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DistillTrainer, "step", step_and_press_ctrl_c)
        train(folder, "run_name=interrupted", "checkpoint.every_steps=0")
    directory = train(folder, "run_name=interrupted", "checkpoint.every_steps=0", resume="latest")
    assert untimed(directory) == untimed(finished)


@pytest.mark.parametrize(
    "overrides",
    [
        ["divergence.kind=forward_kl", "on_policy=1", "completions=null"],
        [
            "divergence.kind=jsd",
            "divergence.beta=0.5",
            "divergence.temperature=1.5",
            "divergence.aggregation=sequences",
        ],
        ["on_policy=0", "data=null", "model.gradient_checkpointing=true"],
        ["rollout.engine=transformers", "rollout.temperature=0.8", "rollout.top_p=0.9"],
    ],
    ids=str,
)
def test_student_comes_nearer_to_its_teacher(folder: Path, overrides: list[str]) -> None:
    directory = train(
        folder, "run_name=learns", "max_steps=12", "checkpoint.every_steps=0", *NO_EVALUATION, *overrides
    )
    records = directory.read_metrics()
    assert [record["update/skipped"] for record in records] == [0.0] * 12
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]
    assert ("loss/on_policy" in records[0]) is ("on_policy=0" not in overrides)
    assert ("loss/off_policy" in records[0]) is ("completions=null" not in overrides)


def test_forward_kl_teaches_entropy_and_all(folder: Path) -> None:
    """The student has its teacher's distribution on one prompt's completions after enough steps there."""
    fixed = [
        "on_policy=0",
        "data=null",
        "completions.limit=1",
        "rollout.num_prompts=1",
        "rollout.num_generations=1",
    ]
    directory = train(
        folder,
        "run_name=exact",
        "max_steps=120",
        "divergence.kind=forward_kl",
        "checkpoint.every_steps=0",
        *NO_EVALUATION,
        *fixed,
    )
    last = directory.read_metrics()[-1]
    assert last["loss"] < 0.05
    assert last["entropy"] == pytest.approx(last["teacher/entropy"], abs=0.2)


@pytest.mark.parametrize("wider", ["teacher", "student"])
def test_padded_vocabulary_changes_nothing(folder: Path, finished: RunDirectory, wider: str) -> None:
    """Logits of eight more ids, which no tokenizer knows and which the model likes best, take no part."""
    model = AutoModelForCausalLM.from_pretrained(folder / wider)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        vocabulary = len(rows)
        model.resize_token_embeddings(vocabulary + 8, mean_resizing=False)
        model.get_input_embeddings().weight[vocabulary:] = 3 * rows[:8]
    model.save_pretrained(folder / f"wide-{wider}")
    AutoTokenizer.from_pretrained(folder / wider).save_pretrained(folder / f"wide-{wider}")
    key = {"teacher": "teacher.path", "student": "model.path"}[wider]
    off_policy = ["on_policy=0", "data=null", "max_steps=1", *NO_EVALUATION]
    plain = train(folder, "run_name=narrow", *off_policy).read_metrics()[0]
    padded = train(folder, "run_name=wide", f"{key}={folder}/wide-{wider}", *off_policy).read_metrics()[0]
    for name in ("loss", "divergence/forward_kl", "entropy", "teacher/entropy", "agreement"):
        assert padded[name] == pytest.approx(plain[name], abs=1e-6)


def test_student_that_writes_tokens_which_the_teacher_lacks(folder: Path) -> None:
    """Its completions are used up to there; the run says how many ids are compared."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    known = len(tokenizer)
    tokenizer.add_tokens(["<tool>", "<call>"])
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    model.resize_token_embeddings(known + 2, mean_resizing=False)
    with torch.no_grad():  # half of what it writes is <tool>
        model.get_input_embeddings().weight[known] = 0.0
        hidden = model.model(input_ids=torch.arange(5, 25)[None]).last_hidden_state[0].mean(0)
        model.get_input_embeddings().weight[known] = 5.0 * hidden / hidden.square().sum()
    model.save_pretrained(folder / "talkative")
    tokenizer.save_pretrained(folder / "talkative")
    overrides = [
        f"model.path={folder}/talkative",
        "on_policy=1",
        "completions=null",
        "logging.completions_every=1",
        "max_steps=1",
    ]
    directory = train(folder, "run_name=talkative", *overrides, *NO_EVALUATION)
    rows = [
        json.loads(line) for line in (directory.completions / "step-000001.jsonl").read_text().splitlines()
    ]
    cut = [row for row in rows if "<tool>" in row["completion"]]
    assert cut
    assert all(row["num_tokens"] < 12 for row in cut if not row["completion"].endswith("<tool>"))
    assert directory.read_metrics()[0]["update/skipped"] == 0


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["completions=null"],
            "on_policy is 0.5, so completions come from a file: write completions: {source: NAME}",
        ),
        (
            ["on_policy=1"],
            "completions is set, but on_policy is 1, so nothing comes from it: leave it out (completions: "
            "null)",
        ),
        (
            ["on_policy=0"],
            "data is set, but on_policy is 0, so nothing comes from it: leave it out (data: null)",
        ),
        (
            ["rollout.one_step_off=true"],
            "rollout.one_step_off is true, but it is for r1rl grpo, whose loss corrects for the lag: "
            "leave it out",
        ),
        (
            ["on_policy=0.3"],
            "on_policy is 0.3, which is no whole number of the 4 prompts of a step (rollout.num_prompts): "
            "write 0.25",
        ),
        (
            ["divergence.kind=jsd"],
            "divergence.kind: jsd needs divergence.beta, the teacher's share of the mixture, such as 0.5",
        ),
        (
            ["divergence.beta=0.5"],
            "divergence.beta has no effect with divergence.kind: reverse_kl; write kind: jsd, or leave beta "
            "out",
        ),
        (["divergence={kind: jsd, beta: 1.0}"], "divergence.beta is 1.0; it must be above 0 and below 1"),
        (["rewards=[]"], "evaluation.data is set, but no reward scores its answers"),
        (
            ["evaluation.data=null"],
            "rewards only score held-out answers here, and there are no held-out problems",
        ),
        (["completions.source=absent.jsonl"], "completions.source: there is no file absent.jsonl"),
        (
            ["completions.source={folder}/other.jsonl"],
            "{folder}/other.jsonl has no column named completion (or messages). It has: problem, text. Say "
            "which one it is, in completions",
        ),
        (
            ["completions.columns={completion: output}"],
            "completions.columns.completion: {folder}/written.jsonl has no column 'output'",
        ),
        (["teacher.path=./nowhere"], "teacher.path: there is no folder nowhere"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_a_model_is_loaded(
    folder: Path,
    overrides: list[str],
    sentence: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    overrides = [one.replace("{folder}", str(folder)) for one in overrides]
    assert main(["distill", str(folder / "recipe.yaml"), "run_name=wrong", *overrides]) == 2
    assert sentence.replace("{folder}", str(folder)) in " ".join(capfd.readouterr().err.split())


def test_teacher_with_another_tokenizer_is_refused_before_weights_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(
        UserError,
        match=r"teacher\.path: the teacher has another tokenizer than the student \(id \d+ is .*sft",
    ):
        train(folder, "run_name=other", "teacher.path=embedded", *NO_EVALUATION)
    assert not (folder / "runs" / "other").exists()


def test_step_that_processes_can_not_share_is_refused(folder: Path) -> None:
    recipe = load_recipe("distill", folder / "recipe.yaml", ["on_policy=0.25"])
    check_processes(recipe, 1)
    with pytest.raises(
        UserError, match=r"1 prompts that the student answers \(on_policy 0.25 of .* 4\), which 2 processes"
    ):
        check_processes(recipe, 2)
