"""Packed copies of models in the cache folder: made where weights stream, used from then on.

A copy belongs to the very files it was made of (their sizes and times) and to the format. It is removed by hand: the
folder says what it is. A model that stays in memory is packed while it is loaded instead.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from windlass.engine.opened_model import ModelFiles, read_files
from windlass.engine.packing.folder import finished
from windlass.engine.packing.while_loading import PackedWhileLoading
from windlass.engine.packing.work import PackingWork, planned
from windlass.errors import StorageError, UsageError
from windlass.facts.checkpoint_facts import CheckpointFacts
from windlass.facts.config_values import read_config_values
from windlass.facts.packed_checkpoint import packed_checkpoint, quantisation_of
from windlass.facts.packed_files import tensor_facts
from windlass.facts.progress import Progress
from windlass.kernels.packed_product import prepare_products
from windlass.kernels.quantiser import packer_name
from windlass.settings import cache_folder


def files_run_as(
    to: str | None, files: ModelFiles, on_progress: Callable[[Progress], None] | None
) -> ModelFiles:  # fmt: skip
    """The files of the model packed as `to`, there or yet to be made; `files` themselves for None.

    Raises UsageError for a model that is packed in another way.
    """
    if to is None or is_packed_as(files.folder, to):
        return files
    work = copy_of(files.folder, to)
    if work.target.is_dir() and finished(work.target) is not None:
        return read_files(work.target)
    # Compilers may run, so before the budget's memory is taken.
    prepare_products()
    packer_name()
    facts = CheckpointFacts(str(work.target), tensor_facts(work.files, work.target))
    checkpoint = packed_checkpoint(work.target, work.config, lambda: facts)
    unwritten = PackedWhileLoading(work, on_progress or _unheard)
    return replace(files, checkpoint=checkpoint, made=unwritten, weights_folder=work.target)


def copy_of(source: Path, to: str) -> PackingWork:
    """The work of making the copy of the model `source` packed as `to`, in the cache folder, which is made.

    Raises UnsupportedModel, CheckpointError, and StorageError where there can be no cache folder.
    """
    folder = cache_folder() / "packed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror}; set WINDLASS_CACHE to a folder") from error
    work = planned(source, folder / "copy", to)
    return replace(work, target=folder / f"{source.name}-{to}-{work.identity['source']}")


def is_packed_as(source: Path, to: str) -> bool:
    """Whether the model is packed as `to` already. Raises UsageError where it is packed in another way."""
    if source.is_file():
        raise UsageError(f"{source} is a GGUF file, which runs as it is; leave the quantization {to} out")
    settings = quantisation_of(read_config_values(source))
    if settings is None:
        return False
    own = settings.get("quant_method") == "windlass"
    if own and f"int{settings.get('bits')}" == to:
        return True
    is_now = f"int{settings.get('bits')}" if own else "another format"
    raise UsageError(
        f"{source} is packed already ({settings.get('quant_method')}, {is_now}); packing it as {to} would round "
        "it twice; leave the quantization out to run the model as it is, or name the model in bfloat16 or float16"
    )


def _unheard(event: Progress) -> None:
    """Nobody listens."""
