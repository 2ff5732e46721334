"""Sampling without training: which models, who writes the completions, and what is kept of them."""
