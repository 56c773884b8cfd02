"""Number formats below 32 bits: which real numbers a device can hold, and what becomes of the others.

A format is a frozen dataclass with `quantize(x)` (the same tensor with every value moved onto the format's grid),
`bits` and `range`. `parse_format("q4.4")` is the one way from text to a format; `describe` shows a number in one.
"""

from potstill.compress.formats.describe import describe
from potstill.compress.formats.fixed import FixedFormat
from potstill.compress.formats.floating import FloatFormat
from potstill.compress.formats.integer import IntegerFormat
from potstill.compress.formats.parse import NumberFormat, parse_format
from potstill.compress.formats.scaled import ScaledFormat

__all__ = ["FixedFormat", "FloatFormat", "IntegerFormat", "NumberFormat", "ScaledFormat", "describe", "parse_format"]
