"""The stages besides reinforcement learning, one module each: the function `run` takes the stage's recipe."""
