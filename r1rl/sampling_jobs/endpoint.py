"""Sampling from a server with OpenAI's interface: vLLM, SGLang, llama.cpp, or a hosted model.

With `prompt.template: chat` the server applies its own chat template (/chat/completions); with every other
template it gets the rendered text (/completions). Each request asks for one completion with its own seed.
Only the standard library is used.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from r1rl.config.schema import EndpointConfig
from r1rl.errors import UserError
from r1rl.sampling_jobs.samplers import Request, SamplingRecipe
from r1rl.text.few_shot import text_before, turns_before
from r1rl.text.prompts import CHAT, PLACEHOLDER, template_text
from r1rl.types import Problem, Prompt, Sample

REFUSED_ROW = (400, 413, 422, 451)
"""The answers of a server to a request that it will not take as it is, such as a prompt that is too long for
the model.
"""
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled for each further one, with up to half of it added at random."""
LONGEST_WAIT = 60.0
SHOWN_CHARACTERS = 300


class RequestRefused(UserError):
    """The server will not take this request; others it may."""


class EndpointSampler:
    """See `r1rl.sampling_jobs.samplers.Sampler`."""

    def __init__(
        self, endpoint: EndpointConfig, model: str, recipe: SamplingRecipe, keep_going: bool = False
    ) -> None:
        """Connect to a model behind a server. `keep_going`: requests that the server refuses are left out and
        noted in `refusals`, instead of ending the run.
        """
        self.endpoint = endpoint
        self.model = model
        self.recipe = recipe
        self.is_chat = recipe.prompt.template == CHAT
        self.context: int | None = None
        self.keep_going = keep_going
        self.refusals: list[str] = []
        self._template = "" if self.is_chat else template_text(recipe.prompt.template)
        self._before = "" if self.is_chat else text_before(recipe.prompt, self._ask)
        self._turns = turns_before(recipe.prompt) if self.is_chat else []

    def render(self, problems: Sequence[Problem], raw: bool = False) -> list[Prompt]:
        """See `Sampler`. The server has the tokenizer, so the prompts have no token ids."""
        if raw or self.is_chat:
            return [Prompt(problem, problem.problem, []) for problem in problems]
        prefill = self.recipe.prompt.prefill
        return [
            Prompt(problem, self._before + self._ask(problem.problem) + prefill, [], prefill)
            for problem in problems
        ]

    def _ask(self, problem: str) -> str:
        return self._template.replace(PLACEHOLDER, problem)

    def sample(
        self, requests: Sequence[Request], max_completion_length: int, raw: bool = False
    ) -> Iterator[Sample]:
        """See `Sampler`. What was asked for but not begun is dropped when the caller stops."""
        pool = ThreadPoolExecutor(self.endpoint.concurrency)
        try:
            for future in as_completed(
                [pool.submit(self._one, request, max_completion_length, raw) for request in requests]
            ):
                try:
                    sample = future.result()
                except RequestRefused as refusal:
                    if not self.keep_going:
                        raise
                    self.refusals.append(str(refusal))
                else:
                    yield sample
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """See `Sampler`. What the server computes in is not known here."""
        return {
            "engine": "endpoint",
            "dtype": "unknown",
            "eos_token_ids": list(self.recipe.prompt.eos_token_ids),
        }

    def _one(self, request: Request, limit: int, raw: bool) -> Sample:
        answer = self._post(
            "completions" if raw or not self.is_chat else "chat/completions", self._body(request, limit, raw)
        )
        try:
            choice = answer["choices"][0]
            text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
            reason = "length" if choice.get("finish_reason") == "length" else "eos"
            stop = choice.get("stop_reason")
            if isinstance(stop, str) and stop in self.recipe.prompt.stop and not raw:
                # vLLM names the stop string, which it has cut off; ours stay in the text.
                text, reason = text if text.endswith(stop) else text + stop, "stop"
            tokens = int(answer["usage"]["completion_tokens"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            shown = json.dumps(answer)[:SHOWN_CHARACTERS]
            raise UserError(
                f"{self.endpoint.url}: the answer is not of OpenAI's form ({type(error).__name__} {error}): "
                f"{shown}"
            ) from error
        return Sample(request.prompt.problem.id, request.sample, request.seed, text, tokens, reason)

    def _body(self, request: Request, limit: int, raw: bool) -> dict[str, Any]:
        drawn, prompt = self.recipe.sampling, self.recipe.prompt
        # Seeds of more than 32 bits are refused by some servers.
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": limit,
            "seed": request.seed % 2**31,
            "n": 1,
        }
        if raw:
            return {**body, "prompt": request.prompt.text, "temperature": 0.0}
        body |= {"temperature": drawn.temperature, "top_p": drawn.top_p}
        # Not part of OpenAI's interface: sent only where the recipe asks for them.
        body |= {"top_k": drawn.top_k} if drawn.top_k else {}
        body |= {"min_p": drawn.min_p} if drawn.min_p else {}
        body |= {"repetition_penalty": drawn.repetition_penalty} if drawn.repetition_penalty != 1.0 else {}
        body |= {"stop_token_ids": prompt.eos_token_ids} if prompt.eos_token_ids else {}
        body |= {"stop": prompt.stop} if prompt.stop else {}
        if not self.is_chat:
            return {**body, "prompt": request.prompt.text}
        system = [{"role": "system", "content": prompt.system}] if prompt.system is not None else []
        return {**body, "messages": [*system, *self._turns, {"role": "user", "content": request.prompt.text}]}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the server's answer. Raises UserError when it refuses the request, or after the last
        attempt.
        """
        key = os.environ.get(self.endpoint.key_variable, "")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        problem = ""
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1))
                time.sleep(wait * (1 + random.random() / 2))
            try:
                request = urllib.request.Request(url, json.dumps(body).encode(), headers)
                with urllib.request.urlopen(request, timeout=self.endpoint.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                problem = (
                    f"status {error.code}: {error.read(SHOWN_CHARACTERS).decode(errors='replace').strip()}"
                )
                if error.code in REFUSED_ROW:
                    raise RequestRefused(f"{url} refuses the request ({problem}).") from error
                if error.code not in RETRIED:
                    raise UserError(f"{url} refuses the request ({problem}).") from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        attempts = f"{self.endpoint.retries + 1} attempts"
        raise UserError(
            f"{url} gave no completion in {attempts} ({problem}). What was sampled is kept: the same "
            f"command goes on."
        )
