"""What a network consists of, seen from one traced forward pass."""
