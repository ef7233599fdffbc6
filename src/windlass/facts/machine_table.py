"""A machine in plain words: a table of its rates, and what they mean for models of the usual sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from windlass.facts.compute_rates import ComputeRates
from windlass.facts.machine import BUSY_SOURCE, Machine
from windlass.units import format_bytes, format_rate, format_seconds, format_size

ROWS = (1, 8, 64, 512, 4096)
GROUPS = (1, 4, 8)
PROMPTS = (64, 512, 2048)
MOST_SEQUENCES = 65536


@dataclass(frozen=True, slots=True)
class UsualModel:
    """A size that people know, in `itemsize` bytes a weight; `parameters` as published."""

    name: str
    parameters: int

    def nbytes(self, itemsize: int = 2) -> int:
        """Bytes of all weights."""
        return self.parameters * itemsize


# Llama 2 7B and Llama 3 70B as published.
USUAL = (UsualModel("7B", 6_738_415_616), UsualModel("70B", 70_553_706_496))


def machine_lines(machine: Machine) -> list[str]:
    """For people: rates in a table, then sentences."""
    places = [("host", machine.host)] + ([("device", machine.device)] if machine.device else [])
    lines = [line for place, rates in places for line in _place_lines(place, rates)]
    if machine.link is not None:
        link = machine.link
        lines += [
            f"link     {format_rate(link.upload)} to the device and {format_rate(link.download)} back from pinned "
            f"memory, {format_rate(link.both)} both at once",
            f"         {format_rate(link.upload_pageable)} and {format_rate(link.download_pageable)} unpinned",
        ]
    lines += [f"means    {line}" if not at else f"         {line}" for at, line in enumerate(_means(machine))]
    lines.append("figures  " + ", ".join([origin(machine), *filter(None, [machine.sources.get("matmul")])]))
    if BUSY_SOURCE in machine.sources:
        lines.append(f"warning  {machine.sources[BUSY_SOURCE]}")
    return lines


def rates_line(machine: Machine, dtype: str, rows: int) -> str:
    """The rates that a plan for a block of `rows` sequences stands on, in a line."""
    here = machine.compute
    told = [f"disk {format_rate(machine.disk.rate)}"] if machine.disk.rate else []
    if machine.link is not None:
        told.append(f"link {format_rate(machine.link.upload)}")
    told.append(f"memory {format_rate(here.memory_rate)}")
    curve = here.matmul.get(dtype)
    if curve is not None:
        told.append(f"{dtype} products {_flops(curve.at(rows))} at {rows} rows, {_flops(curve.best)} at most")
    return ", ".join(told)


def origin(machine: Machine) -> str:
    """`measured 2026-11-26`, or where else the figures come from."""
    return f"measured {machine.measured}" if machine.measured[:1].isdigit() else machine.measured


def seconds_a_pass(machine: Machine, nbytes: int) -> tuple[float, str]:
    """How long all weights take to come past, and what carries them slowest; (0.0, "") where nothing was measured."""
    carriers = [(machine.disk.rate, "this disk reads")]
    if machine.link is not None:
        carriers.append((machine.link.upload, "the link to the device carries"))
    rate, verb = min((carrier for carrier in carriers if carrier[0]), default=(0.0, ""))
    return (nbytes / rate, f"{verb} {format_rate(rate)}") if rate else (0.0, "")


def balanced_batch(rates: ComputeRates, dtype: str, nbytes: int, seconds: float) -> int | None:
    """The fewest sequences for which computing a pass over `nbytes` of weights takes `seconds`; None beyond 65,536.

    A pass gives each sequence a token, so a weight gives two operations to each.
    """
    curve = rates.matmul[dtype]
    itemsize = 4 if dtype == "float32" else 2

    def computing(sequences: int) -> float:
        return 2 * (nbytes / itemsize) * sequences / curve.at(sequences)

    low, high = 1, MOST_SEQUENCES
    if not curve.points or computing(high) < seconds:
        return None
    while low < high:
        middle = (low + high) // 2
        if computing(middle) >= seconds:
            high = middle
        else:
            low = middle + 1
    return low


def _place_lines(place: str, rates: ComputeRates) -> list[str]:
    copied = f", copied at {format_rate(rates.copy_rate)}" if rates.copy_rate else ""
    lines = [
        f"{place:<8} {rates.name}",
        f"         {format_size(rates.memory)} of memory, read at {format_rate(rates.memory_rate)}{copied}",
    ]
    table: list[Sequence[str]] = [("matrix products, rows", *map(str, ROWS))]
    table += [(f"  {dtype}", *(_flops(curve.at(rows)) for rows in ROWS)) for dtype, curve in rates.matmul.items()]
    table += [
        (f"  {name} weights", *(_flops(curve.at(rows)) for rows in ROWS)) for name, curve in rates.packed_matmul.items()
    ]
    table.append(("prefill attention, tokens", *map(str, PROMPTS)))
    table += [
        (f"  {dtype}", *(_flops(curve.at(tokens)) for tokens in PROMPTS))
        for dtype, curve in rates.prefill_attention.items()
    ]
    table.append(("decode attention, heads a key", *map(str, GROUPS)))
    table += [
        (f"  {dtype}", *(format_rate(curve.at(group)) for group in GROUPS))
        for dtype, curve in rates.decode_attention.items()
    ]
    lines += [f"         {line}" for line in _aligned(table)]
    lines.append(
        f"         a layer costs {rates.step_seconds * 1e3:.2f} ms however few the rows, and its rows pass at "
        f"{format_rate(rates.row_rate)} beside products and attention"
    )
    return lines


def _means(machine: Machine) -> Iterator[str]:
    """What a pass over a model larger than memory takes, and how many sequences make the waiting worth it."""
    rates = machine.compute
    dtype = "bfloat16" if "bfloat16" in rates.matmul else next(iter(rates.matmul), "")
    for model in USUAL:
        nbytes = model.nbytes(4 if dtype == "float32" else 2)
        needs = f"a {model.name} model in {dtype} needs {format_bytes(nbytes)} a pass"
        seconds, carried = seconds_a_pass(machine, nbytes)
        if not seconds or not dtype:
            yield f"{needs}; how fast it can be read was not measured"
            continue
        batch = balanced_batch(rates, dtype, nbytes, seconds)
        if batch is None:
            advice = f"batch as many sequences as fit: computing {MOST_SEQUENCES:,} still takes less"
        elif batch == 1:
            computing = 2 * model.parameters / rates.matmul[dtype].at(1)
            advice = f"computing takes longer even for one sequence ({format_seconds(computing)})"
        else:
            advice = f"batch at least {_rounded(batch):,} sequences"
        yield f"{needs}; {carried}, so {format_seconds(seconds)} a pass: {advice}"


def _rounded(count: int) -> int:
    """Up to two digits that count: the rates are not known better."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _flops(rate: float) -> str:
    """`412 GFLOP/s`, `6.20 TFLOP/s`."""
    value, unit = (rate / 1e12, "TFLOP/s") if rate >= 0.9995e12 else (rate / 1e9, "GFLOP/s")
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    first = max(len(row[0]) for row in table)
    others = max(len(cell) for row in table for cell in row[1:])
    return [row[0].ljust(first) + "".join(f"  {cell:>{others}}" for cell in row[1:]) for row in table]
