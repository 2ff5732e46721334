"""`r1rl reward-model`: a model that scores answers, trained on pairs of which one was preferred."""
