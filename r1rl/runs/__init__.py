"""The life of a training run: its directory, steps, evaluations, checkpoints, resuming and stopping."""
