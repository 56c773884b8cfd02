"""How fast and how small potstill is on this machine, side by side with what it is compared with (`potstill bench`)."""
