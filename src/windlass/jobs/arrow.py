"""The door to pyarrow, which an extra brings: it is imported where a Parquet file is named, and only there."""

import importlib.util
from typing import Any

from windlass.errors import UsageError


def load_arrow(path: str) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. `path` is what asks for them. Raises UsageError where there are none."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(
            f"{path} is Parquet, which needs pyarrow, and that is not installed; pip install 'windlass[tables]', "
            f"or use JSON lines"
        )
    import pyarrow
    import pyarrow.parquet

    return pyarrow, pyarrow.parquet
