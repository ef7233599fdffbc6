"""Packed copies of models in the cache folder: made when one is first asked for, used from then on.

A copy belongs to the very files it was made of (their sizes and times) and to the format. It is removed by hand: the
folder says what it is.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from windlass.engine.opened_model import ModelFiles, read_files
from windlass.engine.packing.folder import finished
from windlass.engine.packing.pack import quantize
from windlass.engine.packing.work import planned
from windlass.errors import StorageError, UsageError
from windlass.facts.config_values import read_config_values
from windlass.facts.packed_checkpoint import quantisation_of
from windlass.facts.progress import Progress
from windlass.settings import cache_folder
from windlass.units import format_bytes

LOG = logging.getLogger("windlass")


def files_run_as(
    to: str | None, files: ModelFiles, on_progress: Callable[[Progress], None] | None
) -> ModelFiles:  # fmt: skip
    """The files of the model packed as `to`; `files` themselves for None."""
    return files if to is None else read_files(packed_copy(files.folder, to, on_progress))


def packed_copy(source: Path, to: str, on_progress: Callable[[Progress], None] | None) -> Path:
    """The folder of the model `source` packed as `to`; the model itself where it is packed so already.

    Raises UsageError for a model that is packed in another way, StorageError where the copy has no room.
    """
    if source.is_file():
        raise UsageError(f"{source} is a GGUF file, which runs as it is; leave quantization={to!r} out")
    settings = quantisation_of(read_config_values(source))
    if settings is not None:
        own = settings.get("quant_method") == "windlass" and f"int{settings.get('bits')}" == to
        if own:
            return source
        is_now = f"int{settings.get('bits')}" if settings.get("quant_method") == "windlass" else "another format"
        raise UsageError(
            f"{source} is packed already ({settings.get('quant_method')}, {is_now}); quantization={to!r} would round "
            "it twice; leave it out to run the model as it is, or name the model in bfloat16 or float16"
        )
    folder = cache_folder() / "packed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; set WINDLASS_CACHE to a folder") from error
    work = planned(source, folder / "copy", to)
    target = folder / f"{source.name}-{to}-{work.identity['source']}"
    if target.is_dir() and finished(target) is not None:
        return target
    LOG.warning(
        "packing %s as %s, once: the copy of %s is kept in %s; remove that folder when it is no longer wanted",
        source, to, format_bytes(work.nbytes), target,
    )  # fmt: skip
    quantize(source, target, to, on_progress or _unheard)
    return target


def _unheard(event: Progress) -> None:
    """Nobody listens."""
