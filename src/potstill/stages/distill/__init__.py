"""The run of a recipe: students and controls, files, the test split once, the summary."""
