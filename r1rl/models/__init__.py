"""Models that ship with r1rl."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "tiny-base"


def resolve(path: str) -> str:
    """The folder of the embedded base model for "embedded"; any other path (a folder or a hub name) unchanged."""
    return str(EMBEDDED_FOLDER) if path == EMBEDDED else path
