"""What a verifier tells the fleet: made of its statistics, readable by the fleet, with an address that can be used."""

import pytest
from harness.cloud_house import TARGET, House
from harness.models import tiny_llama

from cloud.account import VerifierStatistics
from cloud.announcing import AnnouncementSettings
from cloud.overview import overview
from cloud.status import MAX_ID, Teller, advertised, default_id, status
from cloud.worker import Worker, WorkerSettings
from paceline.codec.control import encode_control, parse_status
from paceline.errors import ConfigError, ModelError, OverloadedError
from paceline.messages import Close, CloseReason, Proposal
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import Address
from paceline.tokens import Position, TokenId
from paceline.topics import check_id

ANYWHERE = Address(host="0.0.0.0", port=50051)
HERE = Address(host="127.0.0.1", port=50051)
NAMED = Address(host="gpu-box", port=50051)
BROKER = BrokerSettings(address=Address(host="127.0.0.1", port=1883))
TELLER = Teller(incarnation=7, address=NAMED, target=TARGET, row_budget=64, version="0.1.0")


def statistics(house: House) -> VerifierStatistics:
    worker = Worker(tiny_llama(), settings=WorkerSettings())
    return overview(house.registry, worker, now_s=house.clock.now_s())


def test_what_sessions_did_is_counted_once_whether_they_go_on_or_not() -> None:
    house = House()
    entry, stream = house.open(max_tokens=10)
    house.arrange()
    drafts = Proposal(base_position=Position(3), tokens=(TokenId(5), TokenId(6)), parents=(0,))
    house.registry.deliver(entry, stream, drafts)
    house.clock.at_s += 0.25
    house.step(entry, 5, 9)  # the first draft is right, the second is not
    found = [statistics(house)]
    house.registry.deliver(entry, stream, Close(reason=CloseReason.CANCELLED))
    found.append(statistics(house))
    for now in found:
        assert (now.num_opened, now.committed, now.prompt_tokens) == (1, 2, 3)
        assert (now.drafts.drafted, now.drafts.judged, now.drafts.accepted) == (2, 2, 1)
        assert (now.num_drafts, now.accepted_per_position[:2]) == (1, (1, 0))
        assert now.first_token.total == pytest.approx(0.25)
        assert now.queue.num_values == 1
    assert [now.num_sessions for now in found] == [1, 0]
    assert [now.num_running for now in found] == [1, 0]
    assert found[1].ended == {"stop": 0, "length": 0, "abort": 1, "error": 0}


def test_every_way_to_end_is_told_apart() -> None:
    house = House()
    for how in ("length", "error", "abort"):
        entry, _ = house.open(max_tokens=1)
        house.arrange()
        if how == "error":
            house.step(entry, failed=ModelError("logits: not finite"))
        elif how == "length":
            house.step(entry, 5)
        house.registry.detach(entry, entry.stream or house.stream())
        house.later(11.0)
    stopped, stream = house.open(stop_tokens=(TokenId(9),))
    house.arrange()
    house.step(stopped, 9)
    house.registry.deliver(stopped, stream, Close(reason=CloseReason.DONE))
    now = statistics(house)
    assert now.ended == {"stop": 1, "length": 1, "abort": 1, "error": 1}
    assert now.duration.num_values == 2, "those whose text ended"


def test_a_session_without_memory_counts_as_shed() -> None:
    house = House()
    entry, stream = house.open()
    house.workload.take_cache_orders()
    house.workload.cache_opened(entry.key, OverloadedError("cache: full"))
    now = statistics(house)
    assert now.refused == {"OVERLOADED": 1}
    assert (now.num_opened, now.ended["error"], now.committed) == (1, 1, 0)
    assert now.first_token.num_values == now.duration.num_values == 0
    assert stream.is_over


def test_a_verifier_has_news_when_it_fills_up_gets_room_or_drains() -> None:
    house = House(max_sessions=2)
    news = house.registry.news
    _, first = house.open()
    assert not news.is_set()
    entry, stream = house.open()
    assert news.is_set()
    news.clear()
    house.registry.deliver(entry, stream, Close(reason=CloseReason.DONE))
    assert news.is_set()
    news.clear()
    house.registry.drain(house.clock.at_s + 1.0)
    assert news.is_set()
    assert first.drain_deadline_s is not None


def test_the_fleet_reads_what_a_verifier_tells() -> None:
    house = House(max_sessions=3)
    entry, _ = house.open()
    house.arrange()
    house.step(entry, 5)
    house.registry.drain(house.clock.at_s + 1.0)
    message = status(TELLER, statistics(house), sequence=4)
    assert parse_status(encode_control(message)) == message
    assert (message.address, message.sequence, message.incarnation) == ("gpu-box:50051", 4, 7)
    assert (message.max_sessions, message.num_sessions, message.draining) == (3, 1, True)
    assert message.step_s == pytest.approx(1e-6)
    assert message.target == TARGET
    assert message.counters.committed == 1


@pytest.mark.parametrize(
    ("host_name", "expected"),
    [
        ("gpu-box.example", "gpu-box.example-50051"),
        ("Karl's Mac", "Karl-s-Mac-50051"),
        ("//", "verifier-50051"),
        ("h" * 300, "h" * 58 + "-50051"),
    ],
)
def test_any_host_name_makes_an_id(host_name: str, expected: str) -> None:
    found = default_id(host_name, 50051)
    assert found == check_id(expected)
    assert len(found) <= MAX_ID


def test_edges_are_told_where_they_can_connect() -> None:
    assert advertised(HERE, None) == HERE
    assert advertised(ANYWHERE, NAMED) == NAMED
    with pytest.raises(ConfigError, match=r"--advertise: got none, and .* is no address"):
        advertised(ANYWHERE, None)
    for useless in (ANYWHERE, Address(host="gpu-box", port=0)):
        with pytest.raises(ConfigError, match="--advertise: got"):
            advertised(HERE, useless)


def test_what_nobody_could_use_is_refused_before_weights_are_loaded() -> None:
    with pytest.raises(ConfigError, match="--advertise: got none"):
        AnnouncementSettings(broker=BROKER, listen=ANYWHERE)
    with pytest.raises(ConfigError, match="--verifier-id: got 'a/b'"):
        AnnouncementSettings(broker=BROKER, listen=HERE, verifier_id="a/b")
