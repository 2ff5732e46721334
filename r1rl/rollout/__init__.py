"""Sampling completions from the policy."""

from r1rl.rollout.engine import EngineSetup, RolloutEngine, make_engine

__all__ = ["EngineSetup", "RolloutEngine", "make_engine"]
