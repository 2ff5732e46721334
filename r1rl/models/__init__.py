"""Where the model behind a path of a recipe lies: the one that ships with r1rl, a run directory's newest checkpoint, a folder, the hub."""

from __future__ import annotations

from pathlib import Path

from r1rl.checkpoint_folders import CHECKPOINTS, find_checkpoint
from r1rl.errors import RecipeError

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "tiny-base"


def resolve(path: str) -> str:
    """What transformers loads for a path: the embedded model's folder, a run directory's newest whole checkpoint, else the path itself.

    Raises RecipeError for a run directory without a whole checkpoint.
    """
    return str(EMBEDDED_FOLDER) if path == EMBEDDED else pinned(path)


def pinned(path: str) -> str:
    """A run directory's newest whole checkpoint, so that a run that started from it is still known to when it has newer ones.

    Any other path is given back unchanged, "embedded" too: its folder is another one on another machine. Raises RecipeError for a
    run directory without a whole checkpoint.
    """
    if not is_run(path):
        return path
    folder = Path(path).expanduser() / CHECKPOINTS
    found = find_checkpoint(folder)
    if found is None:
        raise RecipeError(f"the run directory {path} has no whole checkpoint yet ({folder} has no step-* folder), so it holds no model.")
    return str(found)


def is_run(path: str) -> bool:
    """True for a run directory: a folder that holds checkpoints and no model itself."""
    folder = Path(path).expanduser()
    return path != EMBEDDED and (folder / CHECKPOINTS).is_dir() and not (folder / "config.json").is_file()
