"""The notebook examples/quickstart.ipynb runs from the first cell to the last, and is kept without
outputs.
"""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def read() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_valid_and_kept_without_outputs() -> None:
    notebook = read()
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with this checkout; every cell shows something."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    notebook = read()
    started = time.perf_counter()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        "".join(str(output.get("data", output.get("text"))) for output in cell.outputs)
        for cell in code_cells(notebook)
    ]
    assert all(shown), f"after {time.perf_counter() - started:.0f} s"
    assert "4 steps" in shown[0] and "finished" in shown[0]
    assert "image/png" in shown[2]
    assert "base" in shown[-2] and "trained" in shown[-2]
    assert shown[-1].split() == ["True", "no_answer"]
    assert (tmp_path / "runs" / "notebook" / "summary.json").exists()
