"""Findings about single images, and about files that were left out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from PIL import Image

from potstill.data.checks.finding import Finding, number
from potstill.data.checks.survey import Survey
from potstill.data.formats.assemble import MOST_UNREADABLE
from potstill.data.formats.files import Left, in_natural_order

_FAULTS = {
    "missing": ("cannot be opened", "Check the paths, or who may read the files."),
    "empty": ("are empty (0 bytes)", "Fetch them again."),
    "foreign": ("are something else under the name of an image", "Fetch them again, or remove them."),
    "damaged": ("are damaged or cut off", "Fetch them again."),
    "bomb": ("are too large to be decoded safely", "Scale them down."),
    "plug-in": ("need a plug-in to be read", "For HEIC type: pip install pillow-heif"),
    "drawing": ("are a drawing or document, not pixels", "Convert them to PNG."),
    "range": ("hold values beyond what stands for white", "Scale the values and save them again."),
}
_TRAITS = {
    "16-bit": ("have 16 bits a channel, scaled by their depth", "If they look dark, stretch them first."),
    "float": ("hold floats from 0 to 1, scaled to 0 to 255", ""),
    "turned": ("are stored turned or mirrored, and put upright by their EXIF orientation", ""),
    "alpha": ("are partly transparent, and laid on white", "If white misleads, lay them on another colour first."),
    "palette": ("have a palette, which becomes RGB", ""),
    "cmyk": ("are in CMYK, which becomes RGB without a colour profile", ""),
    "animated": ("are animated, of which the first frame is taken", "If all frames count, extract them."),
    "blank": ("have one colour only", "Look whether something went wrong where they were made."),
}


def layout(survey: Survey) -> Iterator[Finding]:
    """Yield what is wrong with the shape of the data set, and what reading it noted."""
    for sentence in survey.refusals:
        yield Finding("layout", "error", 1, sentence, "No command can use the data before this is changed.")
    for sentence in survey.told:
        yield Finding("note", "info", 1, sentence, "")
    yield from _left_out(survey.left)


def _left_out(left: Left) -> Iterator[Finding]:
    if left.junk:
        text = f"Ignored {number(len(left.junk), 'file or folder', 'files and folders')} of other programs."
        kinds = in_natural_order(path.rsplit("/", 1)[-1] for path in left.junk)
        yield Finding("junk", "info", len(left.junk), text, "They may be removed.", names=kinds)
    if left.others:
        text = f"{number(len(left.others), 'file')} do not have the name of an image and were ignored."
        yield Finding(
            "no-image-name", "info", len(left.others), text, "Rename those that are images.", names=left.others
        )


def unreadable(survey: Survey) -> Iterator[Finding]:
    """Yield a finding for each kind of image that cannot be used; a few are skipped, many are an error."""
    bad = len(survey) - int(survey.readable.sum())
    severity = "error" if bad > MOST_UNREADABLE * len(survey) else "warning"
    for fault, (what, advice) in _FAULTS.items():
        rows = [row for row, fact in enumerate(survey.facts) if fact.fault == fault]
        if rows:
            example = survey.facts[rows[0]].problem
            text = f"{_images(len(rows), what)}. {example}"
            yield Finding(fault, severity, len(rows), text, f"{advice} {_fix(survey)}", [[r] for r in rows], rows)


def traits(survey: Survey) -> Iterator[Finding]:
    """Yield what is unusual about readable images and how it is dealt with."""
    for trait, (what, advice) in _TRAITS.items():
        rows = [[row] for row, fact in enumerate(survey.facts) if trait in fact.traits]
        if rows:
            severity = "warning" if trait == "blank" else "info"
            yield Finding(trait, severity, len(rows), f"{_images(len(rows), what)}.", advice, rows)
    yield from _grey_among_colour(survey)
    yield from _wrong_endings(survey)


def _grey_among_colour(survey: Survey) -> Iterator[Finding]:
    grey = [[row] for row, fact in enumerate(survey.facts) if "grey" in fact.traits]
    colour = int(survey.readable.sum()) - len(grey)
    if grey and colour:
        text = f"{_images(len(grey), 'are grey')}, among {colour:,} in colour; all are used in colour."
        advice = "If one class has more of them than another, the network will learn that."
        yield Finding("grey", "info", len(grey), text, advice, grey)


def _wrong_endings(survey: Survey) -> Iterator[Finding]:
    known = Image.registered_extensions()
    rows = []
    for row, fact in enumerate(survey.facts):
        ending = os.path.splitext(survey.paths[row])[1].lower()  # noqa: PTH122 (a million Paths are slow)
        told, is_kind = known.get(ending), {"MPO": "JPEG", "DIB": "BMP"}.get(fact.kind, fact.kind)
        if fact.kind not in ("", "array") and told and told != is_kind:
            rows.append([row])
    if rows:
        text = f"{_images(len(rows), 'have the ending of another format')}; they are read by their content."
        yield Finding("wrong-ending", "info", len(rows), text, "Other programs may stumble over them.", rows)


def _images(count: int, what: str) -> str:
    """Return "3 images are grey" or "1 image is grey"."""
    singular = {"are": "is", "have": "has", "hold": "holds", "need": "needs", "cannot": "cannot"}
    verb, _, rest = what.partition(" ")
    return f"{number(count, 'image')} {singular[verb] if count == 1 else verb} {rest}"


def _fix(survey: Survey) -> str:
    return f"Or leave them out: potstill check {survey.root} --fix clean.csv"
