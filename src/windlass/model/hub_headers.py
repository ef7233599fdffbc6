"""The headers of a model's weights on the hub, read without its weights: the first bytes of each file, by range.

They are kept in the cache folder by commit, each as the bytes with which its file begins. A server that does not know
ranges sends the whole file: no more of it is taken than was asked for.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelInfo, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from windlass.errors import CheckpointError
from windlass.facts.checkpoint_facts import INDEX_NAME, CheckpointFacts, checkpoint_of, read_checkpoint, read_index
from windlass.facts.safetensors_header import header_bytes, parse_header
from windlass.facts.tensor_fact import TensorFact
from windlass.model.hub import FAILURES, listed_files, listing, weight_files
from windlass.model.hub_refusal import hub_refusal
from windlass.settings import cache_folder
from windlass.units import KIB

# Most headers are shorter, and are known after one question.
FIRST_BYTES = 64 * KIB
_AT_ONCE = 8
_SIZES = "sizes.json"


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """`folder` holds the config.json of a model on the hub, `checkpoint` says where its tensors lie there."""

    folder: Path
    checkpoint: CheckpointFacts


def remote_model(name: str, revision: str | None) -> RemoteModel:
    """The config and the headers of a model on the hub; none of its weights is fetched, those in the cache are used.

    Raises ModelNotFound, CheckpointError and StorageError as `model_folder` does.
    """
    found = listing(name, revision)
    if isinstance(found, Path):
        return RemoteModel(found, _kept(name, found) or read_checkpoint(found))
    try:
        return _asked(name, revision, found)
    except FAILURES as error:
        raise hub_refusal(name, revision, error) from error


def _asked(name: str, revision: str | None, info: ModelInfo) -> RemoteModel:
    listed, commit = listed_files(name, info), str(info.sha)
    hf_hub_download(name, "config.json", revision=revision)  # asked for by name, so that it is found by name offline
    folder = Path(hf_hub_download(name, "config.json", revision=commit)).parent
    shards = [file for file in weight_files(name, info, sorted(listed)) if file != INDEX_NAME]
    absent = sorted(set(shards) - set(listed))
    if absent:
        raise CheckpointError(f"{name} lacks {', '.join(absent[:3])}, which its index names; choose another revision")
    if all(isinstance(try_to_load_from_cache(name, shard, revision=commit), str) for shard in shards):
        return RemoteModel(folder, read_checkpoint(folder))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        headers = list(pool.map(lambda shard: _header(name, commit, listed[shard]), shards))
    _keep(_place(name, commit) / _SIZES, json.dumps({shard: listed[shard].size or 0 for shard in shards}).encode())
    checkpoint = checkpoint_of(_page(name, commit), zip(shards, headers, strict=True), _index(folder))
    return RemoteModel(folder, checkpoint)


def _header(name: str, commit: str, file: RepoSibling) -> tuple[TensorFact, ...]:
    """The tensors of one shard, from what is kept or from the hub."""
    kept, address = _place(name, commit) / f"{file.rfilename}.header", f"{_page(name, commit)}/{file.rfilename}"
    size = file.size or 0
    if kept.is_file():
        return parse_header(address, kept.read_bytes(), size)
    beginning = _beginning(name, commit, file.rfilename, FIRST_BYTES)
    needed = header_bytes(address, beginning, size)
    if needed > len(beginning):
        beginning = _beginning(name, commit, file.rfilename, needed)
    facts = parse_header(address, beginning[:needed], size)
    _keep(kept, beginning[:needed])
    return facts


def _beginning(name: str, commit: str, file: str, nbytes: int) -> bytes:
    """The first `nbytes` of a file on the hub, or all of a shorter one."""
    headers = build_hf_headers() | {"Range": f"bytes=0-{nbytes - 1}", "Accept-Encoding": "identity"}
    url, found = hf_hub_url(name, file, revision=commit), bytearray()
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        for part in response.iter_bytes():
            found += part
            if len(found) >= nbytes:
                break  # of a whole file the rest is left on the way
    return bytes(found[:nbytes])


def _kept(name: str, folder: Path) -> CheckpointFacts | None:
    """The checkpoint by the headers kept of the commit whose snapshot is `folder`, None where some lack."""
    commit = folder.name
    place = _place(name, commit)
    try:
        sizes: Mapping[str, int] = json.loads((place / _SIZES).read_bytes())
        beginnings = {shard: (place / f"{shard}.header").read_bytes() for shard in sizes}
    except (OSError, ValueError):
        return None
    headers = [
        (shard, parse_header(f"{_page(name, commit)}/{shard}", beginning, sizes[shard]))
        for shard, beginning in beginnings.items()
    ]
    return checkpoint_of(_page(name, commit), headers, _index(folder))


def _index(folder: Path) -> Mapping[str, str]:
    return read_index(folder / INDEX_NAME) if (folder / INDEX_NAME).exists() else {}


def _place(name: str, commit: str) -> Path:
    return cache_folder() / "headers" / name.replace("/", "--") / commit


def _page(name: str, commit: str) -> str:
    return f"{constants.ENDPOINT}/{name}/resolve/{commit}"


def _keep(file: Path, content: bytes) -> None:
    """Written whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as half:
            half.write(content)
        os.replace(half.name, file)
    except OSError:
        return  # a cache that cannot be written costs a question next time, nothing else
