"""Distillation: a student learns a teacher's token distribution. docs/distillation.md tells what can be
chosen.
"""
