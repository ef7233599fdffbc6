"""All the SQL of a journal, in one place: its tables and what is asked of them.

An entry is a row of the input. `number` is its line, `place` the how-manieth it was to be finished, `answer` the line
of the output, `tokens` what an unfinished answer had come to. Rows of the input that are not in the table were not
read yet. A `custom_id` belongs to the first row that has it.
"""

VERSION = 1

PENDING, ANSWERED, REFUSED = 0, 1, 2
"""The states of an entry."""

# An answer is on the disk when its transaction is over; readers do not hold up the writer.
SETTINGS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA busy_timeout=10000")

TABLES = (
    "CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS entry (
        number INTEGER PRIMARY KEY,
        custom_id BLOB UNIQUE,
        key BLOB NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        place INTEGER UNIQUE,
        answer BLOB,
        tokens TEXT
    )""",
)

FACT = "SELECT value FROM fact WHERE name = ?"
KEEP_FACT = "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
DROP_FACT = "DELETE FROM fact WHERE name = ?"

ENTRIES = "SELECT number, key, state, tokens FROM entry WHERE number BETWEEN ? AND ?"
OWNER = "SELECT number FROM entry WHERE custom_id = ?"
ENTER = "INSERT INTO entry (number, key) VALUES (?, ?)"
REOPEN = "UPDATE entry SET key = ?, custom_id = NULL, state = 0, place = NULL, answer = NULL, tokens = NULL " \
    "WHERE number = ?"  # fmt: skip
NAME = "UPDATE entry SET custom_id = ? WHERE number = ?"
FINISH = "UPDATE entry SET state = ?, place = ?, answer = ?, tokens = NULL WHERE number = ? AND state = 0"
CHECKPOINT = "UPDATE entry SET tokens = ? WHERE number = ? AND state = 0"

COUNTS = "SELECT state, COUNT(*) FROM entry GROUP BY state"
LAST_NUMBER = "SELECT MAX(number) FROM entry"
LAST_PLACE = "SELECT MAX(place) FROM entry"
NUMBERS_OF = "SELECT number FROM entry WHERE state = ? ORDER BY number"
NTH_NUMBER = "SELECT number FROM entry ORDER BY number LIMIT 1 OFFSET ?"
NTH_PLACE = "SELECT place FROM entry WHERE place IS NOT NULL ORDER BY place LIMIT 1 OFFSET ?"
BY_NUMBER = "SELECT number, answer FROM entry WHERE number > ? ORDER BY number LIMIT ?"
FINISHED_AFTER = "SELECT number, answer FROM entry WHERE number > ? AND answer IS NOT NULL ORDER BY number LIMIT ?"
BY_PLACE = "SELECT place, answer FROM entry WHERE place > ? ORDER BY place LIMIT ?"
