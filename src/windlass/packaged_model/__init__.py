"""A small language model inside the package, so that there is a real one to run where there is no network.

README.md beside this file is its model card; dev/train_packaged_model.py makes it.
"""

from importlib.resources import files
from pathlib import Path

NAME = "windlass-verse"
"""What it is called where a model needs a name."""


def packaged_model_folder() -> Path:
    """The folder of the checkpoint: config, weights and tokenizer as transformers writes them."""
    return Path(str(files(__name__)))
