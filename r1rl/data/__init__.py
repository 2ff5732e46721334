"""Problems to train and evaluate on: from the hub, a local file or a generator; their prompts; the order of a
run.
"""

from r1rl.data.load import LoadedProblems, column_names, load_problems, read_problems
from r1rl.data.order import PromptOrder
from r1rl.data.prompting import build_prompts

__all__ = ["LoadedProblems", "PromptOrder", "build_prompts", "column_names", "load_problems", "read_problems"]
