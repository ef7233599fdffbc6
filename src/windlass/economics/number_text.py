"""Numbers as a report writes them: four significant digits, thousands apart, the unit behind."""

import math

from windlass.units import format_bytes, format_seconds

NEVER = "never"


def number_text(value: float, plain: bool = False) -> str:
    """`0.009567`, `3.15e+23`, `1,398,000`; `plain` leaves the commas out, for arithmetic that can be pasted."""
    if math.isinf(value):
        return NEVER
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e12 or size < 1e-4:
        return f"{value:.4g}"
    digits = max(0, 3 - math.floor(math.log10(size)))
    rounded = round(value, 3 - math.floor(math.log10(size)))
    text = f"{rounded:.{digits}f}" if plain else f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity_text(value: float, unit: str) -> str:
    """With its unit; bytes and long times as people say them."""
    if math.isinf(value):
        return NEVER
    if unit == "bytes":
        return format_bytes(value)
    text = f"{number_text(value)} {unit}"
    return f"{text} ({format_seconds(value)})" if unit == "s" and value >= 120 else text
