"""Log lines for collectors, and lines that a peer can cause."""

import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.cloud_house import Hands, House

from paceline.errors import ModelError
from paceline.logs import BoundedLog, JsonFormatter
from paceline.messages import Close, CloseReason
from paceline.tokens import log_name


class Lines(logging.Handler):
    """Keeps records as JSON objects."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@contextmanager
def collected(name: str) -> Iterator[list[dict[str, Any]]]:
    """The lines of a logger, of level info and above."""
    log, handler = logging.getLogger(name), Lines()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def test_a_json_line_has_its_fields_as_members_and_no_secret() -> None:
    with collected("paceline.test") as lines:
        log = logging.getLogger("paceline.test")
        fields = {"count": 3, "rate": 0.5, "odd": math.inf, "api_key": "sk-1", "level": "mine"}
        log.info("token=abc\nmore", extra=fields)
        log.error("it failed", exc_info=ValueError("password=hunter2"))
    first, second = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert first["message"] == "token=***\nmore"
    assert (first["logger"], first["level"]) == ("paceline.test", "INFO")
    assert (first["count"], first["rate"], first["odd"], first["api_key"]) == (3, 0.5, "inf", "***")
    assert "hunter2" not in second["error"]
    assert "ValueError" in second["error"]


def test_a_peer_cannot_fill_the_disk() -> None:
    clock = Hands()
    with collected("paceline.test") as lines:
        bounded = BoundedLog(logging.getLogger("paceline.test"), clock=clock, burst=3, per_s=2.0)
        for number in range(10):
            bounded.warning("refused", {"number": number})
        assert [line["number"] for line in lines] == [0, 1, 2]
        clock.at_s += 0.5
        bounded.info("refused", {"number": 10})
        assert (lines[-1]["number"], lines[-1]["left_out"]) == (10, 7)
        clock.at_s += 1000.0
        for number in range(20, 30):
            bounded.info("refused", {"number": number})
        assert [line["number"] for line in lines[4:]] == [20, 21, 22]
        assert "left_out" not in lines[4]


def test_what_is_not_logged_at_this_level_takes_no_room() -> None:
    log = logging.getLogger("paceline.test")
    bounded = BoundedLog(log, clock=Hands(), burst=1, per_s=1.0)
    log.setLevel(logging.WARNING)
    for _ in range(5):
        bounded.info("noise", {})
    with collected("paceline.test") as lines:
        bounded.warning("heard", {})
    assert [line["message"] for line in lines] == ["heard"]


def test_a_session_is_told_from_begin_to_end_and_its_id_is_not() -> None:
    house = House()
    with collected("cloud.journal") as lines:
        entry, stream = house.open(max_tokens=4)
        house.arrange()
        house.step(entry, 5)
        house.step(entry, 6)
        house.clock.at_s += 2.0
        house.registry.deliver(entry, stream, Close(reason=CloseReason.CANCELLED))
        failing, _ = house.open()
        house.arrange()
        house.step(failing, failed=ModelError("logits: not finite"))
    opened, ended, _, failed = lines
    assert opened["message"] == "session opened"
    assert (opened["tenant"], opened["prompt_tokens"]) == ("alice", 3)
    assert opened["session"] == ended["session"] == log_name(entry.session_id)
    assert (ended["how"], ended["committed"], ended["steps"]) == ("abort", 2, 2)
    assert ended["duration_s"] == 2.0
    assert (failed["how"], failed["reason"]) == ("error", "MODEL")
    assert entry.session_id.hex() not in json.dumps(lines)
