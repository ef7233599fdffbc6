"""The memory of a job on disk: what was asked, what was answered, and how far the output is known to be good."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.errors import StorageError, UsageError
from windlass.jobs.batch import schema
from windlass.jobs.batch.schema import ANSWERED, PENDING, REFUSED

Json = Mapping[str, Any]
Tokens = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a row; `tokens` are those of each of its answers so far."""

    number: int
    key: bytes
    state: int
    tokens: Tokens = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A row with its line of the output: an answer, or the reason why there is none."""

    number: int
    line: Json
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by how they stand."""

    answered: int
    refused: int
    pending: int

    @property
    def finished(self) -> int:
        """Rows with a line for the output."""
        return self.answered + self.refused


class Journal:
    """One SQLite file. What a method has written is on the disk when it returns; `read_only` never writes.

    Without a path it is a temporary file without a name, of which nothing is left when it is closed. Raises
    StorageError where the disk is full, unreadable or not writable, and UsageError for a file that is no journal of
    this version.
    """

    def __init__(self, path: Path | None, read_only: bool = False) -> None:
        self.path = path or "in the temporary folder"
        with self._storing():
            name = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}" if path is not None else ""
            self._connection = sqlite3.connect(name, uri=True, isolation_level=None)
        try:
            if not read_only:
                self._prepare()
            self._check_version()
        except (StorageError, UsageError):
            self._connection.close()
            raise

    def close(self) -> None:
        """Nothing is lost by not calling it."""
        self._connection.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *ending: object) -> None:
        self.close()

    def fact(self, name: str) -> Any:
        """What was kept under a name; None where nothing was."""
        rows = self._ask(schema.FACT, name)
        return json.loads(rows[0][0]) if rows else None

    def keep(self, **facts: Any) -> None:
        """Keeps values that JSON can hold; None forgets."""
        with self._transaction():
            self._keep(facts)

    def entries(self, first: int, last: int) -> dict[int, Entry]:
        """The rows from one number to another that are known, by number."""
        found = self._ask(schema.ENTRIES, first, last)
        return {number: Entry(number, key, state, _read_tokens(tokens)) for number, key, state, tokens in found}

    def enter(self, rows: Iterable[tuple[int, str | None, bytes]]) -> dict[int, int]:
        """Makes rows known: number, custom_id and key. A row that is known begins anew, and so does the output.

        Returns those whose custom_id is that of an earlier row, with the number of that row; they are entered without.
        """
        owned: dict[int, int] = {}
        with self._transaction():
            for number, custom_id, key in rows:
                if self._connection.execute(schema.REOPEN, (key, number)).rowcount:
                    self._keep({"output": None})
                else:
                    self._connection.execute(schema.ENTER, (number, key))
                if custom_id is None:
                    continue
                name = custom_id.encode(errors="surrogatepass")
                owner = self._connection.execute(schema.OWNER, (name,)).fetchone()
                if owner is None:
                    self._connection.execute(schema.NAME, (name, number))
                else:
                    owned[number] = owner[0]
        return owned

    def finish(
        self, rows: Sequence[Finished] = (), checkpoints: Mapping[int, Tokens] | None = None, **facts: Any
    ) -> None:
        """Keeps the lines of rows that are done and the tokens of those that are not, all or nothing.

        Each row is finished once: a second line for it is not kept.
        """
        with self._transaction():
            (last,) = self._connection.execute(schema.LAST_PLACE).fetchone()
            for place, row in enumerate(rows, (last or 0) + 1):
                state = REFUSED if row.refused else ANSWERED
                self._connection.execute(schema.FINISH, (state, place, _line(row.line), row.number))
            for number, tokens in (checkpoints or {}).items():
                self._connection.execute(schema.CHECKPOINT, (json.dumps(tokens), number))
            self._keep(facts)

    def finished_after(self, number: int, most: int) -> list[tuple[int, Json]]:
        """Number and line of finished rows behind a number, whatever lies between them."""
        return [(number, json.loads(line)) for number, line in self._ask(schema.FINISHED_AFTER, number, most)]

    def in_input_order(self, after: int, most: int) -> list[tuple[int, Json]]:
        """Number and line of finished rows behind the number `after`, up to the first that is not finished."""
        ready = []
        for number, line in self._ask(schema.BY_NUMBER, after, most):
            if line is None:
                break
            ready.append((number, json.loads(line)))
        return ready

    def as_finished(self, after: int, most: int) -> list[tuple[int, Json]]:
        """Place and line of rows in the order in which they were finished, behind the place `after`."""
        return [(place, json.loads(line)) for place, line in self._ask(schema.BY_PLACE, after, most)]

    def nth(self, count: int, by_number: bool) -> int:
        """The number, or else the place, of the last of the first `count` rows in that order; 0 for none."""
        if not count:
            return 0
        found = self._ask(schema.NTH_NUMBER if by_number else schema.NTH_PLACE, count - 1)
        return int(found[0][0]) if found else 0

    def counts(self) -> Counts:
        """Of the rows that are known."""
        by_state = dict(self._ask(schema.COUNTS))
        return Counts(by_state.get(ANSWERED, 0), by_state.get(REFUSED, 0), by_state.get(PENDING, 0))

    def refused(self) -> tuple[int, ...]:
        """The numbers of the rows without an answer."""
        return tuple(number for (number,) in self._ask(schema.NUMBERS_OF, REFUSED))

    def last_number(self) -> int:
        """The furthest row that is known; 0 where none is."""
        return int(self._ask(schema.LAST_NUMBER)[0][0] or 0)

    def _prepare(self) -> None:
        with self._storing():
            for command in (*schema.SETTINGS, *schema.TABLES):
                self._connection.execute(command)
        if self.fact("version") is None:
            self.keep(version=schema.VERSION)

    def _check_version(self) -> None:
        version = self.fact("version")
        if version != schema.VERSION:
            raise UsageError(
                f"the journal {self.path} is of version {version}, this program writes {schema.VERSION}; go on with "
                "the program that began the job, or pass --restart to begin anew"
            )

    def _keep(self, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            if value is None:
                self._connection.execute(schema.DROP_FACT, (name,))
            else:
                self._connection.execute(schema.KEEP_FACT, (name, json.dumps(value)))

    def _ask(self, query: str, *values: object) -> list[Any]:
        with self._storing():
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is executed inside, or nothing of it, whatever ends it."""
        with self._storing():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"the journal {self.path} cannot be used: {error}; free some space there, or make its folder writable"
            ) from error
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"the journal {self.path} is damaged: {error}; pass --restart to begin the job anew"
            ) from error


def _line(line: Json) -> bytes:
    # Half a surrogate pair in a name is kept as the escape it came as.
    return json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace")


def _read_tokens(text: str | None) -> Tokens:
    return tuple(tuple(tokens) for tokens in json.loads(text)) if text else ()
