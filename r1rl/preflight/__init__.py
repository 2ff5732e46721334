"""Checks that need no weights, shared by the commands that run a recipe and by `r1rl check`."""
