"""Keeps what a run showed, so that the next forecast on this machine is better."""

import logging
from datetime import datetime, timezone

from windlass.errors import StorageError
from windlass.facts.kept_run import KeptRun
from windlass.facts.machine import Machine
from windlass.facts.plan import Plan
from windlass.facts.run_log import RunLog
from windlass.facts.run_report import RunReport
from windlass.settings import cache_folder

LOG = logging.getLogger("windlass")


def keep(report: RunReport, model: str, plan: Plan, machine: Machine) -> None:
    """Adds a run to the log, if it did anything that was forecast. A log that cannot be written costs a warning."""
    promise = report.promise
    if promise is None or not promise.phases:
        return
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    run = KeptRun(date, model, plan.summary(), machine.name, machine.measured, dict(machine.corrections), promise)
    try:
        RunLog(cache_folder()).append(run)
    except StorageError as error:
        LOG.warning("%s", error)
