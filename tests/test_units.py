"""Sizes, rates and times: what is parsed, what is refused, and that what is printed can be trusted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import UsageError
from windlass.units import (
    GIB,
    KIB,
    MIB,
    format_bytes,
    format_rate,
    format_seconds,
    format_size,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8g", 8 * GIB),
        ("2500M", 2500 * MIB),
        (" 512 MiB ", 512 * MIB),
        ("64kib", 64 * KIB),
        ("1.5GB", 1_500_000_000),
        ("0.5 TiB", 512 * GIB),
        ("6MB", 6_000_000),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "8 GiBs", "8XB", "-8GiB", "1e9", "8,5GiB", "8GiB 2", "nan", "inf"])
def test_text_that_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size; write it as 8GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", [0, -1, "0", "0GiB", "0.4B"])
def test_a_size_of_nothing_is_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match="must be positive"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=10**30))
def test_a_number_of_bytes_is_kept_exactly_however_large(size: int) -> None:
    assert parse_size(str(size)) == parse_size(size) == size


@given(st.integers(min_value=1, max_value=10**15))
def test_a_printed_size_reads_back_within_half_a_percent(size: int) -> None:
    for printed in (format_size(size), format_bytes(size)):
        assert parse_size(printed) == pytest.approx(size, rel=0.0051)


@given(st.floats(min_value=0, max_value=1e15))
def test_a_printed_size_never_reaches_the_next_unit_nor_uses_exponents(size: float) -> None:
    binary, decimal = format_size(size), format_bytes(size)
    assert "e" not in binary + decimal
    assert float(binary.split()[0]) < 1024 or binary.endswith("TiB")
    assert float(decimal.split()[0]) < 1000 or decimal.endswith("TB")


@pytest.mark.parametrize(
    ("size", "binary", "decimal"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1536, "1.50 KiB", "1.54 kB"),
        (GIB - 1, "1.00 GiB", "1.07 GB"),
        (1000 * MIB, "1000 MiB", "1.05 GB"),
        (6_030_000_000, "5.62 GiB", "6.03 GB"),
        (24 * GIB, "24.0 GiB", "25.8 GB"),
        (-512 * MIB, "-512 MiB", "-537 MB"),
    ],
)
def test_sizes_have_three_digits_in_binary_and_decimal_units(size: int, binary: str, decimal: str) -> None:
    assert (format_size(size), format_bytes(size)) == (binary, decimal)


def test_a_rate_is_decimal() -> None:
    assert format_rate(2.65e9) == "2.65 GB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.354, "0.35 s"),
        (9.999, "10.0 s"),
        (12.34, "12.3 s"),
        (59.99, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.9, "1 h 00 min"),
        (3 * 3600 + 600, "3 h 10 min"),
    ],
)
def test_a_time_is_written_in_the_units_a_person_would_use(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
