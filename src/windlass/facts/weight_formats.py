"""Formats of weights smaller than 16 bits that `windlass quantize` writes."""

# Bits of a code; its share of scale and offset is half a bit more.
SMALLER_FORMATS = {"int8": 8, "int4": 4}
