"""What is shown and drawn of a run: metrics, progress, curves, the final tables."""
