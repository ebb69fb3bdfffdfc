"""Every value of the control plane survives the wire, every bound of its schema is checked, nonsense raises our errors only."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from math import inf, nan

import pytest
from google.protobuf.message import Message
from harness.any_message import FINGERPRINTS, IDENTITIES, U32, U64
from harness.control import policy, status, telemetry
from hypothesis import given
from hypothesis import strategies as st

from paceline.codec.control import (
    MAX_PAYLOAD_BYTES,
    ControlValue,
    encode_control,
    parse_policy,
    parse_presence,
    parse_status,
    parse_telemetry,
)
from paceline.control.messages import (
    EdgeCounters,
    EdgeGauges,
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierCounters,
    VerifierDistance,
    VerifierStatus,
)
from paceline.errors import LocalProtocolError, RemoteProtocolError
from paceline.v1 import control_pb2 as pb

Parse = Callable[[bytes], ControlValue]
PARSERS: dict[type[ControlValue], Parse] = {
    Presence: parse_presence,
    EdgeTelemetry: parse_telemetry,
    EdgePolicy: parse_policy,
    VerifierStatus: parse_status,
}

# --- any value

FROM_1 = st.integers(1, 2**64 - 1)
# Below 2**50 ns, 13 days, seconds as a float hold every nanosecond.
SECONDS = st.integers(0, 2**50).map(lambda ns: ns / 10**9)
PARTS = st.integers(0, 10**9).map(lambda ppb: ppb / 10**9)
WORDS = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=16)
ADDRESSES = st.from_regex(r"[a-z0-9.\-]{1,40}:[1-9][0-9]{0,3}", fullmatch=True)
EDGE_COUNTERS = st.builds(EdgeCounters, **{item.name: U64 for item in fields(EdgeCounters)})
VERIFIER_COUNTERS = st.builds(
    VerifierCounters, **{item.name: U64 for item in fields(VerifierCounters)}
)
GAUGES = st.builds(
    EdgeGauges,
    num_generations=U32,
    rtt_s=SECONDS,
    rtt_jitter_s=SECONDS,
    draft_s=SECONDS,
    step_s=SECONDS,
    acceptance_probability=PARTS,
    num_judged=U32,
    draft_length=U32,
    window=U32,
    policy_revision=U64,
    verifier=st.just("") | ADDRESSES,
)
VALUES: st.SearchStrategy[ControlValue] = st.one_of(
    st.builds(Presence, online=st.booleans(), incarnation=FROM_1, version=WORDS),
    st.builds(
        EdgeTelemetry,
        incarnation=FROM_1,
        sequence=FROM_1,
        tokenizer_fingerprint=FINGERPRINTS,
        counters=EDGE_COUNTERS,
        gauges=GAUGES,
        verifiers=st.lists(
            st.builds(VerifierDistance, address=ADDRESSES, rtt_s=SECONDS), max_size=5
        ).map(tuple),
        drafter=WORDS,
    ),
    st.builds(
        EdgePolicy,
        revision=st.integers(1, 2**53),
        draft_length=st.integers(0, 4096),
        window=st.integers(1, 4096),
        verifiers=st.lists(ADDRESSES, max_size=16).map(tuple),
        explanation=WORDS,
    ),
    st.builds(VerifierStatus, online=st.just(value=False), incarnation=FROM_1),
    st.builds(
        VerifierStatus,
        online=st.just(value=True),
        incarnation=FROM_1,
        sequence=FROM_1,
        address=ADDRESSES,
        target=IDENTITIES,
        draining=st.booleans(),
        max_sessions=st.integers(1, 2**32 - 1),
        num_sessions=U32,
        row_budget=U32,
        step_s=SECONDS,
        queue_s=SECONDS,
        busy=PARTS,
        row_price_s=SECONDS,
        counters=VERIFIER_COUNTERS,
        version=WORDS,
    ),
)


@pytest.mark.slow
@given(value=VALUES)
def test_every_value_survives(value: ControlValue) -> None:
    payload = encode_control(value)
    assert payload  # an empty one would clear the topic
    assert PARSERS[type(value)](payload) == value


@pytest.mark.parametrize(
    "value",
    [
        Presence(online=True, incarnation=2**64 - 1, version="1.0"),
        EdgeTelemetry(
            incarnation=1,
            sequence=2,
            tokenizer_fingerprint=bytes(range(32)),
            counters=EdgeCounters(committed=7, malformed=2**64 - 1),
            gauges=EdgeGauges(rtt_s=0.02, acceptance_probability=0.75, verifier="[::1]:7700"),
            verifiers=(VerifierDistance(address="a:1", rtt_s=0.0),) * 64,
            drafter="lookup",
        ),
        EdgePolicy(revision=1, draft_length=4096, window=4096, verifiers=("a:65535",) * 16),
        VerifierStatus(online=False, incarnation=9),
        status(3),
    ],
)
def test_values_at_their_bounds_survive(value: ControlValue) -> None:
    assert PARSERS[type(value)](encode_control(value)) == value


def test_the_largest_value_fits_a_payload() -> None:
    long = "a" * 250 + ":1"
    value = EdgeTelemetry(
        incarnation=2**64 - 1,
        sequence=2**64 - 1,
        tokenizer_fingerprint=bytes(32),
        counters=EdgeCounters(**{item.name: 2**64 - 1 for item in fields(EdgeCounters)}),
        verifiers=(VerifierDistance(address=long, rtt_s=1e10),) * 64,
        drafter="d" * 256,
    )
    assert len(encode_control(value)) < MAX_PAYLOAD_BYTES * 2 // 3


# --- every bound

TELEMETRY = pb.EdgeTelemetry(incarnation=1, sequence=1, tokenizer_fingerprint=bytes(32))
POLICY = pb.EdgePolicy(revision=1, window=1)
STATUS = pb.VerifierStatus.FromString(encode_control(status(1)))


def changed(message: Message, **values: object) -> bytes:
    """Return a message's payload with other values in some fields."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name in values:
        copy.ClearField(name)
    copy.MergeFrom(type(message)(**values))
    return copy.SerializeToString()


