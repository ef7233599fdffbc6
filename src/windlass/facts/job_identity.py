"""What a job's answers depend on beside its rows: the model's files, the formats, and the parameters rows leave open.

It is kept when a job begins and compared when it goes on, so that what has changed can be named.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from windlass.facts.batch_row import BadRow, BatchRow

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """`files` says of each file of the model what it holds; `model` is its name, which may change with its folder.

    `formats` are dtype and its like, `defaults` the sampling parameters for rows that say nothing; both are named as
    the flags are. `given` names those that were given by a flag, where the others are the model's own.
    """

    model: str
    files: Mapping[str, str]
    formats: Values
    defaults: Values
    given: tuple[str, ...] = ()

    def as_json(self) -> str:
        """Equal for equal jobs."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "JobIdentity":
        """What as_json wrote."""
        values = json.loads(text)
        return JobIdentity(**values | {"given": tuple(values.get("given", ()))})

    def changes_since(self, before: "JobIdentity") -> list[str]:
        """What would make other answers than `before`, each in a few words; none where nothing would."""
        return [
            *self._changes_of_files(before),
            *self._changes_of_values(before, before.formats, _plain(self.formats)),
            *self._changes_of_values(before, before.defaults, _plain(self.defaults)),
        ]

    def row_key(self, row: BatchRow | BadRow) -> bytes:
        """The SHA-256 of all that the answer to a row depends on, and of its name."""
        if isinstance(row, BadRow):
            asked: object = {"custom_id": row.custom_id, "bad": row.reason}
        else:
            body = asdict(row.body)
            sampling = dict(self.defaults) | dict(row.body.sampling)
            asked = {"custom_id": row.custom_id, "url": row.url, "body": body | {"sampling": sampling}}
        identity = {"files": dict(self.files), "formats": dict(self.formats)}
        return hashlib.sha256(json.dumps([identity, asked], sort_keys=True).encode()).digest()

    def _changes_of_files(self, before: "JobIdentity") -> list[str]:
        if self.files == before.files:
            return []
        if self.model != before.model:
            return [f"the model was {before.model}, is {self.model}"]
        names = sorted({*self.files, *before.files})
        changed = [name for name in names if self.files.get(name) != before.files.get(name)]
        more = f" and {len(changed) - 1} more of its files" if len(changed) > 1 else ""
        return [f"the model {self.model} changed: {changed[0]}{more}"]

    def _changes_of_values(self, before: "JobIdentity", were: Values, are: Values) -> list[str]:
        return [
            _change(name, (were.get(name), name in before.given), (are.get(name), name in self.given))
            for name in sorted({*were, *are})
            if were.get(name) != are.get(name)
        ]


def _change(name: str, before: tuple[object, bool], now: tuple[object, bool]) -> str:
    """What became of a value; each is told with whether a flag gave it, since else it is the model's own."""
    (was, was_given), (value, is_given) = before, now
    was, value = f"{was!s:.80}", f"{value!s:.80}"  # a schema is long
    flag, own = f"--{name.replace('_', '-')}", name.replace("_", " ")
    if was_given and is_given:
        return f"{flag} was {was}, is {value}"
    if was_given:
        return f"{flag} was {was}, is not given, and the model's own is {value}"
    if is_given:
        return f"{flag} was not given, with {was} the model's own, is {value}"
    return f"the model's own {own} was {was}, is {value}"


def _plain(values: Values) -> Values:
    """As JSON gives them back: tuples are lists there."""
    plain: Values = json.loads(json.dumps(dict(values)))
    return plain
