"""GRPO reinforcement learning that replicates DeepSeek-R1-Zero and the DeepSeek-R1 recipe on one
machine.

    import r1rl
    run = r1rl.open_run("runs/tiny")    # metrics, completions, curves, model

docs/library.md shows everything that can be done from Python. The names below are imported at their first
use, so that `import r1rl` loads neither torch nor anything else that is slow.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r1rl.api.evaluating import Scores, evaluate
    from r1rl.api.run_view import Run, open_run
    from r1rl.api.training import GRPO, GRPOStep, train

__version__ = "0.1.0"

# Editors and mypy read the imports above and this list, which must be a literal; a test holds them together.
__all__ = ["GRPO", "GRPOStep", "Run", "Scores", "__version__", "evaluate", "open_run", "train"]

_PLACES = MappingProxyType(
    {
        "GRPO": "r1rl.api.training:GRPO",
        "GRPOStep": "r1rl.api.training:GRPOStep",
        "Run": "r1rl.api.run_view:Run",
        "Scores": "r1rl.api.evaluating:Scores",
        "evaluate": "r1rl.api.evaluating:evaluate",
        "open_run": "r1rl.api.run_view:open_run",
        "train": "r1rl.api.training:train",
    }
)
"""The module and the name in it behind each public name."""


if not TYPE_CHECKING:  # mypy would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Import and return a public name. Raises AttributeError for any other."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        module, _, attribute = _PLACES[name].partition(":")
        return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """Return what dir() shows: the names that are loaded and the public ones that are not yet."""
    return sorted({*globals(), *_PLACES})
