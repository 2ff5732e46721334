"""The models behind the paths of a recipe: one that ships with r1rl, a run directory's newest checkpoint, a
folder, the hub.
"""

from __future__ import annotations

from pathlib import Path

from r1rl.errors import RecipeError
from r1rl.models.checkpoint_folders import CHECKPOINTS, find_checkpoint

EMBEDDED = {
    "embedded": Path(__file__).parent / "tiny-base",
    "embedded-small": Path(__file__).parent / "small-base",
}
"""The models that ship with r1rl, by the names that stand for them in recipes: a base model, and a smaller
one to be its student.
"""

ADAPTER_CONFIG = "adapter_config.json"
"""The file that a folder or hub repository with a PEFT adapter has, which is no model by itself."""


def resolve(path: str) -> str:
    """Return what transformers loads for a path: an embedded model's folder, a run directory's newest whole
    checkpoint, else the path itself.

    Raises RecipeError for a run directory without a whole checkpoint.
    """
    return str(EMBEDDED[path]) if path in EMBEDDED else pinned(path)


def pinned(path: str) -> str:
    """Return a run directory's newest whole checkpoint, so that a run that started from it is still known to
    when it has newer ones.

    Any other path is given back unchanged, an embedded model's name too: its folder is another one on another
    machine. Raises RecipeError for a run directory without a whole checkpoint.
    """
    if not is_run(path):
        return path
    folder = Path(path).expanduser() / CHECKPOINTS
    found = find_checkpoint(folder)
    if found is None:
        raise RecipeError(
            f"the run directory {path} has no whole checkpoint yet ({folder} has no step-* folder), so it "
            f"holds no model."
        )
    return str(found)


def is_run(path: str) -> bool:
    """Return whether a path is a run directory: a folder that holds checkpoints and no model itself."""
    folder = Path(path).expanduser()
    return path not in EMBEDDED and (folder / CHECKPOINTS).is_dir() and not (folder / "config.json").is_file()
