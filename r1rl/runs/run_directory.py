"""The directory that a run leaves, the same for every command.

    runs/<name>/
      config.yaml          the resolved recipe
      environment.json     versions, git revision, hardware, seed; a record for each time the run was resumed
      metrics.jsonl        one line per step
      completions/         step-000010.jsonl: one line per completion
      checkpoints/         step-000100/
      evaluations/         <name>.json
      summary.json         the final figures
      curves.png

Only the main process writes here. A file is written whole or not at all, except for metrics.jsonl, which
grows by whole lines.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from r1rl.config.load import dump_recipe
from r1rl.errors import UserError

STEP_FILE = re.compile(r"step-(\d+)\.jsonl?")


def check_writable(output_dir: str | Path) -> None:
    """Make `output_dir` and write a file to it. Raises UserError if that fails: to be called before a model
    is loaded.
    """
    with _disk_errors(output_dir):
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir) as file:
            file.write(b"\0" * 4096)


class RunDirectory:
    """Paths and writers of one run's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.config_path = path / "config.yaml"
        self.environment_path = path / "environment.json"
        self.summary_path = path / "summary.json"
        self.curves_path = path / "curves.png"
        self.completions = path / "completions"
        self.evaluations = path / "evaluations"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, output_dir: str | Path, run_name: str) -> RunDirectory:
        """Make a new directory. Nothing is ever overwritten: if `run_name` is taken, it is run_name-2,
        run_name-3, ...

        Raises UserError if it can't be made.
        """
        check_writable(output_dir)
        for number in range(1, 10_000):
            path = Path(output_dir) / (run_name if number == 1 else f"{run_name}-{number}")
            with _disk_errors(path):
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    if not path.is_dir() or any(path.iterdir()):
                        continue
                directory = cls(path)
                for folder in (directory.completions, directory.evaluations, directory.checkpoints):
                    folder.mkdir()
            return directory
        raise UserError(f"output_dir: {output_dir} has 9,999 runs named {run_name}. Choose another run_name.")

    @classmethod
    def latest(cls, output_dir: str | Path, run_name: str) -> RunDirectory:
        """Return the newest directory that `create` made for this name, to resume. Raises UserError if there
        is none.
        """
        pattern = re.compile(re.escape(run_name) + r"(?:-(\d+))?")
        parent = Path(output_dir) / Path(run_name).parent
        found: list[tuple[int, Path]] = []
        for path in parent.iterdir() if parent.is_dir() else ():
            match = pattern.fullmatch(str(path.relative_to(output_dir)))
            if match and _run_name(path / "config.yaml") == run_name:
                found.append((int(match[1] or 1), path))
        if not found:
            raise UserError(
                f"There is no run named {run_name} in {output_dir} to resume. Start it without --resume."
            )
        directory = cls(max(found)[1])
        check_writable(directory.path)
        return directory

    def was_renamed(self, run_name: str) -> bool:
        """Return true if `run_name` was taken and the directory has a number at its end."""
        return self.path.name != Path(run_name).name

    def write_start(self, recipe: Any, environment: Mapping[str, Any]) -> None:
        """Write the resolved recipe and what the run runs on."""
        self._write(self.config_path, dump_recipe(recipe))
        self.write_json(self.environment_path, environment)

    def write_resume(self, recipe: Any, environment: Mapping[str, Any], step: int) -> None:
        """Go on after `step`: what was logged beyond it is removed, since it will be written again.

        A recipe that differs from config.yaml replaces it; the old one is kept as
        config-before-step-000101.yaml. So is a summary.json, which is no longer that of the run: a summary
        says that a run is finished.
        """
        text = dump_recipe(recipe)
        former = self.config_path.read_text(encoding="utf-8")
        if text != former:
            self._write(self.path / f"config-before-step-{step + 1:06d}.yaml", former)
            self._write(self.config_path, text)
        if self.summary_path.exists():
            with _disk_errors(self.summary_path):
                self.summary_path.replace(self.path / f"summary-before-step-{step + 1:06d}.json")
        record = (
            json.loads(self.environment_path.read_text(encoding="utf-8"))
            if self.environment_path.exists()
            else {}
        )
        record["resumed"] = [*record.get("resumed", []), {"after_step": step, **environment}]
        self.write_json(self.environment_path, record)
        self._truncate(step)

    def write_trials(self, trials: list[dict[str, Any]]) -> None:
        """Add the trials of fast ways to environment.json, to the record of this start."""
        record = json.loads(self.environment_path.read_text(encoding="utf-8"))
        (record["resumed"][-1] if record.get("resumed") else record)["trials"] = trials
        self.write_json(self.environment_path, record)

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, `step` included. NaN and infinities, which JSON does not have,
        become null.
        """
        with _disk_errors(self.metrics_path), self.metrics_path.open("ab") as file:
            file.write(_json_line(metrics).encode(errors="backslashreplace"))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return all whole lines of metrics.jsonl."""
        if not self.metrics_path.exists():
            return []
        records = []
        for line in self.metrics_path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                records.append(json.loads(line))
            except ValueError:  # the line that a killed process was writing
                continue
        return records

    def write_completions(self, step: int, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write completions/step-000010.jsonl, one line per completion."""
        path = self.completions / f"step-{step:06d}.jsonl"
        self._write(path, "".join(map(_json_line, rows)))
        return path

    def write_evaluation(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write evaluations/<name>.json."""
        path = self.evaluations / f"{name}.json"
        self.write_json(path, record)
        return path

    def write_rows(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write a .jsonl file of any length, replaced in one move; rows are written as they come."""
        self._write(path, map(_json_line, rows))

    def write_summary(self, figures: Mapping[str, Any]) -> None:
        """Write summary.json, the final figures."""
        self.write_json(self.summary_path, figures)

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write a JSON file, replaced in one move."""
        self._write(
            path, json.dumps(_finite(dict(value)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        )

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file, replaced in one move."""
        self._write(path, text)

    def _write(self, path: Path, text: str | Iterable[str]) -> None:
        partial = path.with_name(f".{path.name}.partial")
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # A lone surrogate in a text becomes its JSON escape.
            with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines([text] if isinstance(text, str) else text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)

    def _truncate(self, step: int) -> None:
        kept = [record for record in self.read_metrics() if record.get("step", 0) <= step]
        self._write(self.metrics_path, "".join(map(_json_line, kept)))
        for folder in (self.completions, self.evaluations):
            for path in folder.glob("step-*"):
                match = STEP_FILE.fullmatch(path.name)
                if match and int(match[1]) > step:
                    path.unlink()


@contextmanager
def _disk_errors(path: str | Path) -> Iterator[None]:
    """Raise an OSError of the block as a UserError with a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{path} can't be written: {reason}. Free the disk or choose another place with output_dir=..."
        ) from error


def _run_name(config: Path) -> str | None:
    """Return the run_name in a config.yaml; None if there is no such file, or one that was never finished."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content.get("run_name") if isinstance(content, dict) else None


def _json_line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(dict(record)), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return the value with None for every NaN and infinity, however deep; the input is not changed."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
