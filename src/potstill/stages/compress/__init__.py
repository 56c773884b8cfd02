"""Prune, quantize, export."""
