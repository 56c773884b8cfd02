"""Distillation: students and controls, exported files, evaluation of the test split, the summary."""
