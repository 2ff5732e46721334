"""The way from completions to figures: outcomes, estimators (pass@k, cons@k) and intervals."""
