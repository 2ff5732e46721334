"""Every block of docs/tutorial.md runs, in the order of the page, in a small form and in a folder that is
empty at the start.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1rl.cli.main import main
from r1rl.runs.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NAMED_FILE = re.compile(r"`([\w-]+\.(?:py|yaml))`[^`]*$")
"""The name of a file at the end of the paragraph before the block that is its content."""

SMALL_TRAINING = [
    "rollout.num_prompts=2",
    "rollout.num_generations=2",
    "rollout.max_completion_length=8",
    "data.arguments.count=16",
    "evaluation.data.arguments.count=2",
    "evaluation.num_problems=2",
    "evaluation.during_problems=2",
    "checkpoint.every_steps=0",
    "logging.live=false",
    "logging.completions_every=1",
]
SMALL_PRETRAINING = [
    "max_steps=2",
    "batch_tokens=256",
    "corpus.documents=200",
    "measured_problems=1",
    "measured_samples=1",
]
SMALL_EVALUATION = ["num_problems=2", "num_samples=1", "max_completion_length=8"]


@dataclass(frozen=True)
class Block:
    """A block of code of the page, and the name of the file that it is the content of."""

    language: str
    text: str
    file: str | None


def blocks() -> Iterator[Block]:
    """Yield the blocks in the order of the page."""
    end = 0
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE, re.S | re.M):
        before = PAGE[end : found.start()].strip().rpartition("\n\n")[2]
        named = NAMED_FILE.search(before)
        yield Block(found[1], found[2], named[1] if named else None)
        end = found.end()


BLOCKS = list(blocks())


def small(words: list[str]) -> list[str]:
    """Return the command line with a small size; a training that resumes must ask for more steps."""
    flags = [word for word in words if word.startswith("--")]
    if words[0] == "grpo":
        return [*words, *SMALL_TRAINING, f"max_steps={2 if '--resume' in flags else 1}"]
    if words[0] == "pretrain":
        return [*words, *SMALL_PRETRAINING]
    return [*words, *SMALL_EVALUATION] if words[0] == "evaluate" and not flags else words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder in which the whole page has been run."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in BLOCKS:
            if block.file is not None:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                run_python(folder, block.text)
            else:
                for line in block.text.splitlines():
                    name, *words = shlex.split(line)
                    assert name == "r1rl"
                    assert main(small(words)) == 0, line
        yield folder


def run_python(folder: Path, code: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_blocks_are_of_the_languages_that_are_run() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python", "yaml"}
    assert [block.file for block in BLOCKS if block.file] == ["few_attempts.py", "brief.yaml", "compare.yaml"]


def test_the_page_trains_with_its_reward_and_its_model(place: Path) -> None:
    first, brief, mine = (RunDirectory(place / "runs" / name) for name in ("first", "brief", "brief-mine"))
    assert [record["step"] for record in first.read_metrics()] == [1, 2]
    for run in (brief, mine):
        (record,) = run.read_metrics()
        assert "rewards/few_attempts/seconds" in record
    assert "runs/my-base" in (place / "runs" / "brief-mine" / "config.yaml").read_text(encoding="utf-8")


def test_the_page_compares_four_models(place: Path) -> None:
    summary = json.loads((place / "runs" / "comparison" / "summary.json").read_text(encoding="utf-8"))
    assert (place / "runs" / "comparison" / "report.html").is_file()
    assert all(name in json.dumps(summary) for name in ("base", "first", "brief", "brief_mine"))


def test_the_reward_scores_as_the_page_says() -> None:
    (code,) = (block.text for block in BLOCKS if block.file == "few_attempts.py")
    space: dict[str, object] = {}
    exec(code, space)
    texts = ["7+3", "1 check: no. 2 check: yes.", "check: no."]
    # Two checks of at most 8: 1 - 2/8. The last answer is wrong.
    assert space["few_attempts"](texts, [1.0, 1.0, 0.0]) == [1.0, 0.75, None]  # type: ignore[operator]
