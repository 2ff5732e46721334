"""Distillation: a student learns a teacher's token distribution. docs/distillation.md describes the
choices.
"""
