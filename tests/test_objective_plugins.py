"""Surrogates, advantage estimators and engines of the user's own: they train, and mistakes are told before a
model is loaded.
"""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from config_helpers import MINIMAL, load, message
from rollout_helpers import tiny_model, tokenizer
from run_helpers import prepare, train, untimed
from update_helpers import LAYOUTS, assert_same_gradients, build, gradients, random_rollout

from r1rl.cli.main import main
from r1rl.config.bundled import PACKAGE
from r1rl.config.engines import ENGINES, find_engine
from r1rl.config.load import load_recipe
from r1rl.config.schema import UpdateConfig
from r1rl.errors import RecipeError, UserError
from r1rl.grpo.components import find_components
from r1rl.monitor import metric_names as names
from r1rl.objective.advantages import BASELINES, SCALES, group_advantages
from r1rl.objective.aggregation import AGGREGATIONS
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.kl import KL_ESTIMATORS
from r1rl.objective.own import find_estimator, find_surrogate
from r1rl.objective.surrogates import SURROGATES
from r1rl.objective.trial import try_surrogate
from r1rl.pipeline.hashing import Hashes, recipe_inputs
from r1rl.rollout import EngineSetup, make_engine

EXAMPLES = Path(__file__).parent.parent / "examples"

ENGINE = """
from r1rl.config.engines import EngineProperties
from r1rl.rollout import EngineSetup, make_engine

class MyEngine:
    name = "mine"
    reason = "the recipe asks for it"
    properties = EngineProperties(exact=True, shares_weights=True)

    def __init__(self, setup):
        self.setup, self.inner = setup, make_engine("transformers", setup)

    def generate(self, prompts, num_generations, sampling, seeds, *, refresh=True):
        return self.inner.generate(prompts, num_generations, sampling, seeds, refresh=refresh)

    def refresh(self):
        self.inner.refresh()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write everything that a run needs, and code of the user's own beside the recipe."""
    folder = prepare(tmp_path_factory.mktemp("own"))
    for example in ("own_loss.py", "own_advantage.py"):
        shutil.copy(EXAMPLES / example, folder / example)
    (folder / "my_engine.py").write_text(ENGINE)
    return folder


SHORT = ("max_steps=2", "evaluation.data=null", "algorithm.num_minibatches=2", "checkpoint.every_steps=0")


