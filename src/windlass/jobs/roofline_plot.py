"""A roofline picture of a machine: what its memories, disk and link allow, and where a model's operations lie.

Across: operations for each byte of weights that is read, so that a pass over more rows lies further right. Up: rate.
Williams, Waterman and Patterson, Roofline (2009).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from windlass.errors import StorageError
from windlass.facts.compute_rates import ComputeRates
from windlass.facts.machine import Machine
from windlass.facts.machine_table import origin
from windlass.units import format_rate

# Rows of the model's operations that are shown.
OPERATIONS = ((1, "decode,\n1 sequence"), (8, "decode,\n8 sequences"), (64, "decode,\n64 sequences"),
              (512, "prefill,\n512 tokens"))  # fmt: skip
LEAST = 0.5
HOST, DEVICE, LINK, DISK = "#1f5fa8", "#2a7f3f", "#8a5fb0", "#b5452c"


@dataclass(frozen=True, slots=True)
class Slope:
    """A carrier of weights at `rate` bytes/s, up to `top` operations a second; named at `x`, above it or below."""

    name: str
    rate: float
    colour: str
    top: float
    x: float
    above: bool


def draw_roofline(machine: Machine, file: Path) -> None:
    """Writes the picture, in the format that the file's name ends in. Raises StorageError."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots()
    dtype = "bfloat16" if "bfloat16" in machine.compute.matmul else next(iter(machine.compute.matmul))
    _prepare(axes, machine, dtype)
    places = [(machine.host, HOST)] + ([(machine.device, DEVICE)] if machine.device else [])
    best = max(rates.matmul[dtype].best for rates, _ in places)
    slopes = _slopes(machine, dtype)
    # Beyond the last bend there is room for the names of the roofs.
    axes.set_xlim(LEAST, 30 * max(OPERATIONS[-1][0], *(slope.top / slope.rate for slope in slopes)))
    axes.set_ylim(0.7 * min(slope.rate for slope in slopes) * LEAST, 6 * best)
    # The layout must be settled before the angle of a slope can be known.
    figure.draw_without_rendering()
    for slope in slopes:
        _draw_slope(axes, slope)
    for rates, colour in places:
        _draw_roof(axes, rates, dtype, colour)
    _draw_operations(axes, machine, dtype)
    axes.legend(loc="lower right", frameon=True, framealpha=1.0, edgecolor="#cccccc", fontsize=9)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}; name another file with --plot") from error


def _prepare(axes: Axes, machine: Machine, dtype: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations for each byte of weights read (a row of a pass adds 2 a weight)")
    axes.set_ylabel("rate of matrix products")
    axes.set_title(f"{machine.name}\nmatrix products in {dtype}; {origin(machine)}", fontsize=10.5, loc="left")
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_formatter(lambda value, _: f"{_operations(value)}/s")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1 else f"{value:,.0f}")


def _slopes(machine: Machine, dtype: str) -> list[Slope]:
    """Memory feeds what computes beside it; disk and link feed where the model computes."""
    first, second, third = _between(dtype)
    top = machine.compute.matmul[dtype].best
    slopes = [Slope("host memory", machine.host.memory_rate, HOST, machine.host.matmul[dtype].best, first, True)]
    if machine.device is not None:
        slopes.append(Slope("device memory", machine.device.memory_rate, DEVICE, top, first, True))
    if machine.link is not None:
        slopes.append(Slope("link to the device", machine.link.upload, LINK, top, third, False))
    if machine.disk.rate:
        slopes.append(Slope("disk", machine.disk.rate, DISK, top, second, False))
    return slopes


def _between(dtype: str) -> list[float]:
    """Where no operation is drawn: half way from each to the next."""
    at = [_intensity(rows, dtype) for rows, _ in OPERATIONS]
    return [math.sqrt(one * other) for one, other in zip(at, at[1:], strict=False)]


def _intensity(rows: int, dtype: str) -> float:
    return 2 * rows / (4 if dtype == "float32" else 2)


def _draw_slope(axes: Axes, slope: Slope) -> None:
    end = slope.top / slope.rate
    ends = [(LEAST, LEAST * slope.rate), (end, slope.top)]
    axes.plot(*zip(*ends, strict=True), color=slope.colour, linewidth=1.6, zorder=2)
    (left, low), (right, high) = axes.transData.transform(ends)
    axes.annotate(
        f"{slope.name} {format_rate(slope.rate)}",
        (slope.x, slope.x * slope.rate),
        xytext=(-5, 5) if slope.above else (5, -5),
        textcoords="offset points",
        rotation=math.degrees(math.atan2(high - low, right - left)),
        rotation_mode="anchor",
        ha="center",
        va="bottom" if slope.above else "top",
        fontsize=9,
        color=slope.colour,
    )


def _draw_roof(axes: Axes, rates: ComputeRates, dtype: str, colour: str) -> None:
    best = rates.matmul[dtype].best
    right = axes.get_xlim()[1]
    axes.plot([best / rates.memory_rate, right], [best, best], color=colour, linewidth=1.6, zorder=2)
    axes.annotate(
        f"{rates.name}: {_operations(best)}/s",
        (right, best),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
        color=colour,
    )


def _draw_operations(axes: Axes, machine: Machine, dtype: str) -> None:
    """Filled: weights lie where the model computes. Hollow: they are read from disk, once a pass."""
    rates = machine.compute
    colour = DEVICE if machine.device else HOST
    intensities = [_intensity(rows, dtype) for rows, _ in OPERATIONS]
    speeds = [rates.matmul[dtype].at(rows) for rows, _ in OPERATIONS]
    axes.plot(intensities, speeds, "o", color=colour, markersize=8, zorder=4, label="weights in memory")
    carried = min([machine.disk.rate] + ([machine.link.upload] if machine.link else []))
    if carried:
        streamed = [min(speed, carried * x) for speed, x in zip(speeds, intensities, strict=True)]
        axes.plot(
            intensities, streamed, "o", markerfacecolor="none", markeredgecolor=DISK, markeredgewidth=1.8,
            markersize=11, zorder=5, label="weights read from disk every pass",
        )  # fmt: skip
    for (_, name), x in zip(OPERATIONS, intensities, strict=True):
        axes.axvline(x, color="#b0b0b0", linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            name, (x, 1), xycoords=("data", "axes fraction"), xytext=(4, -2), textcoords="offset points", ha="left",
            va="top", fontsize=9, color="#444444",
        )  # fmt: skip


def _operations(value: float) -> str:
    """`400 GFLOP`, `1 TFLOP`."""
    for factor, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} FLOP"
