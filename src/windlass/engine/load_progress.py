"""What is told of a model while it is loaded."""

from windlass.facts.plan import Plan
from windlass.facts.progress import Progress
from windlass.memory.process_memory import resident_bytes


def load_progress(done: int, total: int, seconds: float, plan: Plan | None) -> Progress:
    """`done` of `total` bytes of resident weights have come in `seconds`."""
    budget = plan.host_bill.budget if plan else 0
    rate = done / seconds if seconds else 0.0
    left = (total - done) / rate if rate else 0.0
    return Progress("load", done, total, seconds, 0.0, rate, 0.0, resident_bytes(), budget, left, 0)
