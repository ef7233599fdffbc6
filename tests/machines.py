"""A machine with round figures, and the least effort that measures one."""

from windlass.facts.compute_rates import ComputeRates
from windlass.facts.disk_profile import DiskProfile
from windlass.facts.machine import Machine
from windlass.facts.rate_curve import RateCurve
from windlass.units import GIB, MIB

HOST = ComputeRates(
    name="AMD EPYC",
    memory=24 * GIB,
    memory_rate=2e10,
    matmul={"bfloat16": RateCurve(((1, 1e10), (64, 1.2e11), (512, 4e11)))},
    prefill_attention={"bfloat16": RateCurve(((64, 3e10), (512, 5e10)))},
    decode_attention={"bfloat16": RateCurve(((1, 8e9), (8, 4e9)))},
    step_seconds=4e-4,
    row_rate=5e8,
    copy_rate=9e9,
)
DISK = DiskProfile(2.6e9, 8 * MIB, 4, True, "direct I/O: the filesystem takes O_DIRECT")
MACHINE = Machine(
    name="AMD EPYC, 2 cores",
    measured="2026-11-26",
    cores=2,
    host=HOST,
    disk=DISK,
    disk_write=1.5e9,
    process_bytes=400 * MIB,
    sources={"matmul": "torch 2.13.0, 2 threads"},
    corrections={"disk": 0.9},
)
