"""Whether an architecture is proven to give the right tokens here."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["proven", "differs", "cannot shrink"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial of one model type. `fingerprint` is the hash of the shrunken config that was tried.

    `reason` says what differed, or why no twin could be made; for a proven type, how close it came.
    """

    model_type: str
    fingerprint: str
    transformers: str
    outcome: Outcome
    reason: str