WRONG: list[tuple[Parse, bytes, str]] = [
    (parse_presence, changed(pb.Presence(), online=True), "incarnation"),
    (parse_presence, changed(pb.Presence(incarnation=1), version="v" * 65), "version"),
    (parse_telemetry, changed(TELEMETRY, incarnation=0), "incarnation"),
    (parse_telemetry, changed(TELEMETRY, sequence=0), "sequence"),
    (parse_telemetry, changed(TELEMETRY, tokenizer_fingerprint=bytes(31)), "tokenizer_fingerprint"),
    (parse_telemetry, changed(TELEMETRY, tokenizer_fingerprint=bytes(33)), "tokenizer_fingerprint"),
    (parse_telemetry, changed(TELEMETRY, drafter="d" * 257), "drafter"),
    (
        parse_telemetry,
        changed(TELEMETRY, verifiers=[pb.VerifierDistance(address="a:1")] * 65),
        "verifiers",
    ),
    (
        parse_telemetry,
        changed(TELEMETRY, verifiers=[pb.VerifierDistance(address="a" * 256 + ":1")]),
        "verifiers[0].address",
    ),
    (
        parse_telemetry,
        changed(TELEMETRY, verifiers=[pb.VerifierDistance()]),
        "verifiers[0].address",
    ),
    (
        parse_telemetry,
        changed(TELEMETRY, gauges=pb.EdgeGauges(verifier="a:" + "1" * 256)),
        "gauges.verifier",
    ),
    (
        parse_telemetry,
        changed(TELEMETRY, gauges=pb.EdgeGauges(acceptance_ppb=10**9 + 1)),
        "gauges.acceptance_ppb",
    ),
    (parse_policy, changed(POLICY, revision=0), "revision"),
    (parse_policy, changed(POLICY, revision=2**53 + 1), "revision"),
    (parse_policy, changed(POLICY, draft_length=4097), "draft_length"),
    (parse_policy, changed(POLICY, window=0), "window"),
    (parse_policy, changed(POLICY, window=4097), "window"),
    (parse_policy, changed(POLICY, verifiers=["a:1"] * 17), "verifiers"),
    (parse_policy, changed(POLICY, verifiers=["a:1", "a:0"]), "verifiers[1]"),
    (parse_policy, changed(POLICY, verifiers=["a:65536"]), "verifiers[0]"),
    (parse_policy, changed(POLICY, verifiers=["no port"]), "verifiers[0]"),
    (parse_policy, changed(POLICY, explanation="e" * 513), "explanation"),
    (parse_status, changed(STATUS, incarnation=0), "incarnation"),
    (parse_status, changed(STATUS, sequence=0), "sequence"),
    (parse_status, changed(STATUS, address=""), "address"),
    (parse_status, changed(STATUS, address="a" * 256 + ":1"), "address"),
    (parse_status, changed(STATUS, address="a\x1b[2J:1"), "address"),
    (parse_status, changed(STATUS, target=None), "target"),
    (parse_status, changed(STATUS, max_sessions=0), "max_sessions"),
    (parse_status, changed(STATUS, busy_ppb=10**9 + 1), "busy_ppb"),
    (parse_status, changed(STATUS, version="v" * 65), "version"),
    (parse_policy, bytes(MAX_PAYLOAD_BYTES + 1), "payload"),
    (parse_policy, b"\xff", "payload"),
    (parse_presence, b"\x1a\x01\xff", "payload"),
]


