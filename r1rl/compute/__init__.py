"""The machinery of training: processes, the optimizer and its schedule, the clock of a step, captured GPU
steps.
"""
