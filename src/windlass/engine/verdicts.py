"""Which architectures are proven, by type, twin and transformers version; others are tried when first met."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import transformers
from transformers import PreTrainedConfig

from windlass.engine.trial import TOLERANCE, largest_difference
from windlass.engine.trial_failure import OWN_ATTENTION, reason_of, uses_attention_interface
from windlass.errors import ModelError, UnsupportedModel
from windlass.facts.verdict import Verdict
from windlass.model.shrink import FAILURES, CannotShrink, shrink
from windlass.settings import cache_folder

SHIPPED = Path(__file__).with_name("verdicts.json")
# Not part of what a model computes.
IGNORED = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def require_proven(config: PreTrainedConfig, unproven: bool) -> None:
    """Raises UnsupportedModel unless the config's architecture gives the right tokens here.

    `unproven` lets through a config of which no twin could be made, never one that was seen to differ.
    """
    verdict = verdict_of(config)
    if verdict.outcome == "proven" or (verdict.outcome == "cannot shrink" and unproven):
        return
    advice = "choose another model"
    if verdict.outcome == "cannot shrink":
        advice = "pass --unproven to run it all the same, at your own risk"
    raise UnsupportedModel(
        f"{config.model_type} is not proven to give the right tokens with transformers {transformers.__version__}: "
        f"{verdict.reason}; {advice}"
    )


def verdict_of(config: PreTrainedConfig) -> Verdict:
    """The verdict on a config's twin: shipped, kept from before, or made now and kept."""
    try:
        twin = shrink(config)
    except CannotShrink as error:
        return Verdict(config.model_type, "", transformers.__version__, "cannot shrink", str(error))
    fingerprint = fingerprint_of(twin)
    known = _shipped(config.model_type, fingerprint) or _kept(config.model_type, fingerprint)
    if known is not None:
        return known
    verdict = try_now(twin, fingerprint)
    _keep(verdict)
    return verdict


def try_now(twin: PreTrainedConfig, fingerprint: str) -> Verdict:
    """Runs the trial of a shrunken config.

    A full disk or missing memory says nothing of the architecture: such errors are raised, and no verdict is kept.
    """
    kind, version = twin.model_type, transformers.__version__
    try:
        difference, where = largest_difference(twin)
    except (ModelError, *FAILURES) as error:
        return Verdict(kind, fingerprint, version, "differs", reason_of(twin, error))
    if difference <= TOLERANCE:
        return Verdict(kind, fingerprint, version, "proven", f"log probabilities within {difference:.1e}")
    reason = f"log probabilities differ by {difference:.3g} ({where})"
    if not uses_attention_interface(twin):
        reason = f"{OWN_ATTENTION}; {reason}"
    return Verdict(kind, fingerprint, version, "differs", reason)


def fingerprint_of(twin: PreTrainedConfig) -> str:
    """A hash of everything in a shrunken config that a model computes with."""
    values = {key: value for key, value in twin.to_dict().items() if key not in IGNORED}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _shipped(model_type: str, fingerprint: str) -> Verdict | None:
    if not SHIPPED.is_file():
        return None
    for entry in json.loads(SHIPPED.read_text(encoding="utf-8")):
        verdict = Verdict(**entry)
        key = (verdict.model_type, verdict.fingerprint, verdict.transformers)
        if key == (model_type, fingerprint, transformers.__version__):
            return verdict
    return None


def _file(model_type: str, fingerprint: str) -> Path:
    return cache_folder() / "verdicts" / f"{model_type}-{fingerprint}-{transformers.__version__}.json"


def _kept(model_type: str, fingerprint: str) -> Verdict | None:
    try:
        return Verdict(**json.loads(_file(model_type, fingerprint).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # absent, or broken: it will be made again


def _keep(verdict: Verdict) -> None:
    file = _file(verdict.model_type, verdict.fingerprint)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(verdict)), encoding="utf-8")
    except OSError:
        return  # a cache that cannot be written costs a trial next time, nothing else
