"""Held-out problems: answer them, grade them, and say how sure the figures are."""

from r1rl.evaluation.evaluate import evaluate
from r1rl.evaluation.record import AnsweredProblem, Evaluation, SampledAnswer, find_contrast

__all__ = ["AnsweredProblem", "Evaluation", "SampledAnswer", "evaluate", "find_contrast"]
