"""Names of topics, and what may stand under them."""

import pytest
from harness.control import here, policy, status, telemetry

from paceline.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    TOPICS,
    VERIFIER_STATUS,
    Received,
    check_id,
    read,
)


@pytest.mark.parametrize(
    ("topic", "member", "value", "name"),
    [
        (EDGE_PRESENCE, "kiosk-7", here(), "paceline/v1/edges/kiosk-7/presence"),
        (EDGE_TELEMETRY, "a.b_c-D", telemetry(1), "paceline/v1/edges/a.b_c-D/telemetry"),
        (EDGE_POLICY, "x" * 64, policy(1), f"paceline/v1/edges/{'x' * 64}/policy"),
        (VERIFIER_STATUS, "gpu", status(1), "paceline/v1/verifiers/gpu/status"),
        (ORCHESTRATOR_PRESENCE, "", here(), "paceline/v1/orchestrator/presence"),
    ],
)
def test_what_is_said_under_a_name_is_read_from_it(
    topic: object, member: str, value: object, name: str
) -> None:
    assert topic in TOPICS
    found = next(one for one in TOPICS if one == topic)
    assert found.name(member) == name
    payload = found.encode(value)  # type: ignore[arg-type]
    assert read(name, payload) == Received(topic=found, member=member, value=value)  # type: ignore[arg-type]


def test_telemetry_alone_is_not_retained() -> None:
    assert [topic for topic in TOPICS if not topic.retain] == [EDGE_TELEMETRY]


def test_an_empty_payload_says_that_the_member_is_gone() -> None:
    for topic in TOPICS:
        name = topic.name("one" if topic.has_members else "")
        if topic.retain:
            assert topic.encode(None) == b""
            assert read(name, b"").value is None
        else:
            with pytest.raises(LocalProtocolError, match="NoneType"):
                topic.encode(None)
            with pytest.raises(RemoteProtocolError, match="incarnation"):
                read(name, b"")


def test_a_value_of_another_topic_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="got EdgePolicy, expected Presence"):
        EDGE_PRESENCE.encode(policy(1))


@pytest.mark.parametrize(
    "text", ["", "a/b", "+", "#", "x" * 65, "a b", "caf\u00e9", "a\n", "$SYS\x00"]
)
def test_an_id_with_other_characters_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="id: got"):
        check_id(text)
    with pytest.raises(ConfigError, match="id: got"):
        EDGE_POLICY.name(text)


def test_the_orchestrator_has_no_members() -> None:
    with pytest.raises(ConfigError, match="member: got 'one', expected none"):
        ORCHESTRATOR_PRESENCE.name("one")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "paceline/v1/edges/a/unknown",
        "paceline/v1/edges//presence",
        "paceline/v1/edges/a b/presence",
        "paceline/v1/edges/a/b/presence",
        "paceline/v2/edges/a/presence",
        "paceline/v1/orchestrator/presence/",
        "$SYS/broker/uptime",
        "x" * 60_000,
    ],
)
def test_a_name_of_no_topic_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="topic: got") as refused:
        read(name, b"")
    assert len(str(refused.value)) < 200


def test_the_topic_of_one_member_is_a_filter_for_it_alone() -> None:
    assert EDGE_POLICY.of("kiosk-7").filter == "paceline/v1/edges/kiosk-7/policy"
    with pytest.raises(ConfigError, match="id: got"):
        EDGE_POLICY.of("+")
