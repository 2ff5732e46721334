"""r1rl: GRPO reinforcement learning that replicates DeepSeek-R1-Zero and the DeepSeek-R1 recipe on one
machine.
"""

__version__ = "0.1.0"
