"""Whether a model would run at all: asked before it is packed, since hours of packing a broken one are lost."""

from pathlib import Path

from windlass.engine.opened_model import open_model, read_files


def check_runnable(source: Path) -> None:
    """Opens the model in the folder `source` as a run would, by its headers alone.

    Raises CheckpointError for tensors that are missing or of another shape than the config makes them, and all else
    that `open_model` does.
    """
    if source.is_dir():  # a GGUF file is no source of packing at all, which `planned` says
        open_model(read_files(source), source.name, "auto", None)
