"""Training: settings, optimizer, execution plan, loop, checkpoints and inference."""
