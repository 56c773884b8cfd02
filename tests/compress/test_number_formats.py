"""Number formats against torch's own casts, exact fractions and brute force."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from potstill.compress.formats import FixedFormat, FloatFormat, IntegerFormat, parse_format
from potstill.errors import ConfigError


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "e5m2": torch.float8_e5m2,
    "e4m3": torch.float8_e4m3fn,
}


def every_value(dtype: torch.dtype) -> torch.Tensor:
    """All bit patterns of `dtype`, as float32."""
    if dtype.itemsize == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype).float()
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).float()


def hard_floats(grid: torch.Tensor) -> torch.Tensor:
    """Float32 numbers around a grid: the grid, midpoints (ties), their neighbours, random bit patterns."""
    finite = grid[grid.isfinite()].sort().values.double()
    ties = ((finite[1:] + finite[:-1]) / 2).float()
    random = torch.randint(-(2**31), 2**31, (20000,), generator=torch.Generator().manual_seed(0), dtype=torch.int64)
    random = random.int().view(torch.float32)
    infinite = torch.tensor(math.inf)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, 1e-45])
    return torch.cat([grid, ties, ties.nextafter(infinite), ties.nextafter(-infinite), random, special])


def assert_same_bits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan)
    assert torch.equal(actual[~nan].view(torch.int32), expected[~nan].view(torch.int32))  # -0.0 is not 0.0


@pytest.mark.parametrize("text", DTYPES)
def test_casts_of_torch_are_reproduced_bit_for_bit(text):
    grid = every_value(DTYPES[text])
    x = hard_floats(grid)
    expected = x.to(DTYPES[text]).float()
    beyond = expected.isinf()
    if text == "e4m3":  # what torch makes of large numbers changed between versions; the standard says NaN
        beyond = x.abs() > 464
        expected[beyond] = math.nan
    assert beyond.any()
    assert_same_bits(parse_format(text, overflow="special").quantize(x), expected)
    largest = grid[grid.isfinite()].max()
    saturated = torch.where(beyond, torch.copysign(largest, x), expected)
    assert_same_bits(parse_format(text).quantize(x), saturated)


@pytest.mark.parametrize("text", DTYPES)
def test_range_and_smallest_are_those_of_the_dtype(text):
    grid = every_value(DTYPES[text])
    finite = grid[grid.isfinite()]
    number = parse_format(text)
    assert number.range == (finite.min().item(), finite.max().item())
    assert number.smallest == finite[finite > 0].min().item()
    assert number.bits == 8 * DTYPES[text].itemsize


def float_grid(exponent: int, mantissa: int, specials: str) -> list[Fraction]:
    """The non-negative numbers of a float format in the order of their bit patterns, from the definition."""
    bias = (1 << exponent - 1) - 1
    patterns = 1 << exponent + mantissa
    taken = {"ieee": 1 << mantissa, "fn": 1, "finite": 0}[specials]
    grid = []
    for pattern in range(patterns - taken):
        field, rest = divmod(pattern, 1 << mantissa)
        one = 0 if field == 0 else 1
        grid.append((one + Fraction(rest, 1 << mantissa)) * Fraction(2) ** (max(field, 1) - bias))
    return grid


def nearest_even(x: Fraction, grid: list[Fraction]) -> Fraction:
    """Brute force: the nearest of a sorted grid, ties to the even position, saturating."""
    position = min(range(len(grid)), key=lambda i: (abs(grid[i] - x), i % 2))
    return grid[position]


SMALL = [(4, 3, "ieee"), (3, 4, "ieee"), (2, 1, "finite"), (2, 3, "finite"), (3, 2, "finite"), (5, 0, "ieee")]
SMALL += [(2, 2, "fn"), (1, 3, "finite"), (3, 0, "finite"), (6, 2, "ieee"), (4, 0, "fn")]


@pytest.mark.parametrize(("exponent", "mantissa", "specials"), SMALL)
def test_small_floats_agree_with_fractions(exponent, mantissa, specials):
    grid = float_grid(exponent, mantissa, specials)
    number = FloatFormat(exponent, mantissa, specials)
    assert number.range[1] == float(grid[-1])
    assert number.smallest == float(grid[1])
    ties = [(a + b) / 2 for a, b in zip(grid, grid[1:], strict=False)]
    random = [Fraction(x) for x in (torch.rand(60, dtype=torch.float64) * float(grid[-1]) * 1.2).tolist()]
    small = [Fraction(x) for x in (torch.rand(40, dtype=torch.float64) * float(grid[3])).tolist()]
    numbers = [*grid, *ties, *random, *small]
    x = torch.tensor([float(n) for n in numbers], dtype=torch.float64)
    expected = torch.tensor([float(nearest_even(n, grid)) for n in numbers], dtype=torch.float64)
    assert torch.equal(number.quantize(x), expected)
    assert torch.equal(number.quantize(-x), -expected)
    below = torch.tensor([float(max(g for g in grid if g <= n)) for n in numbers], dtype=torch.float64)
    toward_zero = FloatFormat(exponent, mantissa, specials, rounding="zero")
    assert torch.equal(toward_zero.quantize(-x), -below)


def test_a_wide_float_agrees_with_fractions():
    number, bias, mantissa = FloatFormat(7, 17), 63, 17
    x = torch.randn(500, dtype=torch.float64) * torch.pow(2.0, torch.randint(-70, 60, (500,)).double())
    for value, got in zip(x.tolist(), number.quantize(x).tolist(), strict=True):
        power = max(math.frexp(value)[1] - 1, 1 - bias)
        spacing = Fraction(2) ** (power - mantissa)
        assert Fraction(got) == round(Fraction(value) / spacing) * spacing  # round() sends ties to even


@pytest.mark.parametrize(("integer", "fraction", "signed"), [(4, 4, True), (1, 7, True), (0, 8, False), (3, 13, True)])
@pytest.mark.parametrize("rounding", ["nearest", "zero"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_fixed_point_agrees_with_fractions(integer, fraction, signed, rounding, overflow):
    number = FixedFormat(integer, fraction, signed, rounding, overflow)
    bits, step = integer + fraction, Fraction(1, 1 << fraction)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    assert number.bits == bits
    assert number.range == (float(low * step), float(high * step))
    spread = float(high * step)
    x = torch.cat([torch.randn(300) * spread, torch.randint(-300, 300, (300,)) * (float(step) / 2)])

    def reference(value: float) -> Fraction:
        code = Fraction(value) / step
        code = round(code) if rounding == "nearest" else math.trunc(code)
        code = (code - low) % (1 << bits) + low if overflow == "wrap" else min(max(code, low), high)
        return code * step

    assert [Fraction(v) for v in number.quantize(x).tolist()] == [reference(v) for v in x.tolist()]


def test_integers_agree_with_torch_fake_quantization():
    x = torch.randn(1000) * 3
    scale = 2.0**-5  # a power of two: x * (1 / scale), as torch computes, is then x / scale
    for signed, zero_point, low, high in [(False, 37, 0, 255), (True, 0, -128, 127), (True, -11, -128, 127)]:
        number = IntegerFormat(8, signed, scale, zero_point)
        expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)
        assert torch.equal(number.quantize(x), expected)
        assert torch.equal(number.decode(number.encode(x)).float(), expected)


def test_31_bit_integers_are_exact_in_float64():
    number = IntegerFormat(31)
    x = torch.tensor([2.0**30 - 1.5, 2.0**30 - 2.5, -(2.0**30), 2.0**31, 0.5, 1.5], dtype=torch.float64)
    expected = [2.0**30 - 2, 2.0**30 - 2, -(2.0**30), 2.0**30 - 1, 0.0, 2.0]
    assert number.quantize(x).tolist() == expected


def test_fit_covers_the_range_and_holds_zero_exactly():
    affine = parse_format("uint8").fit(-1.0, 3.0)
    assert affine.zero_point == 64
    assert affine.quantize(torch.zeros(1)).item() == 0.0
    assert affine.range == pytest.approx((-1.0, 3.0), abs=affine.scale)
    assert parse_format("int4").fit(-0.7, 0.1).scale == pytest.approx(0.1)
    assert parse_format("uint8").fit(2.0, 3.0).range[0] == 0.0
    assert parse_format("int8").fit(0.0, 0.0).quantize(torch.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("text", ["int4", "q2.3", "e4m3", "e2m1"])
def test_nan_stays_nan_and_quantizing_twice_changes_nothing(text):
    number = parse_format(text)
    assert number.quantize(torch.tensor([math.nan])).isnan().all()
    x = torch.randn(500, dtype=torch.bfloat16)
    once = number.quantize(x)
    assert once.dtype == torch.bfloat16
    assert torch.equal(number.quantize(once), once)
    assert number.quantize(torch.tensor([math.inf])).item() == number.range[1]


@pytest.mark.parametrize("text", ["int8", "q4.4", "e4m3"])
def test_stochastic_rounding_is_right_on_average_and_repeatable(text):
    number = parse_format(text, rounding="stochastic")
    grid = parse_format(text)
    x = torch.full((20000,), 1.3 if text != "int8" else 5.3)
    first = number.quantize(x, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, number.quantize(x, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(grid.quantize(first), first)
    assert len(first.unique()) == 2
    spread = (first.max() - first.min()).item()
    assert first.mean().item() == pytest.approx(x[0].item(), abs=0.02 * spread)


@pytest.mark.parametrize("text", ["int8", "uint3", "q4.4", "uq0.8", "e4m3fn", "e3m4ieee", "e2m1finite"])
def test_names_are_read_back(text):
    assert parse_format(text).name == text
    assert parse_format(parse_format(text).name) == parse_format(text)


def test_named_formats():
    assert parse_format(" BF16 ") == FloatFormat(8, 7)
    assert parse_format("e4m3") == FloatFormat(4, 3, "fn")
    assert parse_format("e4m3ieee").range[1] == 240.0
    assert parse_format("tf32").bits == 19
    assert parse_format("e2m1").range == (-6.0, 6.0)


MISTAKES = [
    ("int8x", "Did you mean 'int8'"),
    ("int1", "2 to 31 bits"),
    ("uint32", "2 to 31 bits"),
    ("q16.16", "32 bits"),
    ("q1.0", "2 to 31"),
    ("e8m23", "32 bits"),
    ("e11m3", "exponent bits"),
    ("e1m5", "exponent bits"),
    ("fp32", "leave out the format"),
    ("banana", "is not a number format"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_mistyped_formats_are_refused_in_a_sentence(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_format(text)


def test_wrong_choices_are_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="one of nearest, zero, stochastic, not 'neerest'. Did you mean"):
        parse_format("int8", rounding="neerest")
    with pytest.raises(ConfigError, match="one of saturate, wrap"):
        parse_format("q4.4", overflow="special")
    with pytest.raises(ConfigError, match="neither inf nor NaN"):
        parse_format("e2m1", overflow="special")
    with pytest.raises(ConfigError, match="zero point 300"):
        IntegerFormat(8, False, 1.0, 300)
    with pytest.raises(ConfigError, match="positive and finite"):
        IntegerFormat(8, scale=0.0)
