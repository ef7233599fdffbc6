"""Finds a model's folder or its GGUF file: a local one, or a snapshot of the Hugging Face hub in its ordinary cache.

Only what a model needs to run is fetched, never code and never pickles, and not a byte before it is known to fit the
disk. The hub's own variables apply (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT). What is in the cache runs when
the hub cannot be reached.
"""

import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import HFValidationError, validate_repo_id

from windlass.errors import CheckpointError, ModelNotFound, StorageError, UsageError
from windlass.facts.checkpoint_facts import INDEX_NAME, SINGLE_NAME, pickled_only, read_index
from windlass.facts.gguf_model import SUFFIX, gguf_in, is_gguf
from windlass.facts.packed_files import BEGUN, PARTIAL
from windlass.facts.progress import Progress
from windlass.model.download_watch import NoBar, watched
from windlass.model.hub_gguf import HubGguf, gguf_files, holds_gguf_only, hub_gguf
from windlass.model.hub_refusal import hub_refusal
from windlass.settings import stderr_is_terminal
from windlass.units import format_bytes

# Beside the weights: the config, and what a tokenizer may be made of. Code (*.py) is not among it on purpose.
SMALL_FILES = (
    "config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json",
    "tokenizer*.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json", "*.jinja", "*.model", "*.tiktoken",
)  # fmt: skip

# What a download may fail with. The hub's xet library reports some failures of the network as bare RuntimeError.
FAILURES = (HTTPError, OSError, RuntimeError)


def model_folder(
    model: str | Path, revision: str | None, on_progress: Callable[[Progress], None] | None = None
) -> Path:
    """The absolute folder or GGUF file of `model`: a path (`~` is the home folder), else a hub id, fetched if it has to
    be.

    `on_progress` hears of a download, in bytes; without it the hub draws its own bars where standard error is a
    terminal. Raises ModelNotFound, CheckpointError for a model without safetensors, StorageError when the disk of the
    cache is too small, UsageError for a revision of a folder.
    """
    found = local_model(model, revision)
    if found is not None:
        return found
    wanted = hub_gguf(model)
    name = wanted.repository if wanted else str(model)
    known = listing(name, revision)
    if isinstance(known, Path):
        return _gguf_fetched(wanted or HubGguf(name), known) or known
    listed = [file.rfilename for file in known.siblings or ()]
    if wanted is None and holds_gguf_only(listed):
        wanted = HubGguf(name)
    try:
        if wanted is not None:
            files = gguf_files(wanted, listed)
            return _download(name, revision, known, files, on_progress) / files[0]
        return _download(name, revision, known, _wanted_files(name, known), on_progress)
    except FAILURES as error:
        raise hub_refusal(name, revision, error) from error


def local_model(model: str | Path, revision: str | None) -> Path | None:
    """The absolute folder or GGUF file that `model` is, or that the folder holds alone; None for a hub id.

    Raises ModelNotFound, and UsageError for a revision.
    """
    path = Path(model).expanduser()
    is_file = is_gguf(path)
    if path.is_dir() or is_file:
        if revision is not None:
            kind = "file" if is_file else "folder"
            raise UsageError(f"{path} is a {kind}, which has no revision {revision!r}; leave the revision out")
        return path.absolute() if is_file or _has_safetensors(path) else gguf_in(path.absolute()) or path.absolute()
    begun = path.with_name(path.name + PARTIAL) if path.name else path
    if (begun / BEGUN).is_file():
        raise ModelNotFound(f"{begun} is a quantize that was stopped; give the same quantize command again")
    if hub_gguf(model) is None:
        _refuse_path(model, path)
    return None


def _has_safetensors(folder: Path) -> bool:
    return any(entry.name.endswith((".safetensors", INDEX_NAME)) for entry in folder.iterdir())


