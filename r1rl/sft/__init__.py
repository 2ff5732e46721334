"""`r1rl sft`: supervised fine-tuning on demonstrations."""
