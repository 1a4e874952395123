"""Credits are whole millionths: typed and shown as decimals, and never rounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.amount import AMOUNT_MAX, read_credits, show_credits
from wire.errors import InputError


@given(st.integers(1, AMOUNT_MAX))
def test_what_is_shown_is_read_as_the_same(amount: int) -> None:
    assert read_credits(show_credits(amount)) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("12", 12_000_000),
        ("0.02", 20_000),
        ("0.000001", 1),
        (" 1.50 ", 1_500_000),
        ("007", 7_000_000),
    ],
)
def test_decimals_are_millionths(text: str, amount: int) -> None:
    assert read_credits(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.0", "-1", "+1", "1e3", "nan", "inf", ".5", "5.", "1.0000001"),
        *("1,5", "1 000", "\N{ARABIC-INDIC DIGIT THREE}", "4611686018428", "0x10", "1_000"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_credits(text)


def test_less_than_nothing_is_shown_with_its_sign() -> None:
    assert show_credits(-1_250_000) == "-1.25"
    assert show_credits(0) == "0"
