"""Running rewards: totals, gates, deadlines, and errors that stay with the rows that cause them."""

from __future__ import annotations

import math
import threading
import time

import pytest

from r1rl.config.schema import RewardConfig
from r1rl.errors import RewardError
from tests.reward_helpers import make_completion, make_prompt, reward_set, score

CODE = """
import asyncio, threading, time
calls = []
running = []
overlaps = []
closed = []
release = threading.Event()

def as_number(completions):
    return [None if text == "none" else float(text) for text in completions]

def length(completions):
    return [len(text) for text in completions]

def constant(completions, *, value=1.0):
    calls.append(list(completions))
    return [value for _ in completions]

def fails_on_bad(completions, *, events):
    events["seen"] += len(completions)
    if "bad" in completions:
        raise ValueError("bad row")
    return [1.0 for _ in completions]

def leaves(completions):
    raise SystemExit(1)

def hangs(completions):
    release.wait(20)
    return [1.0 for _ in completions]

def slow_row(completions):
    if len(completions) > 1:
        raise ValueError("one by one, please")
    if completions[0] == "slow":
        release.wait(20)
    return [1.0]

def too_few_later(completions):
    calls.append(1)
    return [1.0] * (len(completions) if len(calls) == 1 else 1)

def text_later(completions):
    return [text if text == "word" else 1.0 for text in completions]

def one_number(completions):
    return 1.0

def infinite(completions):
    return [float(text) for text in completions]

def empties(completion_ids, numbers):
    for ids, row in zip(completion_ids, numbers):
        ids.clear()
        row.clear()
    return [0.0 for _ in numbers]

async def waits(completions):
    await asyncio.sleep(0.01)
    return [2.0 for _ in completions]

def copies_outcome(outcome):
    return [value if value is None else value * 10 for value in outcome]

def alone(completions):
    running.append(1)
    overlaps.append(len(running))
    time.sleep(0.02)
    running.pop()
    return [1.0 for _ in completions]

def stops(completions):
    from r1rl.errors import RewardError
    if completions:
        raise RewardError("rewards: stops: the service is gone.")
    return []

def close():
    closed.append(True)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Load the functions above as a user's file in the working directory; release hanging ones at the end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    from r1rl.rewards.loader import load_reward

    module = load_reward("mine.py:length", tmp_path).module
    yield module
    module.release.set()


def config(name, **settings):
    return RewardConfig(function=f"mine.py:{name}", **settings)


def test_total_is_the_weighted_sum_of_what_applies(module):
    rewards = reward_set(config("as_number", weight=2.0), config("constant", weight=0.5), outcome="as_number")
    result = score(rewards, ["3", "none"])
    # 2 * 3 + 0.5 * 1 = 6.5; None contributes nothing: 0.5
    assert result.total == [6.5, 0.5]
    assert result.by_name == {"as_number": [3.0, None], "constant": [1.0, 1.0]}
    assert result.outcome == [3.0, None] and result.events == {}
    assert set(result.seconds) == {"as_number", "constant"}


def test_row_without_a_weighted_reward_has_no_total(module):
    result = score(reward_set(config("as_number"), config("length", weight=0.0)), ["2", "none"])
    assert result.total[0] == 2.0 and math.isnan(result.total[1])
    assert result.by_name["length"] == [1.0, 4.0]


def test_empty_batch(module):
    result = score(reward_set(config("length")), [])
    assert result.total == [] and result.by_name == {"length": []}


def test_gates_close_by_value_and_range(module):
    rewards = reward_set(
        config("as_number", weight=0.0),
        config("constant", when={"as_number": 0}),
        config("length", when={"as_number": {"min": 2, "max": 3}}),
    )
    result = score(rewards, ["0", "2", "3", "3.5", "none"])
    assert result.by_name["constant"] == [1.0, None, None, None, None]
    assert result.by_name["length"] == [None, 1.0, 1.0, None, None]
    assert module.calls == [["0"]]  # closed rows are not computed


def test_gate_on_a_gated_reward_is_closed_where_that_one_is(module):
    rewards = reward_set(
        config("constant", when={"length": 1.0}),
        config("length", when={"as_number": {"max": 5}}),
        config("as_number"),
    )
    assert score(rewards, ["3", "9", "12"]).by_name["constant"] == [1.0, None, None]


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ({"lenght": 0}, r"when.lenght: this recipe has no such reward. Did you mean length\?"),
        ({"length": "yes"}, "must be a number or"),
        ({"length": {"minimum": 1}}, "must be a number or"),
        ({"length": {"min": 2, "max": 1}}, "the gate would never open"),
        ({"constant": 1}, "wait for each other: constant"),
    ],
)
def test_bad_gates_are_refused(module, when, sentence):
    with pytest.raises(RewardError, match=sentence):
        reward_set(config("length"), config("constant", when=when))


def test_where_chooses_the_rewards_of_a_row(module):
    rewards = reward_set(
        RewardConfig(function="mine.py:as_number", name="rule", where={"domain": "reasoning"}),
        RewardConfig(
            function="mine.py:length",
            name="taste",
            weight=2.0,
            where={"domain": ["helpfulness", "harmlessness"]},
        ),
        config("length", weight=0.1, when={"rule": 1}),
        outcome="rule",
        columns={"answer", "problem", "domain"},
    )
    result = score(
        rewards,
        ["1", "0", "abc", "5", "1"],
        domain=["reasoning", "reasoning", "helpfulness", "harmlessness", "other"],
    )
    assert result.by_name == {
        "rule": [1.0, 0.0, None, None, None],
        "taste": [None, None, 3.0, 1.0, None],
        "length": [1.0, None, None, None, None],
    }
    assert result.total[:4] == pytest.approx([1.1, 0.0, 6.0, 2.0])
    assert math.isnan(result.total[4])
    assert result.outcome == [1.0, 0.0, None, None, None]
    assert rewards.where_columns == ["domain"]
    rows = [make_prompt(domain=domain).problem for domain in ("reasoning", "harmlessness", "other")]
    assert [rewards.has_outcome(row) for row in rows] == [True, False, False]
    assert [rewards.apply_to(row) for row in rows] == [["rule", "length"], ["taste", "length"], ["length"]]


def test_reward_is_not_called_for_rows_outside_its_where(module):
    """The column `numbers` is missing from the other rows: the function must not see them."""
    rewards = reward_set(
        config("empties", where={"domain": "a"}), columns={"answer", "problem", "domain", "numbers"}
    )
    result = score(rewards, ["x", "y"], domain=["a", "b"], numbers=[[1], None])
    assert (result.by_name["empties"], result.events) == ([0.0, None], {})


@pytest.mark.parametrize("column", ["domian", "answer"])
def test_where_must_name_a_column(module, column):
    with pytest.raises(
        RewardError, match=rf"rewards: length: where.{column}: the data has no such column.*It has: domain"
    ):
        reward_set(config("length", where={column: "x"}), columns={"answer", "problem", "domain"})


def test_outcome_is_the_first_of_the_known_ones_or_the_named_one(module):
    assert reward_set(config("length"), RewardConfig(function="accuracy")).outcome_name == "accuracy"
    assert reward_set(config("length")).outcome_name is None
    assert score(reward_set(config("length")), ["x"]).outcome == [None]
    with pytest.raises(RewardError, match=r"no reward 'lenght'. Did you mean length\?"):
        reward_set(config("length"), outcome="lenght")


def test_outcome_reaches_the_rewards_that_ask_for_it(module):
    result = score(
        reward_set(config("copies_outcome"), config("as_number"), outcome="as_number"), ["2", "none"]
    )
    assert result.by_name["copies_outcome"] == [20.0, None]
    with pytest.raises(RewardError, match="needs the outcome, but no reward"):
        reward_set(config("copies_outcome"), config("as_number"))


def test_second_use_of_a_function_gets_a_name_of_its_own(module):
    result = score(reward_set(config("constant"), config("constant", arguments={"value": 2.0})), ["x"])
    assert result.by_name == {"constant": [1.0], "constant_2": [2.0]}


def test_weights_must_teach_something(module):
    with pytest.raises(RewardError, match="no reward has a weight other than 0"):
        reward_set(config("length", weight=0.0))
    with pytest.raises(RewardError, match="weight must be a finite number"):
        reward_set(config("length", weight=math.nan))


def test_exception_costs_only_its_own_row(module):
    rewards = reward_set(config("fails_on_bad"))
    first = score(rewards, ["ok", "bad", "ok"])
    assert first.by_name["fails_on_bad"] == [1.0, None, 1.0]
    # the batch that raised is not counted: one row at a time, two succeeded
    assert first.events == {"seen": 2, "reward/fails_on_bad/exception": 1}
    assert "ValueError: bad row" in first.tracebacks["fails_on_bad"]
    assert score(rewards, ["bad", "ok"]).tracebacks == {}  # shown once


def test_sys_exit_in_a_reward_is_an_exception(module):
    result = score(reward_set(config("leaves"), config("length")), ["a", "b"])
    assert result.total == [1.0, 1.0] and result.events == {"reward/leaves/exception": 2}


def test_deadline_leaves_the_other_rewards_and_the_next_batch_alone(module):
    rewards = reward_set(config("hangs", timeout=0.2), config("length"))
    start = time.perf_counter()
    result = score(rewards, ["a", "bb"])
    assert time.perf_counter() - start < 2.0
    assert result.by_name == {"hangs": [None, None], "length": [1.0, 2.0]}
    assert result.events == {"reward/hangs/timeout": 2}
    module.release.set()
    assert score(rewards, ["a"]).by_name["hangs"] == [1.0]


def test_rows_done_before_the_deadline_keep_their_value(module):
    result = score(reward_set(config("slow_row", timeout=0.3)), ["a", "slow", "b"])
    assert result.by_name["slow_row"] == [1.0, None, None]
    assert result.events == {"reward/slow_row/timeout": 2}


def test_threads_that_hang_do_not_pile_up(module):
    rewards = reward_set(config("hangs", timeout=0.02))
    before = threading.active_count()
    for _ in range(8):
        assert score(rewards, ["a"]).events == {"reward/hangs/timeout": 1}
    assert threading.active_count() - before <= 4


def test_wrong_count_stops_the_run_the_first_time_and_is_counted_later(module):
    rewards = reward_set(config("too_few_later"))
    assert score(rewards, ["a", "b"]).total == [1.0, 1.0]
    assert score(rewards, ["a", "b"]).events == {"reward/too_few_later/wrong_count": 2}
    with pytest.raises(RewardError, match=r"too_few_later .*mine.py\) returned 1 results for 2 completions"):
        score(reward_set(config("too_few_later")), ["a", "b"])


def test_what_is_no_number_stops_the_run_the_first_time_and_is_counted_later(module):
    rewards = reward_set(config("text_later"))
    with pytest.raises(RewardError, match=r"text_later .* returned 'word' \(str\) for a completion"):
        score(rewards, ["word"])
    assert score(rewards, ["a"]).total == [1.0]
    assert score(rewards, ["word"]).events == {"reward/text_later/not_numeric": 1}
    with pytest.raises(RewardError, match=r"one_number .* must return a list .* not 1.0 \(float\)"):
        score(reward_set(config("one_number")), ["a"])


def test_nan_and_infinity_are_events_not_values(module):
    result = score(reward_set(config("infinite")), ["nan", "inf", "-inf", "2"])
    assert result.by_name["infinite"] == [None, None, None, 2.0]
    assert result.events == {"reward/infinite/not_finite": 3}


def test_reward_error_of_a_function_stops_the_run(module):
    with pytest.raises(RewardError, match="the service is gone"):
        score(reward_set(config("stops")), ["a", "b"])


def test_inputs_are_not_changed(module):
    prompt, completion = make_prompt(numbers=[1, 2]), make_completion("x")
    reward_set(config("empties"), columns={"numbers"}).score([prompt], [completion], 10, "")
    assert prompt.problem.columns == {"numbers": [1, 2]} and completion.token_ids == [0, 1, 2]


def test_async_functions(module):
    assert score(reward_set(config("waits")), ["a", "b"]).total == [2.0, 2.0]


def test_arrays_and_booleans_are_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text(
        "import numpy as np\ndef f(completions): return np.ones(len(completions))\ndef g(completions): "
        "return [True for _ in completions]\n"
    )
    assert score(
        reward_set(RewardConfig(function="a.py:f"), RewardConfig(function="a.py:g")), ["x"]
    ).total == [2.0]


def test_batches_overlap_the_caller_but_not_each_other(module):
    rewards = reward_set(config("alone"))
    start = time.perf_counter()
    futures = [rewards.submit([make_prompt()], [make_completion("x")], 10, "") for _ in range(5)]
    assert time.perf_counter() - start < 0.09  # five calls of 0.02 s have not been waited for
    assert [future.result().total for future in futures] == [[1.0]] * 5
    assert module.overlaps == [1] * 5


def test_rewards_run_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text(
        "import threading\nboth = threading.Barrier(2)\n"
        "def f(completions):\n    both.wait(5)\n    return [1.0]\n"
        "def g(completions):\n    both.wait(5)\n    return [2.0]\n"
    )
    assert score(
        reward_set(RewardConfig(function="a.py:f"), RewardConfig(function="a.py:g")), ["x"]
    ).total == [3.0]


def test_close_reaches_the_modules(module):
    reward_set(config("length"), config("constant")).close()
    assert module.closed == [True]


def test_close_that_a_module_has_imported_is_not_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text(
        "from os import close\ndef f(completions): return [0.0 for _ in completions]\n"
    )
    rewards = reward_set(RewardConfig(function="a.py:f"))
    rewards.close()  # os.close() without a descriptor would raise
    assert score(rewards, ["x"]).total == [0.0]


def test_prompts_and_completions_must_match(module):
    with pytest.raises(ValueError, match="0 prompts for 1 completions"):
        reward_set(config("length")).score([], [make_completion("x")], 10, "")
