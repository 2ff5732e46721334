"""The judge reward, against a local server that misbehaves in the ways that servers do."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r1rl.errors import RewardError
from tests.reward_helpers import load_built_in


class Server:
    """An endpoint whose replies are set by the test: a text, an HTTP status, or a function of the prompt."""

    def __init__(self):
        self.requests, self.headers, self.replies = [], [], []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append((self.path, body))
                owner.headers.append(dict(self.headers))
                reply = owner.replies.pop(0) if len(owner.replies) > 1 else owner.replies[0]
                reply = reply(body["messages"][0]["content"]) if callable(reply) else reply
                self.send_response(reply if isinstance(reply, int) else 200)
                self.end_headers()
                if isinstance(reply, bytes):
                    self.wfile.write(reply)
                elif isinstance(reply, str):
                    self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.http.handle_error = lambda *arguments: None  # a client that hung up
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    """Run a server, without waiting between tries."""
    server = Server()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield server
    server.http.shutdown()
    server.http.server_close()


def ask(server, completions, answers=None, **settings):
    judge = load_built_in("judge")
    events = Counter()
    rows = len(completions)
    scores = judge(
        completions,
        ["What is 2 + 2?"] * rows,
        answers or [None] * rows,
        url=server.url,
        model="m",
        events=events,
        **settings,
    )
    return scores, events


def test_score_and_request(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server.replies = ["It is good. Score: 7.5"]
    assert ask(server, ["<think>hidden</think> It is 4."], ["4"], api_key_variable="MY_KEY")[0] == [0.75]
    path, body = server.requests[0]
    assert path == "/v1/chat/completions" and body["model"] == "m" and body["temperature"] == 0
    prompt = body["messages"][0]["content"]
    assert (
        "What is 2 + 2?" in prompt
        and "It is 4." in prompt
        and "<<<REFERENCE\n4\n" in prompt
        and "hidden" not in prompt
    )
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_last_score_counts_and_is_clamped(server):
    server.replies = [lambda prompt: "Score: 2, no: **Score:** 9" if "good" in prompt else "Score: 99"]
    assert ask(server, ["good", "bad"])[0] == [0.9, 1.0]


def test_braces_in_a_completion_are_left_alone(server):
    server.replies = [lambda prompt: "Score: 10" if "{problem} \\frac{1}{2}" in prompt else "Score: 0"]
    assert ask(server, ["{problem} \\frac{1}{2}"])[0] == [1.0]


def test_equal_requests_are_asked_once(server):
    server.replies = ["Score: 5"]
    judge = load_built_in("judge")
    for _ in range(2):
        assert judge(["a"], ["p"], [None], url=server.url, model="m") == [0.5]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_passing_errors_are_tried_again(server, status):
    server.replies = [status, status, "Score: 10"]
    assert ask(server, ["a"])[0] == [1.0]
    assert len(server.requests) == 3


def test_lasting_errors_cost_the_row_and_are_not_cached(server):
    server.replies = [503]
    assert ask(server, ["a"], retries=1) == ([None], {"judge/failed": 1})
    assert len(server.requests) == 2
    server.replies = ["Score: 10"]
    assert ask(server, ["a"])[0] == [1.0]


def test_bad_request_is_not_repeated(server):
    server.replies = [lambda prompt: 400 if "long" in prompt else "Score: 10"]
    assert ask(server, ["long", "short"]) == ([None, 1.0], {"judge/failed": 1})
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", [b"<html>", b"{}", b'{"choices": []}'])
def test_answers_of_another_kind(server, reply):
    server.replies = [reply]
    assert ask(server, ["a"]) == ([None], {"judge/failed": 1})


def test_reply_without_a_score(server):
    server.replies = ["I can't say."]
    assert ask(server, ["a"]) == ([None], {"judge/unreadable": 1})


def test_wrong_key_stops_with_a_sentence(server):
    server.replies = [401]
    with pytest.raises(
        RewardError,
        match=r"answers 401 Unauthorized. Check url, model and the environment variable OPENAI_API_KEY",
    ):
        ask(server, ["a", "b"])


def test_slow_server_is_left(server):
    release = threading.Event()
    server.replies = [lambda prompt: release.wait(10) and "Score: 10"]
    start = time.monotonic()
    assert ask(server, ["a"], request_timeout=0.2, retries=1) == ([None], {"judge/failed": 1})
    assert time.monotonic() - start < 3
    release.set()


def test_unreachable_server(server):
    server.http.server_close()
    assert ask(server, ["a"], retries=0, request_timeout=1.0)[0] == [None]


def test_thoughts_without_an_answer_score_nothing(server):
    server.replies = ["Score: 10"]
    assert ask(server, ["<think>on and on"])[0] == [0.0]
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"url": "file:///etc/passwd"}, "must start with http"), ({"scale": 0}, "scale must be")],
)
def test_arguments_are_checked(settings, sentence):
    with pytest.raises(RewardError, match=sentence):
        load_built_in("judge")([], [], [], **{"url": "http://x", "model": "m", **settings})
