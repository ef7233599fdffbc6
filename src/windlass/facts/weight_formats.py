"""Formats of weights smaller than 16 bits, as plans imagine them."""

# Bits of a weight with its share of the scales: one of 16 bits for 32 weights, two of them for 64.
SMALLER_FORMATS = {"int8": 8.5, "int4": 4.5}
