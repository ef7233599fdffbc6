"""Measurements beside their limits and beside peers. `python -m benchmarks NAME --help` explains each."""
