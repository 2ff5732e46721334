"""Sampling completions from the policy."""

from r1rl.rollout.engine import RolloutEngine, build_engine

__all__ = ["RolloutEngine", "build_engine"]
