"""Checks that need no weights, and how their findings are shown; commands and `r1rl check` share them."""
