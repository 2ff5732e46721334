"""The in-process rollout engine that shares the weights of the policy."""
