"""`r1rl check`: what can be known about a recipe of any command before a model is loaded."""
