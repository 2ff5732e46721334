"""A server with OpenAI's interface that answers from a function, and recipes that ask it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from r1rl.cli import main as cli

Reply = Callable[[str, dict[str, Any]], str | int | dict[str, Any]]
"""A function from a path and a request to the text of the completion, an error status, or the whole
answer.
"""


class StubServer:
    """`requests` holds every (path, body) in the order in which they came."""

    def __init__(self, reply: Reply) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, body))
                outer.headers.append(dict(self.headers))
                answer = reply(self.path, body)
                status = answer if isinstance(answer, int) else 200
                if isinstance(answer, str):
                    answer = completion(answer, chat="messages" in body)
                content = json.dumps({"error": "no"} if status != 200 else answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def completion(text: str, chat: bool = False, **choice: Any) -> dict[str, Any]:
    """Return an answer of OpenAI's form; a token is a word."""
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "choices": [{**said, "finish_reason": "stop", **choice}],
        "usage": {"completion_tokens": len(text.split())},
    }


@contextmanager
def serving(reply: Reply) -> Any:
    """Run a server for the time of a with block."""
    server = StubServer(reply)
    try:
        yield server
    finally:
        server.close()


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(path: Path, url: str, *benchmarks: str, extra: str = "") -> Path:
    """Write a recipe for a server: no template around the question, one sample."""
    path.write_text(
        f"run_name: proof\noutput_dir: {path.parent / 'runs'}\nbenchmarks: [{', '.join(benchmarks)}]\n"
        f"models: [{{name: scripted, path: scripted, endpoint: {{url: {url}, retries: 2}}}}]\n"
        f'prompt: {{template: none}}\nquestion: "{{problem}}"\n{extra}',
        encoding="utf-8",
    )
    return path


def evaluate_scripted(
    tmp_path: Path, benchmark: str, reply: Reply, *overrides: str, extra: str = ""
) -> dict[str, Any]:
    """Return the figures of a scripted model on one benchmark, by the whole path from the command line on."""
    with serving(reply) as server:
        recipe = write_recipe(tmp_path / "r.yaml", server.url, benchmark, extra=extra)
        assert cli.main(["evaluate", str(recipe), *overrides]) == 0
    (figures,) = json.loads((tmp_path / "runs/proof/summary.json").read_text(encoding="utf-8"))["scores"]
    return figures
