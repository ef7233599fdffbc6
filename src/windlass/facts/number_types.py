"""The number types of checkpoints and computation by name, so that sizes are known without torch."""

from windlass.errors import UsageError

# safetensors' name -> torch's. What is missing here (F6_E2M3, F6_E3M2) no torch can hold.
TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
STORED_NAMES = {torch_name: name for name, torch_name in TORCH_NAMES.items()}

# Bytes of a number, of the types that a model computes with and of those that its buffers may have.
ITEM_BYTES = {
    "float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "bool": 1,
    "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8, "complex64": 8,
}  # fmt: skip
COMPUTED_IN = ("float32", "bfloat16", "float16")


def computed_in(asked: str, stored: str) -> str:
    """The dtype to compute in: `asked`, or for "auto" that of the weights (`stored`, safetensors' name).

    Raises UsageError for one that is not known.
    """
    if asked == "auto":
        own = TORCH_NAMES.get(stored, "")
        return own if own in COMPUTED_IN else "float32"
    if asked not in COMPUTED_IN:
        raise UsageError(f"dtype {asked!r} is not known; choose one of auto, {', '.join(COMPUTED_IN)}")
    return asked


def is_floating(stored: str) -> bool:
    """Whether safetensors' `stored` is a floating-point type."""
    return stored.startswith(("F", "BF"))
