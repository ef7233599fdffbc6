"""The types that tensors of a GGUF file have: their names, the sizes of their blocks, and which are read here.

A type is a number in the file (`enum ggml_type` of ggml). The names of the plain ones are safetensors' too.
"""

from windlass.errors import UnsupportedModel
from windlass.facts.packing import Packing

GGUF_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""By the number in the file: (name, numbers of a block, bytes of a block)."""

PLAIN_TYPES = ("F32", "F16", "BF16", "F64")

# Type -> bits of a code, and how many neighbours share a scale.
_CODES = {
    "Q4_0": (4, 32), "Q4_1": (4, 32), "Q5_0": (5, 32), "Q5_1": (5, 32), "Q8_0": (8, 32), "Q2_K": (2, 16),
    "Q3_K": (3, 16), "Q4_K": (4, 32), "Q5_K": (5, 32), "Q6_K": (6, 16), "IQ4_NL": (4, 32), "IQ4_XS": (4, 32),
    "MXFP4": (4, 32), "F32": (32, 0), "F16": (16, 0), "BF16": (16, 0),
}  # fmt: skip
PACKINGS = {name: Packing(name, bits, group, row_step=1) for name, (bits, group) in _CODES.items()}
"""What is read, by type. A row is its blocks one after another, so rows can be cut anywhere."""

# What a model's maker offers beside a file of a type that is not read, by how the type's name begins.
_NEAREST = {
    "IQ1": "Q2_K", "IQ2": "Q2_K", "IQ3": "Q3_K_M", "TQ": "Q2_K", "Q1": "Q2_K", "NVFP4": "MXFP4 or Q4_K_M", "Q8": "Q8_0"
}  # fmt: skip


def packing_of(type_name: str, file: str, tensor: str) -> Packing:
    """The packing of a type. Raises UnsupportedModel for one that is not read."""
    packing = PACKINGS.get(type_name)
    if packing is None:
        nearest = next((near for start, near in _NEAREST.items() if type_name.startswith(start)), "Q4_K_M")
        raise UnsupportedModel(
            f"{file}: tensor {tensor} has the GGUF type {type_name}, which is not read yet; take the model's file of "
            f"the type {nearest}"
        )
    return packing
