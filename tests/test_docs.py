"""The documentation against the project: YAML blocks load, commands parse, keys and files that are named
exist.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1rl.cli.main import find_recipe, parse_arguments
from r1rl.config.commands import find_commands
from r1rl.config.describe import recipe_keys
from r1rl.config.load import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "recipes/*.md", "rewards/*.md", "r1rl/models/**/*.md")
    for page in ROOT.glob(pattern)
)
RUN_BY_THEIR_OWN_TESTS = ("extending.md", "tutorial.md")
"""Pages whose blocks name files that the reader makes: tests of their own run them."""
SETTINGS = {
    "grpo": {"run_name": "x", "data": {"source": "countdown"}, "rewards": [{"function": "countdown"}]},
    "distill": {"run_name": "x", "teacher": {"path": "embedded"}, "data": {"source": "countdown"}},
    "evaluate": {"run_name": "x", "models": [{"path": "embedded"}], "benchmarks": ["countdown"]},
    "generate": {"run_name": "x", "data": {"source": "countdown"}},
    "sft": {"run_name": "x", "data": {"source": "rows.jsonl"}},
    "reward-model": {"run_name": "x", "data": {"source": "pairs.jsonl"}},
    "pipeline": {},
    "select": {"run_name": "x", "sources": [{"path": "completions.jsonl"}]},
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def yaml_blocks() -> list[Any]:
    found = []
    for page in (page for page in PAGES if page.name not in RUN_BY_THEIR_OWN_TESTS):
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text_of(page), re.S | re.M)):
            # Its block has one recipe after another; test_algorithms_doc.py reads it.
            if page.name != "algorithms.md":
                found.append(pytest.param(block, page.stem, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


def commands() -> list[Any]:
    """Return each call of r1rl in a code block, as (words, id); a remark follows after three spaces."""
    found = []
    for page in (page for page in PAGES if page.name not in RUN_BY_THEIR_OWN_TESTS):
        for block in re.findall(r"^```\w*\n(.*?)^```", text_of(page), re.S | re.M):
            for line in re.findall(r"^(?:.*-m )?(r1rl [a-z].*)$", block, re.M):
                found.append(
                    pytest.param(
                        shlex.split(re.split(r"\s{3,}", line)[0]), id=f"{page.relative_to(ROOT)}: {line}"
                    )
                )
    return found


@pytest.mark.parametrize(("block", "page"), yaml_blocks())
def test_yaml_blocks_are_parts_of_valid_recipes(block: str, page: str, tmp_path: Path) -> None:
    """A page that is called like a command has parts of its recipes."""
    part = yaml.safe_load(block)
    by_keys = (
        "evaluate" if part.keys() & {"define", "benchmarks"} else "distill" if "teacher" in part else "grpo"
    )
    command = page if page in SETTINGS else by_keys
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(SETTINGS[command] | part), encoding="utf-8")
    recipe = load_recipe(command, tmp_path / "recipe.yaml")
    assert all(getattr(recipe, key) for key in part)


@pytest.mark.parametrize("words", commands())
def test_commands_name_recipes_and_keys_that_exist(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = find_commands()[words[1]]
    invocation = parse_arguments(command, words[2:])
    if any(flag.places and invocation.flags[flag.name] for flag in command.flags):
        assert invocation.recipe is None
        return
    assert invocation.recipe is not None
    load_recipe(command.name, find_recipe(invocation.recipe), invocation.overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_dotted_keys_links_and_files_exist(page: Path) -> None:
    text = text_of(page)
    recipes = [command.recipe for command in find_commands().values() if command.recipe is not None]
    known = {key.name for recipe in recipes for key in recipe_keys(recipe)}
    # `model.generate` is transformers' method.
    sections = {name.partition(".")[0] for name in known if "." in name} - {"model"}
    dotted = [
        name
        for name in re.findall(r"`([a-z_]+\.[a-z_.0-9]+[a-z])(?:: [^`]*)?`", text)
        if not name.endswith(".jsonl")
    ]
    assert [name for name in dotted if name.partition(".")[0] in sections and name not in known] == []
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    invented = {"rewards/short.py", "tests/test_short.py"}  # what rewards/README.md tells a reader to write
    files = set(re.findall(r"`((?:r1rl|tests|docs|scripts|recipes|rewards)/[\w./-]+)`", text)) - invented
    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []


def links_of(page: Path) -> set[Path]:
    """Return the files of the repository that a page links to."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text_of(page))
    return {(page.parent / link).resolve() for link in links}


def test_every_page_is_reached_from_the_index() -> None:
    """The index itself is linked from the README."""
    index = ROOT / "docs" / "index.md"
    assert index in links_of(ROOT / "README.md")
    seen: set[Path] = set()
    waiting = [index]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        waiting += [link for link in links_of(page) - seen if link.suffix == ".md"]
    assert set(PAGES) - seen == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_anchors_name_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text_of(page)):
        headings = re.findall(r"^#+ (.*)$", text_of(page.parent / target if target else page), re.M)
        slugs = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{target}#{anchor}"


WRAPPED = [page for page in PAGES if "models" not in page.parts and page.name != "CHANGELOG.md"]


@pytest.mark.parametrize("page", WRAPPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_at_most_110_columns_wide(page: Path) -> None:
    """Tables, code, and lines that a link makes long are left out."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M)
    long = [line for line in prose.splitlines() if len(line) > 110 and line[0] != "|" and "](" not in line]
    assert long == []
