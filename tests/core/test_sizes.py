"""Bytes as people write them, and shares of the memory."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcache_core import ConfigError
from quickcache_core.free_memory import memory_limit
from quickcache_core.sizes import bytes_of, in_words

GB = 10**9


def ten_gigabytes() -> int:
    return 10 * GB


def nothing_known() -> int:
    raise OSError("no /proc here")


@pytest.mark.parametrize(
    ("amount", "size"),
    [
        (1_000_000, 1_000_000),
        ("1000000", 1_000_000),
        ("5000000B", 5_000_000),
        ("256MB", 256_000_000),
        (" 256 mb ", 256_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("2tb", 2 * 10**12),
        ("10%", GB),
        (" 12.5 % ", 1_250_000_000),
        ("0.01%", 1_000_000),
        ("90%", 9 * GB),
    ],
)
def test_amounts(amount: int | str, size: int) -> None:
    """Bytes, units of a thousand and of 1024 in any case, and percentages of the memory."""
    assert bytes_of("max_bytes", amount, 1_000_000, ten_gigabytes) == size


@pytest.mark.parametrize(
    "amount",
    [
        *(None, True, 1.5e6, b"256MB", ["256MB"], range(3)),
        *(
            "",
            " ",
            "MB",
            "%",
            "much",
            "256 XB",
            "256MB of it",
            "-256MB",
            "1e9",
            "1_000_000",
            "0x100000",
            "nan",
        ),
        *("10%%", "%10", "10%MB", "-10%", "1e1%", "inf%"),
        *(0, -1, 999_999, "999999", "0.9MB"),
        *(sys.maxsize + 1, "9" * 400, "9" * 400 + "TB", 10**400),
    ],
    ids=lambda amount: repr(amount)[:30],
)
def test_no_amount(amount: Any) -> None:
    """Anything else, too little and more than there can be is refused with the name, the value and the way
    out.
    """
    with pytest.raises(ConfigError, match="give bytes as an integer or text such as '256MB'") as caught:
        bytes_of("max_bytes", amount, 1_000_000, ten_gigabytes)
    assert caught.value.field == "max_bytes"
    assert caught.value.value is amount
    assert "at least 1 MB" in caught.value.remedy
    assert "'10%'" in caught.value.remedy


@pytest.mark.parametrize("amount", ["0%", "0.0%", "90.1%", "100%", "9" * 400 + "%"])
def test_a_percentage_out_of_range(amount: str) -> None:
    """Nothing is no cache, and the program needs some of the memory for itself."""
    with pytest.raises(ConfigError, match=r"^max_bytes='.*': give a percentage above 0% and up to 90%$"):
        bytes_of("max_bytes", amount, 1_000_000, ten_gigabytes)


def test_a_percentage_of_too_little() -> None:
    """The error says what the percentage comes to here."""
    with pytest.raises(ConfigError) as caught:
        bytes_of("max_bytes", "0.005%", 1_000_000, ten_gigabytes)
    assert caught.value.remedy == "of 10 GB of memory that is 500 kB; give at least 1 MB"


def test_a_percentage_of_an_unknown_memory() -> None:
    """Where the system doesn't tell how much there is, bytes have to be given; they don't ask for it."""
    with pytest.raises(ConfigError, match="give bytes, such as '256MB'") as caught:
        bytes_of("max_bytes", "10%", 1_000_000, nothing_known)
    assert isinstance(caught.value.__cause__, OSError)
    assert bytes_of("max_bytes", "10MB", 1_000_000, nothing_known) == 10_000_000


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="this system doesn't tell")
def test_a_percentage_of_this_machine() -> None:
    """Unless told otherwise it is of the memory that this process may have."""
    assert bytes_of("max_bytes", "50%", 1) == memory_limit() // 2


@given(percentage=st.floats(0.001, 90), total=st.integers(10**6, 2**50))
def test_every_percentage(percentage: float, total: int) -> None:
    """It is what it says, to a byte, and never more than the memory."""
    size = bytes_of("max_bytes", f"{percentage:.6f}%", 0, lambda: total)
    assert size <= total
    assert abs(size - total * round(percentage, 6) / 100) <= 1 + total * 1e-12


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (67_000_000, "67 MB"), (1_500, "1.5 kB"), (2 * GB, "2 GB")],
)
def test_in_words(size: int, words: str) -> None:
    """Three digits are enough for a person."""
    assert in_words(size) == words
