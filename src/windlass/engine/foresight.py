"""What is expected of a run on this machine: the seam between the engine, which measures, and whoever forecasts."""

from collections.abc import Callable
from dataclasses import dataclass

from windlass.facts.forecast import Forecast
from windlass.facts.machine import Machine
from windlass.facts.model_facts import ModelFacts
from windlass.facts.plan import Plan
from windlass.facts.work_done import WorkDone, forecast_of
from windlass.facts.workload import Workload


@dataclass(frozen=True, slots=True)
class Foresight:
    """`forecast` is asked with `machine`, whose name and corrections are kept with the run."""

    machine: Machine
    forecast: Callable[[ModelFacts, Plan, Machine, Workload], Forecast]

    def of(self, done: WorkDone, model: ModelFacts, plan: Plan) -> Forecast:
        """The forecast of work that has been done."""
        return forecast_of(done, lambda workload: self.forecast(model, plan, self.machine, workload))
