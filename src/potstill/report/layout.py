"""Placement of chart labels without overlaps: plain geometry on rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangle, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Return the area of the intersection."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def distance(self, other: Box) -> float:
        """Return the gap between the two, the larger of the horizontal and the vertical one; 0 if they touch."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        return max(across, self.bottom - other.top, other.bottom - self.top)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return heights near the wanted ones, in their order, at least `gap` apart and inside `low`..`high`.

    If `low`..`high` is too short for all of them, the last ones exceed `high`.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    up, down = list(wanted), list(wanted)
    ceiling, floor = high, low
    for i in reversed(order):
        down[i] = min(wanted[i], ceiling)
        ceiling = down[i] - gap
    for i in order:
        up[i] = max(wanted[i], floor)
        floor = up[i] + gap
    middle = [(a + b) / 2 for a, b in zip(up, down, strict=True)]
    return middle if low <= min(middle) and max(middle) <= high else _pushed(middle, order, gap, low, high)


def _pushed(heights: list[float], order: Sequence[int], gap: float, low: float, high: float) -> list[float]:
    """Return heights, already `gap` apart, shifted inside the limits as far as possible."""
    for i in reversed(order):
        heights[i] = min(heights[i], high)
        high = heights[i] - gap
    for i in order:
        heights[i] = max(heights[i], low)
        low = heights[i] + gap
    return heights


def place(bodies: Sequence[Box], sizes: Sequence[tuple[float, float]], frame: Box) -> list[Box]:
    """Return a box for each label: next to its body, clear of all bodies and other labels, inside `frame`.

    bodies: the marks that the labels name. sizes: (width, height) of the labels. Tries positions around the body,
    nearest first, and takes the one with the least overlap.
    """
    used, placed = list(bodies), []
    for body, size in zip(bodies, sizes, strict=True):
        candidates = [_around(body, size, way, distance) for distance in DISTANCES for way in WAYS]
        costs = [round(_cost(box, used, frame)) for box in candidates]
        best = candidates[costs.index(min(costs))]
        used.append(best)
        placed.append(best)
    return placed


DISTANCES = (3, 10, 20, 34)
WAYS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (1, 1), (-1, -1), (-1, 1))  # right, left, above, below, corners


def _around(body: Box, size: tuple[float, float], way: tuple[int, int], distance: float) -> Box:
    (width, height), (across, up) = size, way
    x = (body.left + body.right) / 2 + across * ((body.right - body.left + width) / 2 + distance)
    y = (body.bottom + body.top) / 2 + up * ((body.top - body.bottom + height) / 2 + distance)
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _cost(box: Box, used: Sequence[Box], frame: Box) -> float:
    outside = box.area - box.overlap(frame)
    return sum(box.overlap(other) for other in used) + outside
