"""examples/quickstart.ipynb runs from its first cell to its last, and is committed without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def test_no_outputs_are_committed() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert len([cell for cell in cells if cell.cell_type == "code"]) > 5
    assert all(
        not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code"
    )


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [kind for output in shown for kind in output.get("data", {})]
    assert "image/png" in data  # the curves
    tables = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any("grad_norm" in table for table in tables)
    assert any("trained" in table and "countdown" in table for table in tables)
    printed = "".join(output.get("text", "") for output in shown)
    assert "countdown: trained minus base is" in printed
    assert (tmp_path / "runs" / "notebook" / "summary.json").is_file()
