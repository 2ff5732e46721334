"""Sampling from a server: what is sent, what is read, retries and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from evaluate_helpers import completion, serving

from r1rl.config.schema import EndpointConfig, EvaluatedModelConfig, PromptConfig
from r1rl.errors import UserError
from r1rl.evaluation.recipe import EvaluateRecipe, SamplingConfig
from r1rl.sampling_jobs import endpoint as module
from r1rl.sampling_jobs.endpoint import EndpointSampler
from r1rl.sampling_jobs.samplers import Request
from r1rl.types import Problem, Sample


def sampler(url: str, retries: int = 2, **prompt: Any) -> EndpointSampler:
    endpoint = EndpointConfig(url=url, concurrency=2, retries=retries)
    recipe = EvaluateRecipe(
        run_name="e", models=[EvaluatedModelConfig(path="m", endpoint=endpoint)], benchmarks=["b"],
        prompt=PromptConfig(**prompt), sampling=SamplingConfig(temperature=0.7, top_k=5),
    )  # fmt: skip
    return EndpointSampler(endpoint, "m", recipe)


def ask(asked: EndpointSampler, *questions: str, raw: bool = False) -> list[Sample]:
    prompts = asked.render([Problem(question, question, "4") for question in questions], raw)
    requests = [Request(prompt, 1, 2**40 + place) for place, prompt in enumerate(prompts)]
    return sorted(asked.sample(requests, 50, raw), key=lambda sample: sample.problem)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)


def test_text_templates_are_rendered_here() -> None:
    with serving(lambda path, body: "so 4") as server:
        found = ask(sampler(server.url, template="plain", prefill="<think>", stop=["</answer>"]), "Q1", "Q2")
    assert found == [Sample("Q1", 1, 2**40, "so 4", 2, "eos"), Sample("Q2", 1, 2**40 + 1, "so 4", 2, "eos")]
    path, body = next(request for request in server.requests if "Q1" in request[1]["prompt"])
    assert path == "/v1/completions"
    assert body == {
        "model": "m", "max_tokens": 50, "seed": 2**40 % 2**31, "n": 1, "temperature": 0.7, "top_p": 0.95,
        "top_k": 5, "stop": ["</answer>"], "prompt": "User: Q1\nAssistant:<think>",
    }  # fmt: skip


def test_chat_is_left_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(lambda path, body: "so 4") as server:
        (found,) = ask(sampler(server.url, template="chat", system="Be brief."), "Q1")
    ((path, body),) = server.requests
    assert path == "/v1/chat/completions" and found.text == "so 4"
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q1"}]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_raw_text_is_greedy_and_bare() -> None:
    with serving(lambda path, body: "b") as server:
        ask(sampler(server.url, template="chat", stop=["x"]), "a", raw=True)
    ((path, body),) = server.requests
    assert path == "/v1/completions"
    assert body == {
        "model": "m",
        "max_tokens": 50,
        "seed": 2**40 % 2**31,
        "n": 1,
        "prompt": "a",
        "temperature": 0.0,
    }


def test_stop_strings_stay_in_the_text_and_length_is_truncation() -> None:
    answers = {
        "a": completion("<answer>4", stop_reason="</answer>"),
        "b": completion("<answer>4</answer>", stop_reason="</answer>"),
        "c": completion("on and on", finish_reason="length"),
    }
    with serving(lambda path, body: answers[body["prompt"]]) as server:
        found = ask(sampler(server.url, template="none", stop=["</answer>"]), "a", "b", "c")
    assert [(sample.text, sample.finish_reason) for sample in found] == [
        ("<answer>4</answer>", "stop"), ("<answer>4</answer>", "stop"), ("on and on", "length")
    ]  # fmt: skip


def test_load_and_server_errors_are_tried_again() -> None:
    answers: list[Any] = [429, 503, "fine"]
    with serving(lambda path, body: answers.pop(0)) as server:
        (found,) = ask(sampler(server.url, template="none"), "Q")
    assert found.text == "fine" and len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "sentence", "attempts"),
    [
        (500, r"gave no completion in 3 attempts \(status 500.*the same command goes on", 3),
        (404, r"refuses the request \(status 404", 1),
        ({"choices": []}, "not of OpenAI's form", 1),
    ],
)
def test_what_does_not_work_is_a_sentence(answer: Any, sentence: str, attempts: int) -> None:
    with serving(lambda path, body: answer) as server, pytest.raises(UserError, match=sentence):
        ask(sampler(server.url, template="none"), "Q")
    assert len(server.requests) == attempts


def test_no_server() -> None:
    with serving(lambda path, body: "") as server:
        url = server.url
    with pytest.raises(UserError, match=r"gave no completion in 2 attempts \(URLError"):
        ask(sampler(url, retries=1, template="none"), "Q")
