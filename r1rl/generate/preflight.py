"""The checks of a recipe of `r1rl generate` before its model is loaded."""

from __future__ import annotations

from r1rl.data import LoadedProblems, read_problems
from r1rl.generate.recipe import COMPLETION, PROBLEM, GenerateRecipe
from r1rl.generate.rounds import Question, read_question
from r1rl.preflight.settings import check_template
from r1rl.runs.run_directory import check_writable
from r1rl.types import Problem


def check_settings(recipe: GenerateRecipe) -> tuple[Question, Question | None]:
    """Check folder and template, and return the questions of both rounds; None: there is no second round.

    Raises a UserError for what can't work.
    """
    check_writable(recipe.output_dir)
    check_template(recipe.prompt.template)
    wanted = PROBLEM if COMPLETION not in recipe.question else COMPLETION
    first = Question(read_question(recipe.question, "question", wanted), "question")
    if recipe.verification is None:
        return first, None
    return first, Question(read_question(recipe.verification, "verification", COMPLETION), "verification")


def read_asked(recipe: GenerateRecipe, question: Question) -> tuple[LoadedProblems, list[Problem]]:
    """Read the problems, and return them with the question's text for each.

    Raises DataError for data that can't be read, and for a problem that lacks a column of the question.
    """
    loaded = read_problems(recipe.data, recipe.seed)
    return loaded, [question.ask(problem) for problem in loaded.problems]
