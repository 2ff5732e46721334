"""Errors that a user can mend: the command line prints them as sentences and exits with code 2, without a
traceback.
"""


class UserError(Exception):
    """Something in the recipe, the data, a reward or the machine that the user must change.

    The message is one or a few plain sentences: where (file and key), what was found, what to do.
    """


class RecipeError(UserError):
    """A recipe that can't be run: an unknown key, a wrong type, values that contradict each other."""


class DataError(UserError):
    """A data file or data set that can't be used: unreadable, a column missing, no row left."""


class HubUnreachable(DataError):
    """A data set or model of the hub that can't be looked at from this machine: no network, and it is not in
    the cache.
    """


class RewardError(UserError):
    """A reward function that can't be used: not found, a wrong signature, a wrong number of results."""


class HookError(UserError):
    """A hook that can't be used: not found, without a method that a run calls, or one that raised."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, or the error's type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
