"""What a model is called where it is known to others than its owner: a name that tells nothing of folders."""

import os
from pathlib import Path

_SNAPSHOTS = "snapshots"


def public_name(model: str) -> str:
    """The last part of a path that there is, and any other name, a hub id say, as it is.

    A snapshot in the hub's cache, whose last part is a commit, is called by its id.
    """
    path = Path(os.path.abspath(Path(model).expanduser()))  # links keep their names
    if not path.exists():
        return model
    repository = path.parent.parent.name
    if path.parent.name == _SNAPSHOTS and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return path.name or model
