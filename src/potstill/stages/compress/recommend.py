"""Which of the files of an export to use, by the one rule (`evaluation.shipping`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill import progress
from potstill.evaluation.shipping import Candidate, Preference, against
from potstill.evaluation.shipping import recommended as by_the_rule


def recommended(models: Mapping[str, Any], prefer: Preference = "speed") -> dict[str, Any]:
    """Return the recommended file, the reason, and what to know of the others; note why a file is not recommended.

    models: figures by file name, the network's and then those of the files, the float one first. prefer: "speed" is the
    latency of one image on one thread, "bytes" the size of the file.
    """
    first, *others = [candidate(name, row) for name, row in models.items() if name != "network"]
    for file in others:
        if file.latency_ms is not None and file.milliseconds > first.milliseconds:
            progress.note(
                f"{file.name} is slower than {first.name} on this machine (one image, one thread): "
                f"{first.milliseconds / file.milliseconds:.2f}x."
            )
        if file.is_worse and (file.milliseconds < first.milliseconds or prefer == "bytes"):
            progress.note(against(file, first))
    return by_the_rule([first, *others], prefer)


def candidate(name: str, row: Mapping[str, Any]) -> Candidate:
    """Return a file with its figures; without a latency where the number of threads cannot be set."""
    timed = [one["median_ms"] for one in row["latency"] if (one["batch"], one["threads"]) == (1, 1)]
    return Candidate(name, row["bytes"], timed[0] if timed else None, row["lost"], row["p"])
