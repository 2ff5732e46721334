"""`r1rl evaluate`: scores of models on benchmarks, comparisons between them, and a report."""
