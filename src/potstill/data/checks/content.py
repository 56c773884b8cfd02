"""Findings about individual images, and about files that were ignored."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from potstill.data.checks.finding import Finding
from potstill.data.checks.survey import Survey
from potstill.data.formats.assemble import MOST_UNREADABLE
from potstill.data.formats.files import Left, in_natural_order
from potstill.words import plural

SMALL = 64  # pixels per side up to which images are not cropped
VARIED = 1.5  # ratio of the 90th to the 10th percentile of width / height

# code: (predicate for one image, predicate for several, advice)
_FAULTS = {
    "missing": ("cannot be opened", "cannot be opened", "Check the paths and the permissions of the files."),
    "empty": ("is empty (0 bytes)", "are empty (0 bytes)", "Download or copy them again."),
    "foreign": (
        "has an image extension but is not an image",
        "have an image extension but are not images",
        "Download or copy them again, or remove them.",
    ),
    "damaged": ("is damaged or truncated", "are damaged or truncated", "Download or copy them again."),
    "bomb": ("is too large to decode safely", "are too large to decode safely", "Downscale them."),
    "plug-in": ("needs a plug-in", "need a plug-in", "For HEIC, type: pip install pillow-heif"),
    "drawing": ("is a drawing or document", "are drawings or documents", "Convert them to PNG."),
    "range": (
        "has values outside the range of its format",
        "have values outside the range of their format",
        "Scale the values and save them again.",
    ),
}
_TRAITS = {
    "16-bit": (
        "has 16 bits per channel, scaled by the bit depth",
        "have 16 bits per channel, scaled by the bit depth",
        "If they look dark, stretch the contrast first.",
    ),
    "low": (
        "uses less than a quarter of its 16 bits, so it is read as dark",
        "use less than a quarter of their 16 bits, so they are read as dark",
        "If they hold 10 to 14 bits in 16, multiply the values so that white is 65,535, and save them again.",
    ),
    "float": ("holds floats in 0..1, scaled to 0..255", "hold floats in 0..1, scaled to 0..255", ""),
    "rotated": ("was rotated (EXIF orientation)", "were rotated (EXIF orientation)", ""),
    "alpha": (
        "has transparency, composited on white",
        "have transparency, composited on white",
        "If a white background is misleading, composite them on another colour first.",
    ),
    "palette": ("has a palette, converted to RGB", "have a palette, converted to RGB", ""),
    "cmyk": (
        "is in CMYK, converted to RGB without a colour profile",
        "are in CMYK, converted to RGB without a colour profile",
        "",
    ),
    "animated": (
        "is animated; only the first frame is used",
        "are animated; only the first frame is used",
        "If all frames are needed, extract them.",
    ),
    "blank": ("has a single colour", "have a single colour", "Check how they were created."),
}


def layout(survey: Survey) -> Iterator[Finding]:
    """Yield problems with the layout of the data set, and the notes from reading it."""
    for sentence in survey.refusals:
        yield Finding("layout", "error", 1, sentence, "No command accepts the data until this is fixed.")
    for sentence in survey.notes:
        yield Finding("note", "info", 1, sentence, "")
    yield from _left_out(survey.left)


def _left_out(left: Left) -> Iterator[Finding]:
    if left.junk:
        text = f"Ignored {plural(len(left.junk), 'system or hidden file')}."
        kinds = in_natural_order(path.rsplit("/", 1)[-1] for path in left.junk)
        yield Finding("junk", "info", len(left.junk), text, "They may be removed.", names=kinds)
    if left.others:
        text = f"Ignored {plural(len(left.others), 'file')} without an image extension."
        yield Finding(
            "no-image-name", "info", len(left.others), text, "Rename those that are images.", names=left.others
        )


def unreadable(survey: Survey) -> Iterator[Finding]:
    """Yield a finding for each kind of image that cannot be used; a few are skipped, many are an error."""
    bad = len(survey) - int(survey.readable.sum())
    severity = "error" if bad > MOST_UNREADABLE * len(survey) else "warning"
    for fault, (one, several, advice) in _FAULTS.items():
        rows = [row for row, fact in enumerate(survey.facts) if fact.fault == fault]
        if rows:
            example = survey.facts[rows[0]].problem
            text = f"{_images(len(rows), one, several)}. {example}"
            advice = f"{advice} Or {survey.leaving_out}"
            yield Finding(fault, severity, len(rows), text, advice, [[row] for row in rows], rows)


def traits(survey: Survey) -> Iterator[Finding]:
    """Yield unusual properties of readable images and how they are handled."""
    for trait, (one, several, advice) in _TRAITS.items():
        rows = [[row] for row, fact in enumerate(survey.facts) if trait in fact.traits]
        if rows:
            severity = "warning" if trait in ("blank", "low") else "info"
            yield Finding(trait, severity, len(rows), f"{_images(len(rows), one, several)}.", advice, rows)
    yield from _grey_among_colour(survey)
    yield from _wrong_endings(survey)
    yield from _shapes(survey)


def _shapes(survey: Survey) -> Iterator[Finding]:
    """Yield a finding if a square crop would cut photos of different shapes at different sides."""
    photos = [fact for fact in survey.facts if not fact.fault and max(fact.width, fact.height) > SMALL]
    if len(photos) < 2:
        return
    shapes = np.array([photo.width / photo.height for photo in photos])
    low, high = np.quantile(shapes, [0.1, 0.9])
    if high < VARIED * low:
        return
    cut = 100 * (1 - float(np.minimum(shapes, 1 / shapes).mean()))
    text = (
        f"The photos differ in shape: their width is {low:.2f} to {high:.2f} times their height. Without --fit, "
        f"{cut:.0f} % of a photo is cut off on average."
    )
    advice = "If what matters may touch the border, keep the whole photo: --fit letterbox (docs/export.md)."
    yield Finding("shapes", "info", len(photos), text, advice)


def _grey_among_colour(survey: Survey) -> Iterator[Finding]:
    grey = [[row] for row, fact in enumerate(survey.facts) if "grey" in fact.traits]
    colour = int(survey.readable.sum()) - len(grey)
    if grey and colour:
        text = f"{_images(len(grey), 'is grey', 'are grey')} and {colour:,} in colour; all are used in colour."
        advice = "If one class has more grey images than another, the model will learn that."
        yield Finding("grey", "info", len(grey), text, advice, grey)


def _wrong_endings(survey: Survey) -> Iterator[Finding]:
    known = Image.registered_extensions()
    rows = []
    for row, fact in enumerate(survey.facts):
        ending = os.path.splitext(survey.paths[row])[1].lower()  # noqa: PTH122 (a million Paths are slow)
        expected, kind = known.get(ending), {"MPO": "JPEG", "DIB": "BMP"}.get(fact.kind, fact.kind)
        if fact.kind not in ("", "array") and expected and expected != kind:
            rows.append([row])
    if rows:
        predicates = "has the extension of another format", "have the extension of another format"
        text = f"{_images(len(rows), *predicates)}; the format is detected from the content."
        yield Finding("wrong-ending", "info", len(rows), text, "Other programs may fail to read them.", rows)


def _images(count: int, one: str, several: str) -> str:
    """Return "1 image is grey" or "3 images are grey"."""
    return f"{plural(count, 'image')} {one if count == 1 else several}"