@pytest.fixture(scope="module")
def built_in(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of two steps with the built-in parts."""
    return untimed(train(folder, *SHORT, "run_name=built_in"))


# They train


def test_own_clip_trains_as_the_built_in_one(folder: Path, built_in: list[dict[str, Any]]) -> None:
    """Nothing is assumed of a plain function, so sequences without an advantage are forwarded too."""
    own = untimed(train(folder, *SHORT, "algorithm.surrogate=own_loss.py:clip", "run_name=clip"))
    for found, expected in zip(own, built_in, strict=True):
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
        assert found["reward"] == expected["reward"]
        assert found[names.TRAINED_SHARE] == 1.0 >= expected[names.TRAINED_SHARE]
        assert found["ratio/max"] == pytest.approx(expected["ratio/max"], rel=1e-5)
        assert "clip_ratio/low_mean" not in found  # it records none


def test_own_surrogate_reports_its_metrics(folder: Path) -> None:
    run = train(folder, *SHORT, "algorithm.surrogate=own_loss.py:asymmetric_clip", "run_name=asymmetric")
    assert all(0 < record["negative_tokens"] < 1 for record in untimed(run))
    assert json.loads((run.path / "summary.json").read_text())


def test_own_estimator_trains(folder: Path, built_in: list[dict[str, Any]]) -> None:
    own = untimed(train(folder, *SHORT, "algorithm.advantage=own_advantage.py:ranks", "run_name=ranks"))
    assert own[0]["reward"] == built_in[0]["reward"]
    assert own[0]["grad_norm"] != built_in[0]["grad_norm"]


def test_own_engine_samples_as_the_one_that_it_wraps(folder: Path) -> None:
    words = (*SHORT, "max_steps=1")
    own = untimed(train(folder, *words, "rollout.engine=my_engine.py:MyEngine", "run_name=engine"))
    wrapped = untimed(train(folder, *words, "rollout.engine=transformers", "run_name=wrapped"))
    assert own == wrapped


@pytest.mark.parametrize("layout", LAYOUTS)
def test_own_clip_has_the_gradients_of_the_built_in_one(layout: str) -> None:
    model, batch = build("qwen3"), random_rollout(3)
    config = AlgorithmConfig(surrogate=f"{EXAMPLES}/own_loss.py:clip")
    found = find_surrogate(config, Path())
    assert found.has_gradient(torch.zeros(2)).all()
    small = UpdateConfig(micro_batch_tokens=64)
    own = gradients(model, batch, LAYOUTS[layout], small, config, surrogate=found)
    assert_same_gradients(own, gradients(model, batch, LAYOUTS[layout], algorithm=AlgorithmConfig()))


def test_ranks_by_hand() -> None:
    estimator = find_estimator(AlgorithmConfig(advantage=f"{EXAMPLES}/own_advantage.py:ranks"), 4, Path())
    nan = float("nan")
    rewards = torch.tensor([[1.0, 3.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0], [nan, 1.0, 0.0, nan]])
    found = group_advantages(rewards, AlgorithmConfig(), estimator)
    assert found.dtype == torch.float32
    # 1 is below three of three; 3 is above two, beside one; 2 is above one and below two
    expected = [[-1, 2 / 3, -1 / 3, 2 / 3], [0, 0, 0, 0], [0, 1, -1, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_own_estimator_that_fails_later_stops_the_run() -> None:
    """Its trial knows only small rewards."""
    config = AlgorithmConfig(advantage="a.py:f")
    rewards = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(
        RecipeError, match=r"a\.py:f returned values that are not finite, or of shape \[1, 2\]"
    ):
        group_advantages(rewards, config, lambda rewards_PG, config: rewards_PG / 0)
    with pytest.raises(RecipeError, match=r"of shape \[2\]"):
        group_advantages(rewards, config, lambda rewards_PG, config: rewards_PG[0])


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("choices", [{}, {"epsilon_low": 1.0, "epsilon_high": 4.0}])
def test_built_in_surrogates_pass_the_trial(name: str, choices: dict[str, float]) -> None:
    state = torch.get_rng_state()
    try_surrogate(SURROGATES[name], AlgorithmConfig(surrogate=name, **choices), name)
    assert torch.equal(torch.get_rng_state(), state)


# Mistakes are told before a model is loaded

SURROGATE = "def f(logprobs_N, ratio_N, advantages_N, config, metrics):\n    "
RECORD = """
from r1rl.objective.surrogates import *
def g(l, r, a, c, m):
    return {}
f = Surrogate(function=g, {})
"""


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (None, "'own.py:f': there is no file "),
        ("def clipp(a, b, c, d, e): pass", "f does not exist in "),
        (RECORD.format("r * a", "").replace("f =", "ff ="), ". Did you mean ff? It has: g, ff."),
        ("f = 3", "f is not a function in "),
        ("class f: pass", "f is a class, not a function, in "),
        ("def f(:\n", "own.py, line 1: "),
        ("import not_there\n", "imports not_there, which is not installed"),
        ("def f(ratio_N): return "
         "ratio_N", "can't be called as f(logprobs_N, ratio_N, advantages_N, config, metrics)"),
        (SURROGATE + "return ratio_N * nothing", "raised on a trial of 12 tokens: NameError"),
        (SURROGATE + "return "
                     "None", "must return a tensor [N], one value for each of the 12 tokens, not a NoneType"),
        (SURROGATE + "return (ratio_N * "
                     "advantages_N).sum()", "of floating-point numbers; it returned shape [] of float32"),
        (SURROGATE + "return ratio_N > 1", "it returned shape [12] of bool"),
        (SURROGATE + "return ratio_N / advantages_N", "returned values that are not finite on a trial: "),
        (SURROGATE + "return (ratio_N - 1).abs().sqrt()", "has a gradient that is not finite on a trial: "),
        (SURROGATE + "return ratio_N.detach() * advantages_N", "returned a tensor without gradient"),
        (SURROGATE + "return 0 * "
                     "logprobs_N", "has no gradient with respect to the log-probabilities at any token"),
        (SURROGATE + "advantages_N.clamp_(min=0); return ratio_N * advantages_N", "changes its inputs"),
        (SURROGATE + "config.epsilon_low = 1.0; return ratio_N * advantages_N", "changes its inputs"),
        (
            SURROGATE + "return ratio_N * (advantages_N - advantages_N.mean())",
            "gives a token another value when other tokens stand beside it",
        ),
        (RECORD.format("r * "
                       "a.abs()", "has_gradient=positive"), "has a gradient where its has_gradient says "
                                                            "that there is none"),
        (RECORD.format("r * a", "has_gradient=lambda a: a"), "has_gradient must return a bool tensor"),
        (RECORD.format("r * a", "uses_ratio=False"), "depends on the ratio, but declares uses_ratio=False"),
    ],
)  # fmt: skip
def test_wrong_surrogates(tmp_path: Path, code: str | None, sentence: str) -> None:
    refused(tmp_path, code, "algorithm.surrogate", "own.py:f", sentence)


ESTIMATOR = "def f(rewards_PG, config):\n    "


@pytest.mark.parametrize(
    ("spec", "code", "sentence"),
    [
        ("own.py:f", "def f(rewards_PG): return rewards_PG", "can't be called as f(rewards_PG, config)"),
        ("group", "", "'group' is neither module:function nor file.py:function"),
        ("own.py:f", ESTIMATOR + "return rewards_PG.missing", "raised for the rewards "),
        ("own.py:f", ESTIMATOR + "return "
                                 "rewards_PG.tolist()", "must return a tensor [P, G], here [5, 4], not a "
                                                        "list"),
        ("own.py:f", ESTIMATOR + "return rewards_PG.nansum(1)", "it returned shape [5] of float64"),
        ("own.py:f", ESTIMATOR + "return rewards_PG - rewards_PG.mean(1, "
                                 "keepdim=True)", "must be finite numbers"),
        (
            "own.py:f",
            ESTIMATOR + "x = rewards_PG.nan_to_num(); return (x - x.mean(1, keepdim=True)) / x.std(1, "
                        "keepdim=True)",
            "must be finite numbers, also for groups whose rewards are all equal",
        ),
        ("own.py:f", ESTIMATOR + "return "
                                 "rewards_PG.nan_to_num(1.0)", "where no reward applied (nan), the "
                                                               "advantage must be 0"),
        ("own.py:f", ESTIMATOR + "return rewards_PG.nan_to_num_()", "changes its inputs"),
    ],
)  # fmt: skip
def test_wrong_estimators(tmp_path: Path, spec: str, code: str, sentence: str) -> None:
    refused(tmp_path, code, "algorithm.advantage", spec, sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class MyEngine": "class OurEngine"}, "MyEngine does not exist in "),
        ({"class MyEngine:": "def MyEngine():\n  x = 1\nclass Other:"}, "MyEngine is not a class in "),
        ({"def refresh(self)": "def renew(self)"}, "has no method refresh(), which an engine needs"),
        ({"def __init__(self, "
          "setup)": "def __init__(self, model, setup)"}, "can't be made from one EngineSetup"),
        ({"seeds, *, "
          "refresh=True": "seeds"}, "can't be called as generate(prompts, num_generations, sampling, seeds, "
                                    "refresh=True)"),
        ({"properties = ": "facts = "}, "has no properties: write properties = EngineProperties()"),
        ({"exact=True": "package='not_there'"}, "which needs not_there: pip install not_there"),
    ],
)  # fmt: skip
def test_wrong_engines(tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    code = ENGINE
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    found = refused(tmp_path, code, "rollout.engine", "own.py:MyEngine", sentence)
    assert found.startswith("rollout.engine")


def refused(folder: Path, code: str | None, key: str, spec: str, sentence: str) -> str:
    """Check that `r1rl grpo` refuses this code before it looks for a model, and return the message."""
    if code is not None:
        (folder / "own.py").write_text(code)
    recipe = load(folder / "recipe.yaml", MINIMAL + "rollout: {num_generations: 4}\n", f"{key}={spec}")
    with pytest.raises(UserError) as caught:
        find_components(recipe, folder)
    found = str(caught.value)
    assert found.startswith(key)
    assert sentence in found
    if code is not None and spec.startswith("own.py"):
        assert "own.py" in found
    return found


def test_a_mistake_ends_the_command_before_data_or_model_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text(SURROGATE + "return ratio_N.detach()")
    for command in ("grpo", "check"):
        assert main([command, str(folder / "recipe.yaml"), "algorithm.surrogate=broken.py:f"]) == 2
        assert "algorithm.surrogate: f (" in capsys.readouterr().err
    assert not (folder / "runs" / "test").exists()


@pytest.mark.parametrize(
    ("lines", "properties", "sentence"),
    [
        ("algorithm: {delta: 3}", "takes_delta=False", "algorithm.delta belongs to the clip surrogate"),
        (
            "algorithm: {importance_level: sequence}",
            "uses_ratio=False",
            "own.py:f, which uses no ratio: write token",
        ),
    ],
)
def test_declared_properties_contradict_the_recipe(
    tmp_path: Path, lines: str, properties: str, sentence: str
) -> None:
    (tmp_path / "own.py").write_text(RECORD.format("l * a", properties))
    recipe = load(tmp_path / "recipe.yaml", f"{MINIMAL}{lines}\n", "algorithm.surrogate=own.py:f")
    with pytest.raises(RecipeError, match=sentence):
        find_components(recipe, tmp_path)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("rollout: {one_step_off: true}", "which can't work then: write engine: auto"),
        ("model: {lora: {}}", "would not see the adapters of model.lora"),
    ],
)
def test_own_engines_do_what_they_declare_only(tmp_path: Path, lines: str, sentence: str) -> None:
    (tmp_path / "own.py").write_text(ENGINE)
    recipe = load(tmp_path / "recipe.yaml", f"{MINIMAL}{lines}\n", "rollout.engine=own.py:MyEngine")
    with pytest.raises(RecipeError, match=sentence):
        find_components(recipe, tmp_path)
    (tmp_path / "own.py").write_text(
        ENGINE.replace("exact=True", "background=True, takes_adapters=True, exact=True")
    )
    assert find_components(recipe, tmp_path).engine.properties.background


@pytest.mark.parametrize("shares", [True, False])
def test_only_an_engine_that_shares_weights_is_asked_for_a_copy(tmp_path: Path, shares: bool) -> None:
    (tmp_path / "own.py").write_text(ENGINE.replace("shares_weights=True", f"shares_weights={shares}"))
    found = find_engine("own.py:MyEngine", tmp_path)
    engine: Any = make_engine(found, EngineSetup(tiny_model(), tokenizer(), own_copy=True))
    assert engine.setup.own_copy is shares


def test_an_engine_without_a_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ENGINE.replace("    reason", "    why"))
    with pytest.raises(UserError, match=r"MyEngine \(.*own.py\) has no attribute reason"):
        make_engine(find_engine("own.py:MyEngine", tmp_path), EngineSetup(tiny_model(), tokenizer()))


# Names


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            "algorithm: {surrogate: cipso}",
            'algorithm.surrogate is the text "cipso"; expected clip, cispo, online_rft or '
            "my_loss.py:my_surrogate; did you mean cispo?",
        ),
        (
            "algorithm: {surrogate: [clip]}",
            "algorithm.surrogate is a list of 1; expected clip, cispo, online_rft or my_loss.py:my_surrogate",
        ),
        ("rollout: {engine: "
         "vlm}", "expected auto, native, transformers, vllm or my_engine.py:MyEngine; did you mean vllm?"),
        ("algorithm: {kl_estimator: "
         "k3:x}", 'algorithm.kl_estimator is the text "k3:x"; expected k1, k2 or k3'),
    ],
)  # fmt: skip
def test_unknown_names_are_told_with_those_that_exist(tmp_path: Path, lines: str, sentence: str) -> None:
    assert sentence in message(tmp_path / "recipe.yaml", f"{MINIMAL}{lines}\n")


@pytest.mark.parametrize("command", ["evaluate", "generate", "sft"])
def test_what_needs_a_training_run_samples_nowhere_else(tmp_path: Path, command: str) -> None:
    text = {
        "evaluate": "run_name: a\nmodels: [{path: embedded}]\nbenchmarks: [countdown]\nengine: vllm\n",
        "generate": "run_name: a\ndata: {source: countdown}\nengine: vllm\n",
        "sft": "run_name: a\ndata: {source: rows.jsonl}\nevaluation: {engine: vllm}\n",
    }[command]
    found = message(tmp_path / "recipe.yaml", text, command=command)
    assert 'engine is the text "vllm"; expected auto, native or transformers' in found


def test_help_lists_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grpo", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for table in (SURROGATES, AGGREGATIONS, KL_ESTIMATORS, BASELINES, SCALES, ENGINES):
        for name, entry in table.items():
            assert f"{name}: {entry.help.split()[0]}" in shown
    assert "my_loss.py:my_surrogate" in shown


NAMES = {
    *SURROGATES,
    *KL_ESTIMATORS,
    *ENGINES,
    "dr_grpo",
    "dapo",
    "bnpo",
    "leave_one_out",
    "reinforce_plus_plus",
}
NAMES -= {"auto"}  # of a dtype and of a layout too


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_no_name_of_a_table_is_compared(file: Path) -> None:
    """Properties are asked, not names: a new entry needs no other change."""
    assert compared_names(file.read_text(encoding="utf-8")) == []


def compared_names(source: str) -> list[str]:
    """Return the names of `NAMES` that a source compares with, looks for in a collection, or matches."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            sides = [node.value] if isinstance(node, ast.MatchValue) else [node.left, *node.comparators]
            for side in sides:
                values = side.elts if isinstance(side, (ast.Tuple, ast.List, ast.Set)) else [side]
                found += [one.value for one in values if isinstance(one, ast.Constant) and one.value in NAMES]
    return found


def test_the_walk_sees_what_it_should() -> None:
    assert compared_names("a == 'vllm'") == ["vllm"]
    assert compared_names("a not in ('auto', 'native')") == ["native"]
    assert compared_names("match a:\n    case 'cispo': pass") == ["cispo"]
    assert compared_names("a = {'vllm': 1}['vllm']") == []
    assert compared_names("find_spec('vllm') is None") == []  # a package


# Pipelines


@pytest.mark.parametrize("key", ["algorithm.surrogate", "algorithm.advantage", "rollout.engine"])
def test_own_code_is_an_input_of_a_pipelines_stage(tmp_path: Path, key: str) -> None:
    def value(code: str) -> Any:
        """Return the input that the key is, with this code in the file."""
        (tmp_path / "own.py").write_text(code)
        recipe = load_recipe("grpo", tmp_path / "recipe.yaml", [f"{key}=own.py:f"])
        return recipe_inputs("grpo", recipe, tmp_path / "recipe.yaml", Hashes()).values[key]

    (tmp_path / "recipe.yaml").write_text(MINIMAL)
    first = value("f = 1")
    assert first.startswith("own.py:f sha256:")
    assert value("f = 2") != first
    assert value("f = 1") == first
