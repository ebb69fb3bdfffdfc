"""The history's tables in SQLite: plain blocking calls, for one thread.

Rows are written in the order of time, so the lowest row ids are the oldest and forgetting is cheap. Sums are kept, not ratios: a
coarser view adds sums up and divides once.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from paceline.errors import ConfigError

APPLICATION_ID = 0x50_61_63_65
"""Stands in the file's header ("Pace"), so that no other program's database is ever written to."""

SCHEMA_VERSION = 1
OPEN_TIMEOUT_S = 0.1
MAX_INTEGER = 2**53
"""Largest whole number that a database column, a double and JavaScript all tell exactly."""

FORGET_AT_ONCE = 10_000
"""Most rows one write forgets because of their age: a write stays short however old the file is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSample:
    """What one edge did in one interval."""

    at_s: float
    """End of the interval, seconds since 1970."""
    edge: str
    interval_s: float
    """Length of the interval; 0 if nothing can be summed over it, at the edge's start for example."""
    rtt_s: float
    jitter_s: float
    draft_length: int
    window: int
    committed: int
    drafted: int
    judged: int
    accepted: int
    wasted: int
    """Drafted tokens that came to nothing: rejected, late or stale."""
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSample:
    """How one verifier was doing."""

    at_s: float
    verifier: str
    num_sessions: int
    max_sessions: int
    step_s: float
    queue_s: float
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One policy that was sent."""

    at_s: float
    edge: str
    revision: int
    draft_length: int
    window: int
    explanation: str


Sample = EdgeSample | VerifierSample | Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePoint:
    """One point of an edge's charts; ratios are sums divided by sums. None: nothing to divide by."""

    at_s: float
    rtt_s: float
    jitter_s: float
    draft_length: float
    window: float
    tokens_per_s: float | None
    acceptance_probability: float | None
    waste: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBounds:
    """How much is kept.

    Raises:
        ConfigError: a field is out of its range.
    """

    max_rows: int = 2_000_000
    """Of each table; about 100 bytes each. 2,000 edges fill it in 80 minutes, 100 edges in a day."""

    max_age_s: float = 7 * 24 * 3600.0

    def __post_init__(self) -> None:
        """Check every field."""
        if self.max_rows < 1:
            raise ConfigError(f"--history-rows: got {self.max_rows}, expected at least 1")
        if self.max_age_s <= 0.0:
            raise ConfigError(f"--history-age: got {self.max_age_s} s, expected more than zero")


_TABLES: dict[type[Sample], str] = {
    EdgeSample: "edge_samples",
    VerifierSample: "verifier_samples",
    Decision: "decisions",
}
_COLUMN_TYPES = {float: "REAL", int: "INTEGER", str: "TEXT"}


def _schema() -> str:
    statements = []
    for kind, table in _TABLES.items():
        columns = ", ".join(
            f"{item.name} {_COLUMN_TYPES[item.type]} NOT NULL"  # type: ignore[index]
            for item in fields(kind)
        )
        owner = "verifier" if kind is VerifierSample else "edge"
        statements.append(f"CREATE TABLE {table} ({columns});")
        statements.append(f"CREATE INDEX {table}_by_owner ON {table} ({owner}, at_s);")
    return "\n".join(statements)


