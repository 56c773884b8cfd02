"""Every path that becomes a model, and back."""
