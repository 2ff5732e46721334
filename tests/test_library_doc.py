"""The page docs/library.md works as it stands: its blocks run in order, in one session, and give what is
shown.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.S | re.M)


def shown_results(block: str) -> Iterator[tuple[str, Any]]:
    """Yield the expressions of a block with a remark beside them that is a Python value, and that value."""
    lines = block.splitlines()
    for node in ast.parse(block).body:
        assert node.end_lineno is not None
        _, mark, remark = lines[node.end_lineno - 1].rpartition("  # ")
        if isinstance(node, ast.Expr) and mark:
            yield ast.unparse(node), ast.literal_eval(remark)


def test_remarks_are_found() -> None:
    assert list(shown_results("a = 3  # not this\na + 1  # 4\nf(\n    b,\n)  # ['x']\n")) == [
        ("a + 1", 4),
        ("f(b)", ["x"]),
    ]


def page_script() -> str:
    """Return the blocks of the page as one script that checks what is shown beside them."""
    lines = []
    for _, block in BLOCKS:
        lines.append(block)
        lines += [
            f"assert ({expression}) == {value!r}, {expression!r}"
            for expression, value in shown_results(block)
        ]
    return "\n".join(lines)


def test_every_block_runs_and_gives_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert {language for language, _ in BLOCKS} == {"python"}
    script = page_script()
    assert script.count("\nassert ") > 10
    exec(compile(script, "docs/library.md", "exec"), {"__name__": "library"})
