"""Which of several exported files to use: the fastest or the smallest one that is not measurably less accurate."""

from __future__ import annotations

from typing import Any, Literal

from potstill import progress

Preference = Literal["speed", "bytes"]
WORSE = 0.05
"""p-value (McNemar) below which a file counts as less accurate than the network."""


def recommended(models: dict[str, Any], prefer: Preference = "speed") -> dict[str, str]:
    """Return the recommended file and the reason; files that are not measurably less accurate than the network count.

    models: metrics by file name; the first file is the float one. prefer: "speed" is the latency of one image on one
    thread, "bytes" the size of the file.
    """
    first, *others = [name for name in models if name != "network"]
    for name in others:
        _note(name, first, models[name], prefer)
    accurate = [name for name in others if not _worse(models[name])]
    if prefer == "bytes":
        return _smallest(first, accurate, models)
    chosen = max([first, *accurate], key=lambda name: 1.0 if name == first else _speed_up(models[name]))
    because = (
        f"{_speed_up(models[chosen]):.2f}x faster than {first} for one image on one thread, and not measurably less "
        "accurate"
        if chosen != first
        else "no other file is faster without being measurably less accurate"
    )
    return {"file": chosen, "because": because}


def _smallest(first: str, accurate: list[str], models: dict[str, Any]) -> dict[str, str]:
    chosen = min([first, *accurate], key=lambda name: models[name]["bytes"])
    if chosen == first:
        return {"file": first, "because": "no other file is smaller without being measurably less accurate"}
    fraction = models[chosen]["bytes"] / models[first]["bytes"]
    return {"file": chosen, "because": f"{fraction:.0%} of the bytes of {first}, and not measurably less accurate"}


def _note(name: str, first: str, row: dict[str, Any], prefer: Preference) -> None:
    """Note why a file is not recommended."""
    faster = _speed_up(row)
    if faster <= 1:
        progress.note(f"{name} is slower than {first} on this machine (one image, one thread): {faster:.2f}x.")
    if _worse(row) and (faster > 1 or prefer == "bytes"):
        progress.note(f"{name} is measurably less accurate: -{row['lost']:.2f} points (p = {row['p']:.3g}).")


def _speed_up(row: dict[str, Any]) -> float:
    """Return the speed-up for one image on one thread; 0 for files whose threads cannot be set."""
    return row["latency"][0]["speed_up"] if row["latency"][0]["threads"] == 1 else 0.0


def _worse(row: dict[str, Any]) -> bool:
    return row["lost"] > 0 and row["p"] < WORSE
