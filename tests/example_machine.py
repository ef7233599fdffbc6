"""A machine for tests of what is forecast and kept: its figures are round, and nobody's."""

from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine import Machine

RATES = ComputeRates("cores", 1 << 30, 1e9, {}, {}, {}, 0.0, 1e9)
MACHINE = Machine("box", "2026-11-01", 2, RATES, DiskProfile(2e9, 1 << 20, 8, True, "direct"), 1e9, 1 << 28)
