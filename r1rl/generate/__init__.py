"""`r1rl generate`: completions of problems from any model, as data for training."""
