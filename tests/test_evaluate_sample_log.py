"""The log of completions: nothing lost, nothing torn, nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1rl.sampling_jobs.sample_log import SampleLog
from r1rl.types import Sample


def sample(problem: str, index: int, text: str = "text") -> Sample:
    return Sample(problem, index, 5, text, 3, "eos")


def test_what_was_appended_is_read_by_every_process(tmp_path: Path) -> None:
    texts = {"a": "one\ntwo\u2028three", "b": 'quotes " and \\ and \ud800'}
    with SampleLog(tmp_path / "x", 0) as log:
        log.append(sample("a", 0, texts["a"]))
    with SampleLog(tmp_path / "x", 1) as log:
        log.append(sample("b", 1, texts["b"]))
    found = SampleLog(tmp_path / "x", 7).read()
    assert set(found) == {("a", 0), ("b", 1)}
    assert found["a", 0] == sample("a", 0, texts["a"])
    assert found["b", 1].text.startswith('quotes " and \\ and ')


def test_where_lower_limits_cut_is_kept_and_may_be_missing(tmp_path: Path) -> None:
    cut = Sample("c", 0, 5, "abc", 70, "eos", ((32, 1), (64, 2)))
    with SampleLog(tmp_path, 0) as log:
        log.append(cut)
    old = {"problem": "d", "sample": 0, "seed": 5, "text": "x", "tokens": 3, "finish_reason": "eos"}
    with log.path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(old) + "\n")
    assert SampleLog(tmp_path, 0).read() == {("c", 0): cut, ("d", 0): Sample(**old)}


def test_no_log_yet(tmp_path: Path) -> None:
    assert SampleLog(tmp_path / "x", 0).read() == {}


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path, cut: int) -> None:
    with SampleLog(tmp_path, 0) as log:
        for index in range(3):
            log.append(sample("a", index))
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-cut])
    assert set(SampleLog(tmp_path, 0).read()) == {("a", 0), ("a", 1)}
    with SampleLog(tmp_path, 0) as log:
        log.append(sample("a", 2))
    assert log.path.read_bytes() == content


def test_a_broken_line_in_the_middle_is_left_out(tmp_path: Path) -> None:
    with SampleLog(tmp_path, 0) as log:
        log.append(sample("a", 0))
    with log.path.open("ab") as file:
        file.write(b"\0\0\0\n{}\n[1]\n")
    with SampleLog(tmp_path, 0) as log:
        log.append(sample("a", 1))
    assert set(SampleLog(tmp_path, 0).read()) == {("a", 0), ("a", 1)}
