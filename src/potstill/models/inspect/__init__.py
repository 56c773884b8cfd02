"""The structure of a network, from one traced forward pass."""
