"""What potstill is measured against, and how: the loops of others, the sides of each comparison, the bars."""