@pytest.mark.parametrize(
    ("parse", "payload", "field"), WRONG, ids=[f"{i}-{case[2]}" for i, case in enumerate(WRONG)]
)
def test_what_is_out_of_bounds_is_refused_by_name(parse: Parse, payload: bytes, field: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse(payload)
    assert str(refused.value).startswith(f"{field}: got ")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Presence(online=True, incarnation=0), "incarnation"),
        (Presence(online=True, incarnation=2**64), ""),
        (EdgeTelemetry(incarnation=1, sequence=1, tokenizer_fingerprint=b""), "tokenizer"),
        (policy(0), "revision"),
        (VerifierStatus(online=True, incarnation=1, sequence=1, address="a:1"), "target"),
        *(
            (
                EdgeTelemetry(
                    incarnation=1,
                    sequence=1,
                    tokenizer_fingerprint=bytes(32),
                    gauges=EdgeGauges(rtt_s=rtt_s),
                ),
                field,
            )
            for rtt_s, field in (
                (nan, "gauges.rtt_s"),
                (inf, "gauges.rtt_s"),
                (-1.0, ""),
                (1e300, ""),
            )
        ),
        *(
            (
                EdgeTelemetry(
                    incarnation=1,
                    sequence=1,
                    tokenizer_fingerprint=bytes(32),
                    gauges=EdgeGauges(acceptance_probability=part),
                ),
                "gauges.acceptance_probability",
            )
            for part in (-0.1, 1.1, nan)
        ),
    ],
)
def test_a_wrong_value_fails_where_it_was_made(value: ControlValue, field: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"{type(value).__name__} to send: .*{field}"):
        encode_control(value)


def test_texts_for_people_lose_what_is_too_long() -> None:
    sent = EdgePolicy(revision=1, draft_length=1, window=1, explanation="\u00e9" * 400)
    received = parse_policy(encode_control(sent))
    assert isinstance(received, EdgePolicy)
    assert received.explanation == "\u00e9" * 256


def test_texts_for_people_lose_what_would_steer_their_terminal() -> None:
    sent = EdgePolicy(revision=1, draft_length=1, window=1, explanation="a\x1b[2J\n\u202e\u00e9")
    received = parse_policy(encode_control(sent))
    assert isinstance(received, EdgePolicy)
    assert received.explanation == "a?[2J??\u00e9"


def test_a_verifier_that_is_offline_says_nothing_else() -> None:
    payload = changed(STATUS, online=False)
    assert parse_status(payload) == VerifierStatus(online=False, incarnation=1)


# --- nonsense


@pytest.mark.slow
@given(payload=st.binary(max_size=200))
def test_random_bytes_raise_our_error_only(payload: bytes) -> None:
    for parse in PARSERS.values():
        with suppress(RemoteProtocolError):
            parse(payload)


def test_damaged_payloads_raise_our_error_only() -> None:
    generator = random.Random(7)
    num_refused = 0
    for value in (telemetry(1), policy(1), status(1)):
        payload = encode_control(value)
        for _ in range(300):
            damaged = bytearray(payload)
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            for parse in PARSERS.values():
                try:
                    parse(bytes(damaged))
                except RemoteProtocolError:
                    num_refused += 1
    assert num_refused > 1000