def listing(name: str, revision: str | None) -> ModelInfo | Path:
    """What the hub says of a model and its files, or the snapshot fetched earlier where the hub cannot be asked.

    Raises ModelNotFound where there is neither.
    """
    try:
        return HfApi().model_info(name, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except RevisionNotFoundError as error:
        raise hub_refusal(name, revision, error) from error
    except (HTTPError, OSError) as error:
        return _from_cache(name, revision, error)


def _refuse_path(model: str | Path, folder: Path) -> None:
    """Raises ModelNotFound for what can only have been meant as a path."""
    if folder.exists():
        raise ModelNotFound(f"{folder} is a file; give the folder that holds it together with its config.json")
    if folder.suffix == SUFFIX:
        raise ModelNotFound(f"there is no file {folder.absolute()}; check the path")
    name = str(model)
    try:
        validate_repo_id(name)
        is_id = isinstance(model, str) and not name.startswith(("~", "."))
    except HFValidationError:
        is_id = False
    if not is_id:
        raise ModelNotFound(
            f"there is no folder {folder.absolute()}; check the path, or give a Hugging Face id such as org/name"
        )


def _from_cache(name: str, revision: str | None, error: Exception) -> Path:
    """The snapshot fetched earlier, as the hub cannot be asked. Which weights it needs, its own index will tell."""
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["config.json"], local_files_only=True))
    except LocalEntryNotFoundError:
        raise hub_refusal(name, revision, error) from error


def _wanted_files(name: str, info: ModelInfo) -> list[str]:
    listed = listed_files(name, info)
    small = [file for file in listed if any(fnmatchcase(file, pattern) for pattern in SMALL_FILES)]
    return small + weight_files(name, info, sorted(listed))


def _gguf_fetched(wanted: HubGguf, snapshot: Path) -> Path | None:
    """The file of a model that was fetched earlier, None for a snapshot of another kind of model.

    Raises ModelNotFound where it holds other GGUF files.
    """
    files = [str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()]
    if wanted == HubGguf(wanted.repository) and not holds_gguf_only(files):
        return None
    return snapshot / gguf_files(wanted, files)[0]


def _download(
    name: str,
    revision: str | None,
    info: ModelInfo,
    wanted: Sequence[str],
    on_progress: Callable[[Progress], None] | None,
) -> Path:
    listed = {file.rfilename: file for file in info.siblings or ()}
    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")
    needed = sum(_missing_bytes(listed[file], blobs) for file in wanted if file in listed)
    _refuse_small_disk(name, needed)
    with watched(blobs, needed, on_progress):
        bar = None if on_progress is None and stderr_is_terminal() else NoBar
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted), tqdm_class=bar))


def listed_files(name: str, info: ModelInfo) -> dict[str, RepoSibling]:
    """The files of a model by name, folders of it aside. Raises CheckpointError for one without a config."""
    listed = {file.rfilename: file for file in info.siblings or () if "/" not in file.rfilename}
    if "config.json" not in listed:
        raise CheckpointError(
            f"{name} has no config.json among its {len(listed)} files, so it is not a model that transformers can "
            f"run; choose the repository of the model itself"
        )
    return listed


def weight_files(name: str, info: ModelInfo, files: Sequence[str]) -> list[str]:
    """The safetensors files that make the model, found as `read_checkpoint` will. Copies in other layouts stay away."""
    if SINGLE_NAME in files:
        return [SINGLE_NAME]
    if INDEX_NAME in files:
        index = read_index(Path(hf_hub_download(name, INDEX_NAME, revision=info.sha)))
        return [INDEX_NAME, *sorted(set(index.values()))]
    weights = [file for file in files if file.endswith(".safetensors")]
    if weights:
        return weights
    refusal = pickled_only(name, files, f"{name.rpartition('/')[2]}-safetensors")
    raise refusal or CheckpointError(
        f"{name} has no *.safetensors among its {len(files)} files; choose a repository with safetensors weights"
    )


def _missing_bytes(file: RepoSibling, blobs: Path) -> int:
    """What of a file is still to come. The cache names contents by their hash, whichever commits they belong to."""
    content = file.lfs.sha256 if file.lfs else file.blob_id
    return 0 if content and (blobs / content).exists() else file.size or 0


def _refuse_small_disk(name: str, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StorageError(
            f"{name} needs {format_bytes(needed)} more in {cache}, {format_bytes(free)} are free; "
            f"free {format_bytes(needed - free)} there, or set HF_HOME to a folder on a larger disk"
        )
