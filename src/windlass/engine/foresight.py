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
from windlass.facts.work_done import WorkDone
from windlass.planner.correction import corrected
from windlass.planner.cost import forecast_of
from windlass.settings import cache_folder


@dataclass(frozen=True, slots=True)
class Foresight:
    """`forecast` is asked with `machine`, whose name and corrections are kept with the run."""

    machine: Machine
    forecast: Callable[[ModelFacts, Plan, Machine, WorkDone], Forecast]

    def of(self, done: WorkDone, model: ModelFacts, plan: Plan) -> Forecast:
        """The forecast of work that has been done."""
        return self.forecast(model, plan, self.machine, done)


def known_foresight(folder: Path, target: Target) -> Foresight | None:
    """By the profile that `windlass doctor` kept of this machine and the disk of `folder`, corrected by its runs.

    None where there is none, or where it knows nothing of the device: a run does not stop to measure for a minute.
    """
    machine = kept_machine(folder)
    if machine is not None and target.simulated is not None:
        rate, latency = target.simulated.rate, target.simulated.latency
        link = Link(rate, rate, 2 * rate, rate, rate, latency)
        machine = replace(machine, name=f"a simulated device on {machine.name}", device=machine.host, link=link)
    if machine is None or machine.disk.rate <= 0 or (target.beside_host and machine.device is None):
        return None
    return Foresight(corrected(machine, RunLog(cache_folder()).last()), forecast_of)
