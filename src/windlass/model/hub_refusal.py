"""Turns what went wrong between us and the hub into one error that says what to do about it."""

import errno

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from windlass.errors import ModelNotFound, StorageError, WindlassError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_REFUSED = {401, 403}


def hub_refusal(name: str, revision: str | None, error: BaseException) -> WindlassError:
    """The error to raise for `error`, met while the model `name` was asked for or fetched."""
    page = f"{constants.ENDPOINT}/{name}"
    match error:
        case LocalEntryNotFoundError() if error.__cause__ is not None:
            return hub_refusal(name, revision, error.__cause__)
        case GatedRepoError():
            return ModelNotFound(
                f"{name} is gated and {_who()} may not fetch it; accept its licence at {page}, then set HF_TOKEN to a "
                f"token of that account (or run `hf auth login`)"
            )
        case RepositoryNotFoundError():
            return ModelNotFound(
                f"{name} is neither a folder here nor a model on {constants.ENDPOINT} that {_who()} may see; check "
                f"the spelling, or set HF_TOKEN if the model is private"
            )
        case RevisionNotFoundError():
            return ModelNotFound(
                f"{name} has no revision {revision!r}; see {page}/tree/main for its branches and tags, or leave the "
                f"revision out"
            )
        case OfflineModeIsEnabled():
            return ModelNotFound(
                f"{name}{_at(revision)} is neither a folder here nor in the cache {constants.HF_HUB_CACHE}, and "
                f"HF_HUB_OFFLINE forbids to fetch it; unset HF_HUB_OFFLINE, or give a local folder"
            )
        case HfHubHTTPError() if error.response.status_code in _REFUSED:
            return ModelNotFound(
                f"{page} refuses {_who()} ({_first_line(error)}); check HF_TOKEN and what its account may read"
            )
        case OSError() if error.errno in _FULL | _READ_ONLY:
            return _unwritable(name, error)
    here = "" if "/" in name else f"there is no folder {name} here, and "
    return ModelNotFound(
        f"{here}{name}{_at(revision)} could not be fetched from {constants.ENDPOINT} ({_first_line(error)}) and is not "
        f"whole in the cache {constants.HF_HUB_CACHE}; check the network and run again: files that came are kept"
    )


def _unwritable(name: str, error: OSError) -> StorageError:
    flaw = "is full" if error.errno in _FULL else f"cannot be written ({error.strerror})"
    return StorageError(
        f"the cache {constants.HF_HUB_CACHE} {flaw}, so {name} could not be fetched; "
        f"make room there, or set HF_HOME to a folder on another disk"
    )


def _who() -> str:
    return "the account of HF_TOKEN" if get_token() else "a visitor without a token"


def _at(revision: str | None) -> str:
    return f" at {revision}" if revision else ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