class HistoryFile:
    """An open history. All calls come from one thread."""

    def __init__(self, path: Path | None, *, bounds: HistoryBounds) -> None:
        """Open a file, made if it is not there, or a database in memory.

        Raises:
            ConfigError: the file cannot be used as a history.
        """
        self._bounds = bounds
        self._connection = _opened(path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def write(self, samples: Sequence[Sample]) -> None:
        """Add rows and forget the oldest beyond the bounds, all or nothing.

        Raises:
            sqlite3.Error: the file cannot be written now.
        """
        with self._connection:
            self._connection.execute("BEGIN")
            for kind, table in _TABLES.items():
                rows = [_row(sample) for sample in samples if type(sample) is kind]
                if rows:
                    marks = ", ".join("?" for _ in fields(kind))
                    self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608 - our names
                    self._forget(table)

    def edge(self, edge: str, *, since_s: float, max_points: int) -> tuple[EdgePoint, ...]:
        """Return an edge's samples from a moment on, oldest first, brought down to at most so many points."""
        oldest_s, newest_s = self._connection.execute(
            "SELECT min(at_s), max(at_s) FROM edge_samples WHERE edge = ? AND at_s >= ?",
            (edge, since_s),
        ).fetchone()
        if oldest_s is None:
            return ()
        # A hair more than the exact width, so that the newest falls into the last bucket.
        width_s = max(1e-3, (newest_s - oldest_s) / max_points * (1.0 + 1e-9))
        rows = self._connection.execute(_POINTS, (oldest_s, width_s, edge, oldest_s)).fetchall()
        return tuple(_point(row) for row in rows)

    def decisions(self, edge: str, *, since_s: float, limit: int) -> tuple[Decision, ...]:
        """Return the newest decisions about an edge from a moment on, newest first."""
        rows = self._connection.execute(
            "SELECT * FROM decisions WHERE edge = ? AND at_s >= ? ORDER BY at_s DESC LIMIT ?",
            (edge, since_s, limit),
        )
        names = [item.name for item in fields(Decision)]
        return tuple(Decision(**dict(zip(names, row, strict=True))) for row in rows)

    def pins(self) -> dict[str, int]:
        """Return the draft lengths that operators have fixed, by edge."""
        return dict(self._connection.execute("SELECT edge, draft_length FROM pins ORDER BY edge"))

    def pin(self, edge: str, *, draft_length: int | None) -> None:
        """Keep an operator's order until it is taken back, whatever is forgotten meanwhile; None takes it back.

        Raises:
            sqlite3.Error: the file cannot be written now.
        """
        if draft_length is None:
            self._connection.execute("DELETE FROM pins WHERE edge = ?", (edge,))
        else:
            self._connection.execute("REPLACE INTO pins VALUES (?, ?)", (edge, draft_length))

    def num_rows(self) -> int:
        """Return how many rows all tables have."""
        counts = (
            self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - our names
            for table in _TABLES.values()
        )
        return sum(counts)

    def _forget(self, table: str) -> None:
        self._connection.execute(
            f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ?",  # noqa: S608 - our names
            (self._bounds.max_rows,),
        )
        self._connection.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT id FROM (SELECT rowid AS id, at_s FROM {table} "  # noqa: S608 - our names
            f"ORDER BY rowid LIMIT {FORGET_AT_ONCE}) WHERE at_s < ?)",
            (unix_s() - self._bounds.max_age_s,),
        )


_POINTS = """
SELECT max(at_s), avg(rtt_s), avg(jitter_s), avg(draft_length), avg(window),
       total(interval_s), total(committed), total(drafted), total(judged), total(accepted), total(wasted),
       CAST((at_s - ?) / ? AS INTEGER) AS bucket
FROM edge_samples WHERE edge = ? AND at_s >= ? GROUP BY bucket ORDER BY bucket
"""


def unix_s() -> float:
    """Return seconds since 1970: a history outlives the machine's uptime, which a Clock counts."""
    return datetime.now(UTC).timestamp()


def _point(row: tuple[float, ...]) -> EdgePoint:
    at_s, rtt_s, jitter_s, length, window, interval_s, committed, drafted, judged, accepted = row[
        :10
    ]
    return EdgePoint(
        at_s=at_s,
        rtt_s=rtt_s,
        jitter_s=jitter_s,
        draft_length=length,
        window=window,
        tokens_per_s=_ratio(committed, interval_s),
        acceptance_probability=_ratio(accepted, judged),
        waste=_ratio(row[10], drafted),
    )


def _row(sample: Sample) -> tuple[object, ...]:
    """Return a sample's values; a peer may claim more than the 64 bits with sign that SQLite takes."""
    return tuple(
        min(value, MAX_INTEGER) if isinstance(value, int) else value for value in astuple(sample)
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _opened(path: Path | None) -> sqlite3.Connection:
    """Return a connection to a database with our tables, held by us alone."""
    name = ":memory:" if path is None else str(path)
    try:
        connection = sqlite3.connect(name, timeout=OPEN_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise ConfigError(
            f"--history: cannot open {path}: {error}; does its folder exist, and may we write there?"
        ) from error
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"--history: {_trouble(error, path)}") from error
    except ConfigError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path | None) -> None:
    """Take the file for ourselves, check whose it is, and make the tables if it is new."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")  # two orchestrators writing one history would mix theirs
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if num_tables == 0 and application == 0:
        for statement in _schema().splitlines():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif application != APPLICATION_ID:
        raise ConfigError(f"--history: {path} is a database of another program; name another file")
    elif version != SCHEMA_VERSION:
        raise ConfigError(
            f"--history: {path} has layout {version}, expected {SCHEMA_VERSION}; name another file, or move this one away"
        )
    # Not in every file: it came later, and whoever does not know it is not bothered by it.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pins (edge TEXT PRIMARY KEY, draft_length INTEGER NOT NULL)"
    )
    connection.execute("COMMIT")
    # A crash may cost the last seconds of a history, never the file.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("SELECT count(*) FROM (SELECT 1 FROM edge_samples LIMIT 1)")


def _trouble(error: sqlite3.Error, path: Path | None) -> str:
    match error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else None:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{path} is in use by another program; is another orchestrator running?"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return f"{path} is not a database, or is damaged: {error}; move it away or name another file"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"{path} cannot be written: {error}"
    return f"{path}: {error}"
