"""Rewards: find the functions that a recipe names, check their signatures, run them, weigh and gate their
results.
"""

from r1rl.rewards.contract import RewardResult
from r1rl.rewards.runner import RewardSet

__all__ = ["RewardResult", "RewardSet"]
