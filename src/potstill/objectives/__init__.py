"""The objective: named, weighted loss terms of one batch."""
