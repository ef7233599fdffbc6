"""What is expected of a run on this machine: the seam between the engine, which measures, and whoever forecasts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.engine.target import Target
from windlass.facts.forecast import Forecast
from windlass.facts.link import Link
from windlass.facts.machine import Machine
from windlass.facts.machine_store import kept_machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.run_log import RunLog
from windlass.facts.work_done import WorkDone, forecast_of
from windlass.facts.workload import Workload
from windlass.planner import cost
from windlass.planner.correction import corrected
from windlass.settings import cache_folder


@dataclass(frozen=True, slots=True)
class Foresight:
    """`forecast` is asked with `machine`, whose name and corrections are kept with the run."""

    machine: Machine
    forecast: Callable[[ModelFacts, Plan, Machine, Workload], Forecast]

    def of(self, done: WorkDone, model: ModelFacts, plan: Plan) -> Forecast:
        """The forecast of work that has been done."""
        return forecast_of(done, lambda workload: self.forecast(model, plan, self.machine, workload))


def kept_foresight(folder: Path, target: Target) -> Foresight | None:
    """By the kept profile of this machine with the disk of `folder`, as runs have corrected it; None without one."""
    measured = kept_machine(folder)
    machine = None if measured is None else _with_device(measured, target)
    if machine is None:
        return None
    return Foresight(corrected(machine, RunLog(cache_folder()).last()), cost.forecast)


def _with_device(machine: Machine, target: Target) -> Machine | None:
    """The machine as a run on `target` meets it, or None where its device was not measured."""
    if target.simulated is not None:
        # The host computes for a device that is only pretended, behind a link of the rate that was asked for.
        rate = target.simulated.rate
        return replace(
            machine, device=machine.host, link=Link(rate, rate, 2 * rate, rate, rate, target.simulated.latency)
        )
    if target.beside_host:
        return machine if machine.device is not None and machine.link is not None else None
    return replace(machine, device=None, link=None)
