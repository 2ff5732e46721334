"""Recipes: YAML text becomes typed dataclasses, which are checked before torch is imported."""
