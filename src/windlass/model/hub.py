"""Finds a model's folder: a local one, or a snapshot of the Hugging Face hub in its ordinary cache."""

from pathlib import Path

from windlass.errors import ModelNotFound


def model_folder(model: str | Path, revision: str | None) -> Path:
    """The folder of `model`. Raises ModelNotFound."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.absolute()
    raise ModelNotFound(f"no folder {model}")
