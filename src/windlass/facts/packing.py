"""How the numbers of a matrix lie in fewer bits than a computation uses: the name of an encoding, and its sizes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packing:
    """One encoding of matrices (N, K) whose rows are multiplied with activations.

    `name` chooses the code that unpacks: "int4" and "int8" are Windlass's own blocks, GGUF's types go by GGUF's names
    ("Q4_K"), others by their format's ("awq", "gptq", "fp8", "mxfp4"). A code has `bits` bits; `group` columns share a
    scale (0 where that is said otherwise). Rows can be cut from the bytes at multiples of `row_step`; 0 means that they
    cannot, since a row's bytes do not lie together. `options` holds what else the code must know, by name.
    """

    name: str
    bits: int
    group: int
    row_step: int = 0
    options: tuple[tuple[str, int | float | str], ...] = ()

    def option(self, name: str, default: int | float | str = 0) -> int | float | str:
        """The value of an option, or the default where it is not set."""
        return dict(self.options).get(name, default)
