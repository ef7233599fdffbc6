"""What a model's config.json says, as plain values. Most of what it leaves out only transformers knows."""

import json
from pathlib import Path
from typing import Any

from windlass.errors import CheckpointError


def read_config_values(folder: Path) -> dict[str, Any]:
    """The values of the config.json in `folder`, of which `model_type` is a string.

    Raises CheckpointError for a file that is missing, broken, or no model's config.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json; give the folder of a model, as save_pretrained writes it")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; fetch the file again") from error
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(model_type, str):
        raise CheckpointError(f"{path} gives no model_type, found {model_type!r}; fetch the config of the model itself")
    return dict(content)
