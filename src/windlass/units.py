"""Sizes, rates and times as people write them: `24GiB`, `18.3 GB/s`, `2 min 05 s`.

Budgets are binary (GiB, as memory is sold and counted); rates and file sizes are decimal (GB/s, as disks are).
"""

import re
from fractions import Fraction

from windlass.errors import UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

_FACTORS = {
    "": 1, "B": 1,
    "K": KIB, "KIB": KIB, "KB": 10**3,
    "M": MIB, "MIB": MIB, "MB": 10**6,
    "G": GIB, "GIB": GIB, "GB": 10**9,
    "T": 1 << 40, "TIB": 1 << 40, "TB": 10**12,
}  # fmt: skip


def parse_size(text: str | int) -> int:
    """`"8GiB"`, `"2500M"`, `"1.5GB"` or a plain number of bytes -> bytes. Raises UsageError otherwise."""
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise UsageError(f"{text!r} is not a size; write it as 8GiB, 512MiB or a whole number of bytes")
    if isinstance(text, int):
        if text <= 0:
            raise UsageError(f"a size must be positive, got {text}; write it as 8GiB")
        return text
    match = re.fullmatch(r"\s*([0-9]{1,60}(?:\.[0-9]{1,60})?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _FACTORS:
        raise UsageError(f"{text!r:.60} is not a size; write it as 8GiB, 512MiB or a number of bytes")
    size = int(Fraction(match[1]) * _FACTORS[match[2].upper()])
    if size <= 0:
        raise UsageError(f"a size must be positive, got {text!r}; write it as 8GiB")
    return size


def parse_rate(text: str) -> float:
    """`"2GB/s"` -> bytes a second. Raises UsageError."""
    if not text.endswith("/s"):
        raise UsageError(f"{text!r} is not a rate; write it as 2GB/s")
    return float(parse_size(text.removesuffix("/s")))


def parse_seconds(text: str) -> float:
    """`"20us"`, `"1.5ms"`, `"2s"` or `"0"` -> seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|)", text)
    if match is None or (not match[2] and float(match[1])):
        raise UsageError(f"{text!r} is not a time; write it as 20us, 1.5ms or 2s")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 0.0}[match[2]]


def format_size(nbytes: float) -> str:
    """Binary size with three significant digits: `1.50 GiB`."""
    return _scaled(nbytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def format_bytes(nbytes: float) -> str:
    """Decimal size, as disks and files are counted: `6.03 GB`."""
    return _scaled(nbytes, 1000, ("B", "kB", "MB", "GB", "TB"))


def _scaled(nbytes: float, base: int, units: tuple[str, ...]) -> str:
    """In the largest unit that leaves at least 1 after rounding, whole when that unit is the byte."""
    value, place = float(nbytes), 0
    while abs(value) >= base - 0.5 and place < len(units) - 1:
        value, place = value / base, place + 1
    digits = 0 if place == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {units[place]}"


def format_rate(bytes_per_second: float) -> str:
    """Decimal rate: `2.65 GB/s`."""
    return f"{format_bytes(bytes_per_second)}/s"


def format_seconds(seconds: float) -> str:
    """`0.35 s`, `12.3 s`, `2 min 05 s`, `3 h 10 min`."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
