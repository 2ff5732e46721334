"""Attention for packed sequences and for rollouts, plugged into any transformers model, and its kernels."""
