"""Held-out problems: answer them, grade them, and say how sure the figures are."""
