"""GRPO: the maths (advantages, losses, logprobs), the micro-batches and the trainer."""
