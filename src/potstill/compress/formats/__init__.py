"""Number formats below 32 bits: the representable numbers, and rounding of the others.

A format is a frozen dataclass with `quantize(x)` (the tensor with every value rounded to the format's grid), `bits` and
`range`. `parse_format("q4.4")` converts text to a format; `describe` shows numbers in formats.
"""

from potstill.compress.formats.describe import describe
from potstill.compress.formats.fixed import FixedFormat
from potstill.compress.formats.floating import FloatFormat
from potstill.compress.formats.integer import IntegerFormat
from potstill.compress.formats.parse import NumberFormat, parse_format
from potstill.compress.formats.scaled import ScaledFormat

__all__ = ["FixedFormat", "FloatFormat", "IntegerFormat", "NumberFormat", "ScaledFormat", "describe", "parse_format"]
