"""What machines and APIs cost, from the data files; what is not known there is left out, and asked for with --set."""

from windlass.economics.assumption import Assumption
from windlass.economics.assumption_sets import by_name, content


def machine_prices(device: str) -> dict[str, Assumption]:
    """`card_watts`, and `rent_per_hour` and `card_price` where they are known, of a device of the catalogue."""
    return _assumptions("machines", device)


def api_prices(model: str) -> dict[str, Assumption]:
    """`api_input` and `api_output` of a known shape, in USD a million tokens; nothing where none is known."""
    return _assumptions("apis", model)


def _assumptions(file: str, name: str) -> dict[str, Assumption]:
    entries = {entry["name"]: entry for entry in content(file)}
    return by_name(entries[name]["assumptions"], f"{file}.json") if name in entries else {}
