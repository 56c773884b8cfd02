"""What training consists of, under the loop in `engine.py`: settings, optimizer, speed, state."""
