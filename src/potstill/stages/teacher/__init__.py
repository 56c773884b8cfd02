"""From a recipe to a teacher that is ready to teach."""
