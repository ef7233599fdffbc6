"""Begins a job, or takes it up again after making sure that it is still the same one."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from windlass.engine.foresight import known_foresight
from windlass.engine.llm import LLM
from windlass.errors import UsageError
from windlass.facts.job_identity import JobIdentity
from windlass.facts.sampling_facts import sampling_facts
from windlass.facts.sampling_params import SamplingParams
from windlass.facts.workload import Workload
from windlass.jobs.batch.journal import Journal
from windlass.jobs.batch.model_files import model_files
from windlass.model.hub import local_model
from windlass.planner.cost import forecast


def identity_of(
    llm: LLM,
    model: str,
    revision: str | None,
    formats: Mapping[str, object],
    defaults: SamplingParams,
    given: Collection[str] = (),
) -> JobIdentity:
    """What the answers of an opened model depend on; `formats` are the choices beside what its files say.

    `given` names the values that flags gave, where the model's own stand otherwise.

    Raises StorageError.
    """
    opened = llm.opened
    # A packed copy in the cache folder may be made again; what it was made of is the model.
    files = dict(model_files(local_model(model, revision) or opened.folder))
    chosen = {"dtype": opened.facts.dtype, "max_model_len": opened.facts.max_model_len}
    return JobIdentity(model, files, dict(formats) | chosen, sampling_facts(defaults), tuple(sorted(given)))


def agree(journal: Journal, identity: JobIdentity) -> None:
    """Notes the identity of a new job. Raises UsageError where one that goes on is not the same, saying in what."""
    known = journal.fact("identity")
    if known is None:
        journal.keep(identity=identity.as_json())
        return
    changes = identity.changes_since(JobIdentity.from_json(known))
    if changes:
        raise UsageError(
            f"since this job began, {'; '.join(changes)}: change it back to go on, or pass --restart to begin anew "
            f"without the {journal.counts().answered} answers there are"
        )


def outlook(llm: LLM) -> Callable[[Workload], float | None]:
    """Seconds that the loaded model is forecast to take for a workload; None where this machine was never measured."""
    foresight = known_foresight(Path(llm.opened.folder), llm.opened.target)

    def seconds(workload: Workload) -> float | None:
        if foresight is None:
            return None
        told = forecast(llm.opened.facts, llm.plan, foresight.machine, workload)
        return told.prefill.seconds + told.decode.seconds

    return seconds
