"""What a run left, for tests that compare two runs."""

from __future__ import annotations

from typing import Any

from r1rl.run_directory import RunDirectory

TIMES = ("time/", "tokens_per_second", "/seconds")


def untimed(directory: RunDirectory) -> list[dict[str, Any]]:
    """The metrics of every step without those that depend on the clock."""
    return [{k: v for k, v in record.items() if not any(part in k for part in TIMES)} for record in directory.read_metrics()]
