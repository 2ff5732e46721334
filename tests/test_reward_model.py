"""`r1rl reward-model`: the pairs it reads, its loss, what it learns, resume and processes, and that the
reward scores what was trained.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import do_run, start_two, untimed
from tiny_policy import save_tiny_policy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from r1rl.config.load import load_recipe
from r1rl.config.rows import PreferencesConfig
from r1rl.data.preferences import Preference, read_preferences
from r1rl.errors import DataError, UserError
from r1rl.models.checkpoint_folders import find_checkpoint
from r1rl.reward_model import run as reward_model
from r1rl.reward_model import setup
from r1rl.reward_model.pairs import TokenizedPair, figures, split, tokenize_pair
from r1rl.runs.inputs import NOTHING
from r1rl.runs.run_directory import RunDirectory
from r1rl.runs.trl_steps import TRLSteps
from r1rl.text.scored_text import scored_answer
from tests.reward_helpers import load_built_in

RECIPE = """
run_name: test
output_dir: {folder}/runs
max_steps: 4
batch_size: 8
micro_batch_size: 4
max_length: 64
model: {{path: {folder}/policy, dtype: float32}}
data: {{source: {folder}/pairs.jsonl}}
optimizer: {{learning_rate: 1.0e-2}}
evaluation: {{share: 0.2, every_steps: 3, during_pairs: 4}}
checkpoint: {{every_steps: 2}}
logging: {{live: false, completions_every: 2, show_completions: 1}}
"""


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write pairs of which the polite answer is the chosen one."""
    folder = tmp_path_factory.mktemp("reward_model")
    save_tiny_policy(folder / "policy")
    rows = [
        {
            "problem": f"what is {n}?",
            "chosen": f"<think>hm</think> please, {n}",
            "rejected": f"<think>please</think> go away {n}",
        }
        for n in range(60)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder


def train(folder: Path, *overrides: str, resume: str | None = None) -> RunDirectory:
    return do_run("reward-model", reward_model.run, folder / "recipe.yaml", *overrides, resume=resume)


def final_weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return AutoModelForSequenceClassification.from_pretrained(
        find_checkpoint(directory.checkpoints)
    ).state_dict()


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    return train(folder, "run_name=finished", "max_steps=12")


# reading pairs


def written(folder: Path, rows: list[Any], **settings: Any) -> PreferencesConfig:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return PreferencesConfig(source=str(path), **settings)


def conversation(problem: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": answer}]


def test_texts_and_conversations(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        {"prompt": "unused", "chosen": conversation("p", "good"), "rejected": conversation("p", "bad")},
    ]
    found = read_preferences(written(tmp_path, rows)).pairs
    assert [(one.problem, one.chosen, one.rejected) for one in found] == [("p", "good", "bad")] * 2
    mapped = read_preferences(
        written(
            tmp_path,
            [{"q": "p", "a": "good", "b": "bad"}],
            columns={"problem": "q", "chosen": "a", "rejected": "b"},
        )
    )
    assert mapped.pairs == [Preference("p", "good", "bad", "line 1")]


def test_bad_pairs_are_counted(tmp_path: Path) -> None:
    good = {"problem": "p", "chosen": "good", "rejected": "bad"}
    rows = [
        good,
        {**good, "chosen": "bad "},
        {**good, "rejected": None},
        {**good, "chosen": [{"role": "user", "content": "x"}]},
        3,
    ]
    loaded = read_preferences(written(tmp_path, rows))
    assert len(loaded.pairs) == 1
    assert Counter(row.fault for row in loaded.bad) == {
        "same_answers": 1,
        "missing_value": 1,
        "not_one_turn": 1,
        "not_an_object": 1,
    }


@pytest.mark.parametrize(
    ("row", "settings", "sentence"),
    [
        (
            {"problem": "a", "chosen": "b"},
            {},
            r"has no column named rejected\. It has: problem, chosen\. Say which one it is",
        ),
        ({"chosen": "a", "rejected": "b"}, {}, r"has no column named problem\. It has: chosen, rejected\."),
        (
            {"problem": "a", "chosen": "b", "rejected": "c"},
            {"columns": {"answer": "a"}},
            r"columns\.answer: a pair has no such column",
        ),
        (
            {"problem": "a", "chosen": "b", "rejected": "b"},
            {},
            r"no pair is left\. .*1 row skipped \(same_answers\)",
        ),
    ],
)
def test_what_can_not_work_is_said_at_once(
    tmp_path: Path, row: Any, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        read_preferences(written(tmp_path, [row], **settings))


# what is trained


def test_what_is_trained_is_what_the_reward_scores(finished: RunDirectory) -> None:
    """The reward, on completions as RL has them, gives the score that the model has for the ids of
    training.
    """
    tokenizer = AutoTokenizer.from_pretrained(finished.checkpoints / "step-000012")
    model = AutoModelForSequenceClassification.from_pretrained(finished.checkpoints / "step-000012").eval()
    for answer_only in (True, False):
        pair = tokenize_pair(
            Preference("what is 7?", "<think>hm</think> please, 7", "<think>a</think> no", ""),
            tokenizer,
            answer_only,
            64,
        )
        assert isinstance(pair, TokenizedPair)
        with torch.no_grad():
            expected = [
                model(input_ids=torch.tensor([ids])).logits.item()
                for ids in (pair.chosen_ids, pair.rejected_ids)
            ]
        completions, settings = (
            ["hm</think> please, 7", "a</think> no"],
            {"path": str(finished.path), "answer_only": answer_only},
        )
        scores = load_built_in("reward_model")(
            completions, ["what is 7?"] * 2, "<think>", device="cpu", **settings
        )
        assert scores == pytest.approx(expected, abs=1e-5)
        shown = tokenizer.decode(pair.chosen_ids)
        assert shown == (
            "what is 7?\n\nplease, 7" if answer_only else "what is 7?\n\n<think>hm</think> please, 7"
        )
    assert scored_answer("never closes", "<think>") is None


def test_pairs_that_can_not_be_scored(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")

    def fault(chosen: str, rejected: str, max_length: int = 64) -> str:
        return tokenize_pair(Preference("p", chosen, rejected, "line 1"), tokenizer, True, max_length).fault  # type: ignore[union-attr]

    assert fault("<think>x</think>", "b") == "no_answer_found"
    assert fault("<think>x", "b") == "no_answer_found"
    assert fault("<think>x</think>a", "<think>y</think> a") == "same_answers"
    assert fault("a" * 70, "b") == "too_long"


def test_no_problem_is_trained_and_held_out() -> None:
    pairs = [TokenizedPair(f"problem {n % 50}", [n], [n + 1]) for n in range(200)]
    trained, held_out = split(pairs, 0.3)
    assert not {pair.problem for pair in trained} & {pair.problem for pair in held_out}
    assert len(trained) + len(held_out) == 200 and 0.1 < len({pair.problem for pair in held_out}) / 50 < 0.5
    assert split(pairs, 0.0) == (pairs, [])
    with pytest.raises(
        DataError,
        match=r"evaluation\.share is 0\.01, which splits the 4 pairs into 4 to train on and 0 held out",
    ):
        split(pairs[:4], 0.01)


def test_figures_of_a_known_evaluation() -> None:
    pairs = [TokenizedPair(problem, [0], [1]) for problem in ("a", "a", "b", "c", "d")]
    found = figures(pairs, [(2.0, 1.0), (1.0, 2.0), (3.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    # Problems: a (1 + 0) / 2, b 1, c a tie of 0.5, d 0: mean 0.5. Margins: a (1 - 1) / 2 = 0, b 3, c 0, d -1:
    # mean 0.5.
    assert found["accuracy"]["value"] == 0.5 and found["margin"]["value"] == 0.5
    assert found["num_pairs"] == 5 and found["num_problems"] == 4
    low, high = found["accuracy"]["ci95"]
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_learns_the_preference_and_leaves_a_whole_run(finished: RunDirectory) -> None:
    summary = json.loads(finished.summary_path.read_text())
    assert summary["accuracy_after"]["value"] == 1.0 and summary["margin_after"]["ci95"][0] > 0.5 > abs(
        summary["margin_before"]["value"]
    )
    records = finished.read_metrics()
    assert records[0]["loss"] == pytest.approx(0.693, abs=0.05)  # a new head does not tell them apart: ln 2
    assert records[-1]["loss"] < 0.2 and records[-1]["pair_accuracy"] == 1.0
    left = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "curves.png",
        "evaluations/before.json",
        "evaluations/step-000003.json",
        "evaluations/after.json",
    } <= left
    scores = json.loads((finished.evaluations / "after.json").read_text())["pairs"]
    assert len(scores) == summary["evaluations"]["after"]["num_pairs"]
    assert all(one["chosen_score"] > one["rejected_score"] for one in scores)
    shown = [
        json.loads(line) for line in (finished.completions / "step-000004.jsonl").read_text().splitlines()
    ]
    assert (
        len(shown) == 8
        and "please" in shown[0]["chosen"]
        and "go away" in shown[0]["rejected"]
        and "think" not in shown[0]["chosen"]
    )


def test_loss_is_bradley_terry(folder: Path) -> None:
    """One step over all pairs, from the model as it was initialised: - mean log sigmoid(margin) + 0.1 mean
    (sum of scores)^2.
    """
    settings = [
        "center_coefficient=0.1",
        "batch_size=60",
        "micro_batch_size=12",
        "evaluation={share: 0}",
        "max_steps=1",
    ]
    recipe = load_recipe("reward-model", folder / "recipe.yaml", settings)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder / "policy"),
        setup.load_scorer(recipe).eval(),
    )
    pairs, _, _ = setup.read_pairs(recipe, tokenizer, NOTHING)
    with torch.no_grad():
        texts = [ids for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
        scores = torch.tensor([float(model(input_ids=torch.tensor([ids])).logits) for ids in texts]).view(
            -1, 2
        )
    expected = (
        -torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1]).mean()
        + 0.1 * (scores.sum(dim=1) ** 2).mean()
    )
    assert len(pairs) == 60
    assert train(folder, "run_name=bradley", *settings).read_metrics()[0]["loss"] == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_resume_goes_on_exactly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(folder, "run_name=whole")
    real = TRLSteps.step

    def dies(self: TRLSteps) -> Any:
        if self.state.step == 3:
            raise InterruptedError
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(TRLSteps, "step", dies)
        train(folder, "run_name=cut")
    resumed = train(folder, "run_name=cut", resume="latest")
    assert untimed(resumed) == untimed(whole)
    weights = final_weights(resumed)
    assert all(torch.equal(value, weights[name]) for name, value in final_weights(whole).items())


@pytest.mark.slow
def test_two_processes_compute_what_one_does(folder: Path) -> None:
    alone = train(folder, "run_name=alone", "max_steps=2")
    pair = start_two("reward-model", folder / "recipe.yaml", "run_name=pair", "max_steps=2")
    for one, two in zip(untimed(alone), untimed(pair), strict=True):
        assert one.keys() == two.keys()
        assert {name: value for name, value in two.items() if name != "completions"} == pytest.approx(
            one, rel=1e-3, abs=1e-5
        )
    for name in ("before", "after"):
        records = [json.loads((run.evaluations / f"{name}.json").read_text()) for run in (alone, pair)]
        assert [one["problem"] for one in records[0]["pairs"]] == [
            one["problem"] for one in records[1]["pairs"]
        ]
        assert records[1]["figures"]["margin"]["value"] == pytest.approx(
            records[0]["figures"]["margin"]["value"], abs=1e-3
        )


def test_the_embedded_model_can_become_one(folder: Path) -> None:
    recipe = load_recipe("reward-model", folder / "recipe.yaml", ["model.path=embedded"])
    model = setup.load_scorer(recipe)
    assert model.config.num_labels == 1 and model.score.weight.shape[0] == 1
    assert torch.equal(model.score.weight, setup.load_scorer(recipe).score.weight)  # of the seed


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.columns={chosen: better}"], r"data\.columns\.chosen: .* has no column 'better'"),
        (["max_length=4"], r"no pair is left\. .*60 rows skipped \(too_long\)"),
        (
            ["evaluation.share=0.0001"],
            r"evaluation\.share is 0\.0001, which splits the 60 pairs into 60 to train on and 0 held out",
        ),
        (["evaluation.data={source: a.jsonl}"], r"evaluation has both data and share"),
        (["evaluation.share=0"], r"evaluation\.every_steps is set, but there are no held-out pairs"),
        (["batch_size=6"], r"batch_size is 6, which is not a multiple of micro_batch_size \(4\)"),
        (["model.path=./nowhere"], r"model\.path: there is no folder"),
    ],
)
def test_errors_come_before_the_model_is_loaded(
    folder: Path, overrides: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*arguments: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(setup, "load_scorer", load)
    with pytest.raises(UserError, match=sentence):
        train(folder, "run_name=wrong", *overrides)
    assert not (folder / "runs" / "wrong").exists()
