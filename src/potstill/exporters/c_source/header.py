"""The header of generated C: how to call it, what goes in and comes out, and the names of the classes."""

from __future__ import annotations

import string

from potstill._version import __version__
from potstill.exporters.c_source.source import ALIGNMENT
from potstill.models.card import Card

TEMPLATE = """\
/*
 * {title}, written by potstill {version} with emx-onnx-cgen. {bits}
 *
 *     static float image[{CAPS}_IMAGE], logits[{CAPS}_CLASSES];
 *     static double arena[{CAPS}_ARENA / sizeof(double)];
 *     {name}_image(pixels, image);
 *     {name}(({name}_input)image, ({name}_output)logits, arena);
 *
 * Compile {name}.c with: cc -O2 -std=c99 {name}.c -lm
 *
 * pixels: {height} rows of {width} pixels of {channels} bytes ({order}). The picture was resized so that its short
 *     side has {resize} pixels ({interpolation}, with antialias), and its centre of {crop_width}x{crop_height}
 *     was cut out{again}.
 * image: float [1][{channels}][{height}][{width}] in 0..1, a pixel of 255 is 1. {name}_image makes it from pixels.
 *     Mean and standard deviation are subtracted and divided inside.
 * logits: float [1][{classes}], the largest is the answer; {name}_classes has the names.
 *     Probabilities: softmax(logits / {CAPS}_TEMPERATURE).
 * arena: {CAPS}_ARENA bytes, aligned to {alignment}; nothing is kept in it between calls.
 */
#ifndef {CAPS}_H
#define {CAPS}_H

#include <stdint.h>

#define {CAPS}_HEIGHT {height}
#define {CAPS}_WIDTH {width}
#define {CAPS}_CHANNELS {channels}
#define {CAPS}_IMAGE ({CAPS}_CHANNELS * {CAPS}_HEIGHT * {CAPS}_WIDTH)
#define {CAPS}_CLASSES {classes}
#define {CAPS}_ARENA {arena}
#define {CAPS}_TEMPERATURE {temperature}f

typedef const float (*{name}_input)[{CAPS}_CHANNELS][{CAPS}_HEIGHT][{CAPS}_WIDTH];
typedef float (*{name}_output)[{CAPS}_CLASSES];

void {name}({name}_input image, {name}_output logits, void *arena);

static const char *const {name}_classes[{CAPS}_CLASSES] = {{
{names}
}};

/* The image of pixels that a camera or a decoder gives: channels last, 0..255. */
static inline void {name}_image(const uint8_t *pixels, float *image) {{
    for (int channel = 0; channel < {CAPS}_CHANNELS; ++channel) {{
        for (int pixel = 0; pixel < {CAPS}_HEIGHT * {CAPS}_WIDTH; ++pixel) {{
            *image++ = (float)pixels[pixel * {CAPS}_CHANNELS + channel] / 255.0f;
        }}
    }}
}}

#endif
"""
PLAIN = frozenset(string.ascii_letters + string.digits + " ")


def header(name: str, card: Card, arena: int, *, integer: bool, temperature: float | None) -> str:
    """Return the text of `name`.h. arena: bytes of working memory. integer: whether layers compute in 8 bits."""
    (height, width), (crop_height, crop_width) = card.size, card.crop
    again = "" if card.crop == card.size else f" and resized to {width}x{height}"
    return TEMPLATE.format(
        name=name,
        CAPS=name.upper(),
        title=_comment(card.model),
        version=__version__,
        bits="Layers compute in 8 bits." if integer else "Computes in float.",
        height=height,
        width=width,
        channels=card.channels,
        order="red, green, blue" if card.channels == 3 else "grey",
        resize=card.resize,
        interpolation=_comment(card.interpolation),
        crop_height=crop_height,
        crop_width=crop_width,
        again=again,
        classes=len(card.classes),
        arena=arena,
        alignment=ALIGNMENT,
        temperature=repr(float(temperature or 1.0)),
        names="\n".join(f'    "{_literal(one)}",' for one in card.classes),
    )


def _comment(text: str) -> str:
    """Return text that cannot end a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("*/", "* /")


def _literal(text: str) -> str:
    """Return text as the inside of a C string: UTF-8, all but letters, digits and spaces as octal numbers."""
    plain = (
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or byte == 32) else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return "".join(plain)
