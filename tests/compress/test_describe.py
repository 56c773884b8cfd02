"""Numbers shown in formats: values worked out by hand, and the bit patterns of torch's own casts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from typer.testing import CliRunner

from potstill.cli import app
from potstill.compress.formats import describe, parse_format
from potstill.compress.formats.describe import binary, held, normal_form
from potstill.errors import ConfigError
from tests.compress.test_number_formats import DTYPES, every_value, hard_floats


def shown(number: float, text: str) -> dict:
    return held(number, parse_format(text))


# number, format, bits by their parts, normalised form, value, state
BY_HAND = [
    (7.625, "q4.4", "0111.1010", None, 7.625, "exact"),
    (-7.625, "q4.4", "1000.0110", None, -7.625, "exact"),  # 16 - 7.625 = 8.375 = 1000.0110
    (-0.1, "q4.4", "1111.1110", None, -0.125, "rounded"),  # -1.6 sixteenths -> -2
    (0.03125, "q4.4", "0000.0000", None, 0.0, "underflow"),  # half a step: a tie, to the even 0
    (0.09375, "q4.4", "0000.0010", None, 0.125, "rounded"),  # one and a half steps: a tie, to the even 2
    (8.0, "q4.4", "0111.1111", None, 7.9375, "saturated"),
    (-9.0, "q4.4", "1000.0000", None, -8.0, "saturated"),
    (15.9375, "uq4.4", "1111.1111", None, 15.9375, "exact"),
    (-1.0, "uq4.4", "0000.0000", None, 0.0, "saturated"),
    (7.625, "e4m3", "0 1001 111", "1.875 x 2^2", 7.5, "rounded"),  # between 7.5 and 8, a quarter of the way
    (7.75, "e4m3", "0 1010 000", "1.0 x 2^3", 8.0, "rounded"),  # the tie goes to the even mantissa, 000
    (8.5, "e4m3", "0 1010 000", "1.0 x 2^3", 8.0, "rounded"),  # and so does this one, downwards
    (7.625, "e5m2", "0 10010 00", "1.0 x 2^3", 8.0, "rounded"),  # between 7 and 8, past the middle
    (-(2.0**-9), "e4m3", "1 0000 001", "-0.125 x 2^-6", -(2.0**-9), "subnormal"),  # the smallest
    (2.0**-10, "e4m3", "0 0000 000", "0", 0.0, "underflow"),  # half of it: a tie, to 0
    (3 * 2.0**-10, "e4m3", "0 0000 010", "0.25 x 2^-6", 2.0**-8, "subnormal"),  # a tie, to the even 010
    (0.015625, "e4m3", "0 0001 000", "1.0 x 2^-6", 0.015625, "exact"),  # the smallest normal number
    (500.0, "e4m3", "0 1111 110", "1.75 x 2^8", 448.0, "saturated"),
    (1e6, "e5m2", "0 11110 11", "1.75 x 2^15", 57344.0, "saturated"),
    (-7.0, "e2m1", "1 11 1", "-1.5 x 2^2", -6.0, "saturated"),
    (0.1, "fp16", "0 01011 1001100110", "1.599609375 x 2^-4", 0.0999755859375, "rounded"),
    (0.1, "bf16", "0 01111011 1001101", "1.6015625 x 2^-4", 0.10009765625, "rounded"),
]


@pytest.mark.parametrize(("number", "text", "bits", "form", "value", "state"), BY_HAND)
def test_values_worked_out_by_hand(number, text, bits, form, value, state):
    got = shown(number, text)
    parts = got["pointed"] if "pointed" in got else f"{got['sign']} {got['exponent']} {got['mantissa']}"
    assert (parts, got.get("normalised"), got["value"], got["state"]) == (bits, form, value, state)
    assert got["stored"] == bits.replace(" ", "").replace(".", "")
    assert got["absolute_error"] == abs(value - number)
    assert got["relative_error"] == abs(value - number) / abs(number)


def test_integers_are_fitted_to_the_numbers():
    result = describe([7.625, -3.0], ["int8", "uint8"])
    signed, unsigned = result["formats"]
    assert signed["step"] == 7.625 / 127 and signed["zero_point"] == 0
    assert unsigned["step"] == 10.625 / 255 and unsigned["zero_point"] == 72
    codes = [value["code"] for value in result["values"]]
    assert codes == ["127", "255", "-50", "0"]
    assert [value["stored"] for value in result["values"]][2] == "11001110"  # 256 - 50 = 206


@pytest.mark.parametrize("text", DTYPES)
def test_patterns_are_those_of_torch(text):
    dtype = DTYPES[text]
    x = hard_floats(every_value(dtype))
    number = parse_format(text, overflow="special")
    expected = x.to(dtype)
    sure = ~x.isnan() & ~((x.abs() > 464) if text == "e4m3" else torch.zeros_like(x, dtype=torch.bool))
    integer = torch.uint8 if dtype.itemsize == 1 else torch.int16
    patterns = expected.view(integer).long() % (1 << number.bits)
    assert torch.equal(number.encode(x)[sure], patterns[sure])
    assert number.encode(torch.tensor([math.nan])).item() in {0x7F, 0x7E, 0x7E00, 0x7FC0}


def test_every_pattern_of_small_floats_is_encoded_back():
    for text in ("e4m3fn", "e5m2ieee", "e3m2finite", "e2m1finite", "e4m3ieee"):
        number = parse_format(text, overflow="saturate" if "finite" in text else "special")
        codes = torch.arange(number._largest + 1)
        assert torch.equal(number.encode(number._value(codes.double())), codes)
    with pytest.raises(ConfigError, match="no pattern for NaN"):
        parse_format("e2m1").encode(torch.tensor([math.nan]))


def test_what_has_no_pattern_is_said():
    assert shown(math.nan, "e4m3")["stored"] == "01111111" and shown(math.nan, "q4.4")["stored"] is None
    assert shown(math.nan, "e2m1")["stored"] is None and shown(math.nan, "bf16")["state"] == "nan"
    infinite = shown(-math.inf, "e4m3")
    assert (infinite["value"], infinite["state"], infinite["relative_error"]) == (-448.0, "saturated", None)
    assert shown(-0.0, "e4m3")["stored"] == "10000000" and shown(0.0, "e4m3")["relative_error"] is None


def test_ranges_and_steps():
    facts = {one["title"]: one for one in describe([1.0], ["q4.4", "e4m3", "e5m2", "fp16", "uq0.8"])["formats"]}
    assert (facts["q4.4"]["low"], facts["q4.4"]["high"], facts["q4.4"]["step"]) == (-8.0, 7.9375, 0.0625)
    assert (facts["uq0.8"]["low"], facts["uq0.8"]["high"]) == (0.0, 0.99609375)
    e4m3, e5m2 = facts["e4m3"], facts["e5m2"]
    assert (e4m3["high"], e4m3["smallest"], e4m3["smallest_normal"], e4m3["bias"]) == (448.0, 2.0**-9, 2.0**-6, 7)
    assert (e4m3["has_inf"], e4m3["has_nan"], e5m2["has_inf"], e5m2["has_nan"]) == (False, True, True, True)
    assert (e5m2["high"], e5m2["smallest"], e5m2["relative_step"]) == (57344.0, 2.0**-16, 0.25)
    assert facts["fp16"]["high"] == 65504.0 and facts["fp16"]["format"] == "e5m10ieee"


def test_binary_and_normal_form_of_a_number():
    assert binary(7.625) == "111.101" and binary(-0.5) == "-0.1" and binary(0.0) == "0"
    assert binary(0.1, digits=8) == "0.00011001..."
    assert normal_form(7.625)["normalised"] == "1.90625 x 2^2" and normal_form(0.0)["normalised"] == "0"


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["formats", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_shows_several_numbers_and_formats():
    words = ["7.625", "-0.1", "--fixed", "4.4", "--float", "e4m3", "--float", "fp16", "--integer", "8"]
    status, printed, _ = run(*words)
    assert status == 0
    for text in ("7.625 = 111.101 in binary = 1.90625 x 2^2", "0111.1010", "0 1001 111", "1.875 x 2^2", "1.64 %"):
        assert text in printed
    status, printed, _ = run(*words, "--json")
    result = json.loads(printed)
    assert status == 0 and len(result["values"]) == 8 and result["values"][0]["pointed"] == "0111.1010"


def test_without_a_format_the_usual_ones_are_shown():
    _, printed, _ = run("0.3")
    assert all(name in printed for name in ("q4.4", "e4m3", "e5m2", "fp16", "bf16"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x"], "'x' is not a finite number"),
        (["nan"], "'nan' is not a finite number"),
        (["1", "--flot"], "'--flot' is not an option"),
        (["1", "--fixed", "4"], "Did you mean 'q4.4'"),
        (["1", "--fixed", "e4m3"], "--fixed takes 4.4"),
        (["1", "--float", "q4.4"], "--float takes e4m3"),
        (["1", "--float", "e11m3"], "exponent bits"),
        (["1", "--integer", "40"], "2 to 31 bits"),
    ],
)
def test_mistakes_get_one_sentence(words, told):
    status, printed, errors = run(*words)
    assert status == 2 and not printed and told in errors and errors.count("error:") == 1
