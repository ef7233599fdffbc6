"""A JSON schema from a file."""

from windlass.errors import StorageError, UsageError
from windlass.facts.schema_bounds import MOST_CHARACTERS, read_schema

# Of a character in UTF-8.
MOST_BYTES = 4


def read_schema_file(path: str) -> str:
    """Its text, members in their order. Raises UsageError for what is absent or no schema, StorageError."""
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES * MOST_CHARACTERS + 1).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"there is no file {path}; name a JSON schema with --schema") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}; name a file that you may read") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (byte {error.start}); name a JSON schema, a text file") from error
    return read_schema(f"the schema in {path}", text)
