"""`r1rl pretrain`: a small base model from scratch, on text that the project generates."""
