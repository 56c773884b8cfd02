"""Experiments: named steps, each one an ordinary stage, and a table of what they measured (docs/recipes.md)."""
