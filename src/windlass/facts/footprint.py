"""What a run of a model holds and takes beside weights, keys and values, measured on this machine before it is run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes. `process_bytes` are held once the model is open: interpreter, libraries, tokenizer, the model's classes.

    `activations` are the temporaries of the largest layer for a micro-batch of `width` tokens; `rows_held` says how
    many hidden rows the model's own forward keeps alive.
    """

    process_bytes: int
    activations: int
    width: int
    rows_held: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Footprint":
        """Reads what as_json gave. Raises KeyError, TypeError and ValueError for anything else."""
        held, taken, width = (int(values[name]) for name in ("process_bytes", "activations", "width"))
        return cls(held, taken, width, float(values["rows_held"]))
