"""Numbers as a report writes them: four significant digits, thousands apart, the unit behind; counts in full."""

import math

from windlass.units import format_bytes, format_seconds

NEVER = "never"
# Whole numbers up to here are counts, and 12288 is not 12,290.
COUNTED = 1e7


def number_text(value: float, plain: bool = False) -> str:
    """`0.009567`, `3.15e+23`, `1,398,000`; `plain` leaves the commas out, for arithmetic that can be pasted."""
    if math.isinf(value):
        return NEVER
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e12 or size < 1e-4:
        return f"{value:.4g}"
    if size < COUNTED and value == int(value):
        return f"{value:.0f}" if plain else f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(size)))
    rounded = round(value, 3 - math.floor(math.log10(size)))
    text = f"{rounded:.{digits}f}" if plain else f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count_text(value: float) -> str:
    """`70 billion`, `1.4 trillion`: sizes of models and of what they read."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if size <= value < 1e3 * size:
            return f"{number_text(value / size)} {word}"
    return number_text(value)


def quantity_text(value: float, unit: str) -> str:
    """With its unit; bytes and long times as people say them."""
    if math.isinf(value):
        return NEVER
    if unit == "bytes":
        return format_bytes(value)
    text = f"{number_text(value)} {unit}"
    return f"{text} ({format_seconds(value)})" if unit == "s" and value >= 120 else text
