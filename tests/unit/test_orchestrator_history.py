"""The history: sums, bounds, restarts, and files that are not ours."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.history import open_history
from orchestrator.history_file import (
    Decision,
    EdgeSample,
    HistoryBounds,
    HistoryFile,
    VerifierSample,
    unix_s,
)
from paceline.errors import ConfigError

NOW_S = unix_s()

SAMPLE = EdgeSample(
    at_s=NOW_S,
    edge="one",
    interval_s=5.0,
    rtt_s=0.02,
    jitter_s=0.001,
    draft_length=6,
    window=16,
    committed=100,
    drafted=80,
    judged=60,
    accepted=45,
    wasted=20,
    verifier="gpu:50051",
)
VERIFIER = VerifierSample(
    at_s=NOW_S, verifier="gpu", num_sessions=3, max_sessions=64, step_s=0.02, queue_s=0.0, busy=0.5
)
DECISION = Decision(
    at_s=NOW_S, edge="one", revision=1, draft_length=6, window=16, explanation="RTT is 20 ms."
)


def _samples(number: int, **changes: object) -> list[EdgeSample]:
    """Return samples 5 s apart, the newest now."""
    return [
        replace(SAMPLE, at_s=NOW_S - 5.0 * (number - 1 - index), **changes)  # type: ignore[arg-type]
        for index in range(number)
    ]


def test_ratios_are_sums_divided_by_sums() -> None:
    busy = replace(SAMPLE, at_s=NOW_S - 5.0, committed=300, drafted=400, judged=340, accepted=255)
    file = HistoryFile(None, bounds=HistoryBounds())
    file.write([replace(busy, wasted=100), SAMPLE, replace(SAMPLE, edge="other", committed=9)])
    (point,) = file.edge("one", since_s=NOW_S - 10.0, max_points=1)
    assert point.tokens_per_s == pytest.approx(400 / 10)
    assert point.acceptance_probability == pytest.approx(300 / 400)
    assert point.waste == pytest.approx(120 / 480)
    assert point.at_s == NOW_S
    assert len(file.edge("one", since_s=NOW_S - 10.0, max_points=10)) == 2
    file.close()


def test_what_cannot_be_divided_is_unknown() -> None:
    file = HistoryFile(None, bounds=HistoryBounds())
    file.write(
        [replace(SAMPLE, interval_s=0.0, committed=0, drafted=0, judged=0, accepted=0, wasted=0)]
    )
    (point,) = file.edge("one", since_s=0.0, max_points=10)
    assert (point.tokens_per_s, point.acceptance_probability, point.waste) == (None, None, None)
    assert file.edge("nobody", since_s=0.0, max_points=10) == ()
    file.close()


def test_many_samples_come_as_few_points_in_order() -> None:
    file = HistoryFile(None, bounds=HistoryBounds())
    file.write(_samples(1000))
    points = file.edge("one", since_s=NOW_S - 5000.0, max_points=100)
    assert len(points) <= 100
    assert [point.at_s for point in points] == sorted(point.at_s for point in points)
    assert points[-1].at_s == NOW_S
    assert all(point.tokens_per_s == pytest.approx(20.0) for point in points)
    assert len(file.edge("one", since_s=NOW_S - 7.0, max_points=100)) == 2
    file.close()


def test_rows_and_age_are_bounded() -> None:
    file = HistoryFile(None, bounds=HistoryBounds(max_rows=10))
    file.write(_samples(30))
    assert file.num_rows() == 10
    assert file.edge("one", since_s=0.0, max_points=100)[0].at_s == NOW_S - 45.0
    file.close()
    file = HistoryFile(None, bounds=HistoryBounds(max_rows=10_000, max_age_s=1000.0))
    # The file goes by the real time, which has gone on since this module was imported.
    late_s = unix_s() - NOW_S
    recent = [replace(sample, at_s=sample.at_s + late_s) for sample in _samples(300)]
    file.write([*recent, DECISION, VERIFIER])
    assert file.num_rows() == pytest.approx(200 + 2, abs=1)
    file.close()


def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    file = HistoryFile(path, bounds=HistoryBounds())
    file.write([SAMPLE, DECISION])
    file.close()
    file = HistoryFile(path, bounds=HistoryBounds())
    file.write([replace(DECISION, revision=2, at_s=NOW_S + 1.0)])
    assert len(file.edge("one", since_s=0.0, max_points=10)) == 1
    found = file.decisions("one", since_s=0.0, limit=10)
    assert [decision.revision for decision in found] == [2, 1]
    assert found[1] == DECISION
    file.close()


def test_pins_are_kept_until_they_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    file = HistoryFile(path, bounds=HistoryBounds(max_rows=1))
    for edge, length in (("one", 3), ("two", 0), ("one", 5), ("three", 9), ("three", None)):
        file.pin(edge, draft_length=length)
    file.write(_samples(10))
    file.close()
    # As a version before pins left it.
    other = tmp_path / "older.db"
    HistoryFile(other, bounds=HistoryBounds()).close()
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("DROP TABLE pins")
    for known, expected in ((path, {"one": 5, "two": 0}), (other, {})):
        file = HistoryFile(known, bounds=HistoryBounds())
        assert file.pins() == expected
        file.close()


def test_a_pin_that_cannot_be_kept_is_counted() -> None:
    async def scenario() -> None:
        async with open_history(None) as history:
            await history.pin("one", draft_length=3)
            await history._ask(lambda: history._file._connection.execute("PRAGMA query_only = 1"))
            await history.pin("one", draft_length=4)
            assert history.statistics.num_failed == 1
            assert await history.pins() == {"one": 3}

    asyncio.run(scenario())


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match=r"history\.db is in use by another program"):
        HistoryFile(path, bounds=HistoryBounds())
    other.close()


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"not a database at all " * 100)
    with pytest.raises(ConfigError, match="not a database, or is damaged"):
        HistoryFile(garbage, bounds=HistoryBounds())
    assert garbage.read_bytes().startswith(b"not a database")
    foreign = tmp_path / "foreign.db"
    other = sqlite3.connect(foreign)
    other.execute("CREATE TABLE letters (text TEXT)")
    other.commit()
    other.close()
    with pytest.raises(ConfigError, match="database of another program"):
        HistoryFile(foreign, bounds=HistoryBounds())
    newer = tmp_path / "newer.db"
    HistoryFile(newer, bounds=HistoryBounds()).close()
    other = sqlite3.connect(newer)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(ConfigError, match="layout 99, expected 1"):
        HistoryFile(newer, bounds=HistoryBounds())
    with pytest.raises(ConfigError, match="does its folder exist"):
        HistoryFile(tmp_path / "no" / "history.db", bounds=HistoryBounds())


@pytest.mark.parametrize("bounds", [{"max_rows": 0}, {"max_age_s": 0.0}])
def test_bounds_must_keep_something(bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        HistoryBounds(**bounds)


def test_a_full_buffer_sheds_the_oldest() -> None:
    async def scenario() -> None:
        async with open_history(None, max_waiting=100) as history:
            history.record(_samples(250))  # nothing else runs before this task waits
            assert history.statistics.num_shed == 150
            await history.flush()
            points = await history.edge("one", since_s=0.0)
            assert len(points) == 100
            assert points[0].at_s == NOW_S - 5.0 * 99
            assert history.statistics.num_written == 100
            assert history.statistics.num_waiting == 0

    asyncio.run(scenario())


def test_what_waits_is_written_when_the_program_ends(tmp_path: Path) -> None:
    path = tmp_path / "history.db"

    async def scenario() -> None:
        async with open_history(path) as history:
            history.record([SAMPLE])

    asyncio.run(scenario())
    file = HistoryFile(path, bounds=HistoryBounds())
    assert file.num_rows() == 1
    file.close()


def test_a_write_that_fails_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with open_history(None) as history:
            file = history._file
            await history._ask(lambda: file._connection.execute("PRAGMA max_page_count = 1"))
            for _ in range(3):
                history.record(_samples(100))
                await history.flush()
            assert history.statistics.num_failed == 300
            assert history.statistics.num_written == 0
            await history._ask(lambda: file._connection.execute("PRAGMA max_page_count = 10000"))
            history.record([SAMPLE])
            await history.flush()
            assert history.statistics.num_written == 1
            assert len(await history.edge("one", since_s=0.0)) == 1

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["history cannot be written"]


def test_a_peer_that_claims_too_much_loses_no_row() -> None:
    file = HistoryFile(None, bounds=HistoryBounds())
    file.write([replace(SAMPLE, committed=2**64 - 1), replace(DECISION, revision=2**64 - 1)])
    assert file.num_rows() == 2
    file.write(_samples(2000, committed=2**64 - 1))
    (point,) = file.edge("one", since_s=0.0, max_points=1)
    assert point.tokens_per_s is not None
    assert point.tokens_per_s > 2**50
    file.close()
