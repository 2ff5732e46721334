"""`r1rl pipeline`: stages that feed each other, each run once for its inputs. docs/pipeline.md tells what a
user sees.
"""
