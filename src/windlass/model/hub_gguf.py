"""GGUF files on the hub: which one is meant by a name such as `org/model-GGUF:Q4_K_M` or `org/model/file.gguf`.

A repository holds one model in a dozen types, each in one file or a numbered set of files, here and there in a folder
of its own. Only the one that is meant is fetched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from windlass.errors import ModelNotFound
from windlass.facts.gguf_model import SUFFIX

_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?::(?P<kind>[\w.-]+)|/(?P<file>[^:]+\.gguf))")
_NUMBER = re.compile(r"-\d{5}-of-\d{5}$")
# What a file's name says of its type: F16, Q4_K_M, IQ4_XS, MXFP4, UD-Q4_K_XL.
_KIND = re.compile(r"(?:^|[-._/])((?:UD-)?(?:B?F16|F32|I?Q\d\w*|TQ\d\w*|MXFP4\w*))$", re.IGNORECASE)
_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubGguf:
    """A model of a `repository`: of a `kind`, or in a `file`; with neither, the only one there."""

    repository: str
    kind: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.repository + (f":{self.kind}" if self.kind else f"/{self.file}" if self.file else "")


def hub_gguf(name: str | Path) -> HubGguf | None:
    """What a name means if it is one of a GGUF file on the hub; None for any other name, and for a path."""
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or (match["file"] and Path(name).parent.is_dir()):
        return None
    return HubGguf(match["repository"], match["kind"], match["file"])


def holds_gguf_only(files: Sequence[str]) -> bool:
    """Whether the files of a repository are a GGUF model's."""
    return any(file.endswith(SUFFIX) for file in files) and not any(file.endswith(".safetensors") for file in files)


def gguf_files(wanted: HubGguf, files: Sequence[str]) -> list[str]:
    """The files, in order, that hold the model that is wanted, of those of its repository.

    Raises ModelNotFound where there is none or more than one, with what there is.
    """
    models: dict[str, list[str]] = {}
    for file in sorted(files):
        if file.endswith(SUFFIX) and not _PROJECTOR.search(PurePosixPath(file).name):
            models.setdefault(_NUMBER.sub("", file.removesuffix(SUFFIX)), []).append(file)
    found = {stem: group for stem, group in models.items() if _means(wanted, stem, group)}
    if len(found) == 1:
        return next(iter(found.values()))
    kinds = sorted({_kind(stem) or stem for stem in models})
    if not kinds:
        raise ModelNotFound(f"{wanted.repository} holds no GGUF file; leave out what follows the name")
    flaw = f"holds {len(found)} models like that" if found else "holds no such file"
    if wanted == HubGguf(wanted.repository):
        flaw = f"holds {len(models)} GGUF models"
    raise ModelNotFound(
        f"{wanted}: {wanted.repository} {flaw}; it has {', '.join(kinds[:12])}: write {wanted.repository}:{kinds[0]}"
    )


def _means(wanted: HubGguf, stem: str, group: Sequence[str]) -> bool:
    if wanted.file is not None:
        return wanted.file in group
    return wanted.kind is None or (_kind(stem) or "").upper() == wanted.kind.upper()


def _kind(stem: str) -> str | None:
    match = _KIND.search(stem)
    return match[1] if match else None
