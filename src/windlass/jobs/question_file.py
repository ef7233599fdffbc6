"""All rows of a batch at once, for those who need every one: bad ones included, each name given once."""

from windlass.errors import UsageError
from windlass.facts.batch_row import BadRow, BatchRow, named_once
from windlass.facts.prompt_form import PromptForm
from windlass.jobs.rows.row_source import row_source

Row = BatchRow | BadRow


def read_rows(path: str, form: PromptForm | None = None) -> list[Row]:
    """All rows of a file, or of standard input for `-`; `form` says what the rows of a table ask.

    Raises UsageError when there is none, StorageError.
    """
    source = row_source(path, form)
    rows = list(named_once(source.rows()))
    if not rows:
        raise UsageError(
            f'{source.describe()} holds no rows; write one JSON object a line, as {{"prompt": "Once upon a time"}}, '
            f"or a table with a header and a row below it"
        )
    return rows
