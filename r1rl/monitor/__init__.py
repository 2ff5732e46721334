"""The displays and drawings of a run: metrics, progress, curves, the final tables."""
