"""The synthetic maths text of a small base model: documents, and rows of token ids packed with them.

A document is a problem of a generator's train split and a solution in one of the habits, as question and
answer or as a conversation. A small share writes the thought and the answer in tags, not always carefully. No
torch is imported here, because worker processes write the documents.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from r1rl import problems
from r1rl.errors import RecipeError
from r1rl.pretrain.recipe import CorpusConfig
from r1rl.problems.habits import Manner, Solution, Solvable, solve

CHUNK_DOCUMENTS = 5000
"""The number of documents in a chunk.

Each chunk has a random stream of its own, so the text does not depend on how many processes write it.
"""
END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
EMPTY_THOUGHT = " easy."
"""The thought of a tagged document whose habit is to answer at once.

Its format is then as good as that of a long thought.
"""


@dataclass(frozen=True)
class Chunk:
    """One piece of work: the documents to write, and how they become rows."""

    corpus: CorpusConfig
    seed: int
    index: int
    documents: int
    tokenizer_json: str
    sequence_length: int


def documents(corpus: CorpusConfig, seed: int, index: int, count: int) -> Iterator[str]:
    """Yield the `count` documents of chunk `index`, without their end-of-text token."""
    rng = random.Random(f"corpus {seed} {index}")
    arguments = {
        task: problems.parse_arguments(task, corpus.arguments.get(task, {})) for task in corpus.tasks
    }
    manner = Manner(
        hit_rate=corpus.hit_rate,
        persistence=corpus.persistence,
        max_attempts=corpus.max_attempts,
        stubborn=corpus.stubborn,
        nearness=corpus.nearness,
        languages=corpus.languages,
    )
    for _ in range(count):
        task = rng.choices(list(corpus.tasks), list(corpus.tasks.values()))[0]
        problem = problems.draw(task, rng, arguments[task])
        assert isinstance(problem, Solvable)  # r1rl.pretrain.run refuses the other generators
        habit = rng.choices(list(corpus.habits), list(corpus.habits.values()))[0]
        yield document(problem.text, solve(problem, habit, manner, rng), corpus, rng)


def document(question: str, solution: Solution, corpus: CorpusConfig, rng: random.Random) -> str:
    """Return one document: the question and the solution, in tags or not."""
    thought = f" {solution.thought}" if solution.thought else ""
    if rng.random() < corpus.tagged:
        ending = _tagged_ending(solution, corpus.sloppy, rng)
        return f"User: {question}\nAssistant: <think>{thought or EMPTY_THOUGHT}{ending}"
    speakers = ("User", "Assistant") if rng.random() < 0.5 else ("Q", "A")
    return f"{speakers[0]}: {question}\n{speakers[1]}:{thought} {solution.statement}"


def _tagged_ending(solution: Solution, sloppy: float, rng: random.Random) -> str:
    """Return the end of a tagged document; the sloppy ways leave a tag out or forget them all."""
    if rng.random() >= sloppy:
        return f" </think> <answer>{solution.answer}</answer>"
    statement, block = f" {solution.statement}", f" <answer>{solution.answer}</answer>"
    return rng.choice([f" </think>{statement}", block, f" </think> <answer>{solution.answer}", statement])


def packed_rows(corpus: CorpusConfig, seed: int, tokenizer: Tokenizer, sequence_length: int) -> np.ndarray:
    """Return all documents as rows of `sequence_length` token ids, uint16."""
    as_json = tokenizer.to_str()
    chunks = [
        Chunk(corpus, seed, index, min(CHUNK_DOCUMENTS, corpus.documents - start), as_json, sequence_length)
        for index, start in enumerate(range(0, corpus.documents, CHUNK_DOCUMENTS))
    ]
    workers = min(len(chunks), os.cpu_count() or 1)
    if workers == 1:
        rows = np.concatenate([pack_chunk(chunk) for chunk in chunks])
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows = np.concatenate(list(pool.map(pack_chunk, chunks)))
    if not len(rows):
        raise RecipeError(
            f"corpus.documents is {corpus.documents}, too few to fill a row of {sequence_length} tokens "
            f"(sequence_length)"
        )
    return rows


def pack_chunk(chunk: Chunk) -> np.ndarray:
    """Return the rows of one chunk.

    Each row begins with a fresh document and is filled up, and the document that no longer fits is cut off.
    If that document moved to the next row instead, rows would begin with the long ones. A model would then
    write longer at the start of its context, where prompts stand, than the text does.
    """
    tokenizer = Tokenizer.from_str(chunk.tokenizer_json)
    end: int = tokenizer.get_vocab()[END_OF_TEXT]
    rows: list[list[int]] = []
    row: list[int] = []
    for text in documents(chunk.corpus, chunk.seed, chunk.index, chunk.documents):
        row += [*tokenizer.encode(text).ids, end]
        if len(row) >= chunk.sequence_length:
            rows.append(row[: chunk.sequence_length])
            row = []
    return np.array(rows, dtype=np.uint16).reshape(len(rows), chunk.sequence_length)
