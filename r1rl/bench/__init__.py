"""`r1rl bench`: rollout, reward, update and step of a model shape, beside TRL on the same work."""
