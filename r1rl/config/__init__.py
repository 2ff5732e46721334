"""Recipes: YAML onto typed dataclasses, checked before torch is imported."""
