"""Whether access to model and data hubs is forbidden: `potstill --offline`, or POTSTILL_OFFLINE=1."""

from __future__ import annotations

import os

VARIABLE = "POTSTILL_OFFLINE"


def is_offline() -> bool:
    """Whether nothing may be downloaded; what is in the caches may be used."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def forbid() -> None:
    """Forbid downloads in this process and those that it starts."""
    os.environ[VARIABLE] = "1"
