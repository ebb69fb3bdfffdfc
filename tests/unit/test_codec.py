"""Every message survives the wire, every bound of the schema is checked there, and nonsense raises our errors only."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf, isclose, nan

import pytest
from harness.any_message import CLOUD_MESSAGES, EDGE_MESSAGES
from harness.toy_verifier import SMALL_LIMITS, toy_identity, toy_request
from hypothesis import given
from hypothesis import strategies as st

from paceline import codec
from paceline.errors import InvalidRequestError, ProtocolError, RemoteProtocolError
from paceline.messages import (
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    EdgeMessage,
    Failure,
    Open,
    Opened,
    Proposal,
    Resume,
)
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, SessionId, TokenId
from paceline.v1 import verification_pb2 as pb


@pytest.mark.slow
@given(message=EDGE_MESSAGES)
def test_what_an_edge_says_arrives(message: EdgeMessage) -> None:
    assert codec.parse_edge(codec.encode_edge(message).SerializeToString()) == message


@pytest.mark.slow
@given(message=CLOUD_MESSAGES)
def test_what_a_verifier_says_arrives(message: CloudMessage) -> None:
    assert codec.parse_cloud(codec.encode_cloud(message).SerializeToString()) == message


# --- every bound, from the edge


def numbered(cases: Sequence[tuple[str, object]]) -> list[str]:
    """Return a name for each case."""
    return [f"{field}-{i}" for i, (field, _) in enumerate(cases)]


PROMPT = pb.Open(prompt=[1], max_tokens=1, tokenizer_fingerprint=bytes(32))


def opening(**fields: object) -> pb.VerifyRequest:
    request = pb.VerifyRequest(open=PROMPT)
    request.open.MergeFrom(pb.Open(**fields))  # type: ignore[arg-type]
    return request


def sampling(**fields: object) -> pb.VerifyRequest:
    return opening(sampling=pb.Sampling(**fields))  # type: ignore[arg-type]


WRONG_REQUESTS: list[tuple[str, pb.VerifyRequest]] = [
    ("message", pb.VerifyRequest()),
    ("open.prompt", pb.VerifyRequest(open=pb.Open(max_tokens=1))),
    ("open.max_tokens", pb.VerifyRequest(open=pb.Open(prompt=[1]))),
    ("open.tokenizer_fingerprint", opening(tokenizer_fingerprint=bytes(31))),
    ("open.tokenizer_fingerprint", opening(tokenizer_fingerprint=bytes(33))),
    ("open.weights_fingerprint", opening(weights_fingerprint=bytes(31))),
    ("open.stop_tokens", opening(stop_tokens=range(65))),
    ("open.num_logprobs", opening(num_logprobs=21)),
    ("open.sampling.temperature", sampling(temperature=-0.5)),
    ("open.sampling.temperature", sampling(temperature=101)),
    ("open.sampling.temperature", sampling(temperature=nan)),
    ("open.sampling.temperature", sampling(temperature=inf)),
    ("open.sampling.top_k", sampling(top_k=2**31)),
    ("open.sampling.top_p", sampling(top_p=1.5)),
    ("open.sampling.top_p", sampling(top_p=-0.5)),
    ("open.sampling.top_p", sampling(top_p=nan)),
    ("open.sampling.min_p", sampling(min_p=1.0)),
    ("open.sampling.min_p", sampling(min_p=nan)),
    ("open.sampling.repetition_penalty", sampling(repetition_penalty=-1)),
    ("open.sampling.repetition_penalty", sampling(repetition_penalty=nan)),
    ("open.sampling.presence_penalty", sampling(presence_penalty=101)),
    ("open.sampling.presence_penalty", sampling(presence_penalty=nan)),
    ("open.sampling.frequency_penalty", sampling(frequency_penalty=-101)),
    ("open.sampling.frequency_penalty", sampling(frequency_penalty=nan)),
    ("open.sampling.logit_bias[5]", sampling(logit_bias={5: 1001})),
    ("open.sampling.logit_bias[5]", sampling(logit_bias={5: nan})),
    ("open.sampling.logit_bias", sampling(logit_bias=dict.fromkeys(range(1025), 1.0))),
    ("resume.session_id", pb.VerifyRequest(resume=pb.Resume(session_id=bytes(15)))),
    ("proposal.tokens", pb.VerifyRequest(proposal=pb.Proposal(tokens=range(4097)))),
    (
        "proposal.parents",
        pb.VerifyRequest(proposal=pb.Proposal(tokens=[1], parents=[0, 1])),
    ),
]


@pytest.mark.parametrize(("field", "request_"), WRONG_REQUESTS, ids=numbered(WRONG_REQUESTS))
def test_a_request_out_of_bounds_is_refused_by_name(field: str, request_: pb.VerifyRequest) -> None:
    with pytest.raises((InvalidRequestError, RemoteProtocolError)) as refused:
        codec.parse_edge(request_.SerializeToString())
    assert str(refused.value).startswith(f"{field}: got ")


def test_requests_at_their_bounds_are_fine() -> None:
    for request in (
        opening(
            stop_tokens=range(64),
            num_logprobs=20,
            patience_ms=2**32 - 1,
            weights_fingerprint=bytes(32),
        ),
        sampling(temperature=100, top_k=2**31 - 1, logit_bias=dict.fromkeys(range(1024), 1000)),
        pb.VerifyRequest(proposal=pb.Proposal(tokens=range(4096), parents=[1] * 4096)),
    ):
        codec.parse_edge(request.SerializeToString())


def test_zero_is_the_neutral_value() -> None:
    message = codec.decode_edge(opening())
    assert isinstance(message, Open)
    assert message.sampling == SamplingSettings(temperature=0.0)


def test_settings_that_float32_can_not_hold_keep_their_meaning() -> None:
    """0.0 would arrive as the neutral 1, and 1.0 be refused."""
    exact = SamplingSettings(top_p=1e-60, min_p=1 - 1e-12, repetition_penalty=1e-60)
    message = codec.decode_edge(codec.encode_edge(replace(toy_request(), sampling=exact)))
    assert isinstance(message, Open)
    assert 0 < message.sampling.top_p < 1e-40
    assert 0 < message.sampling.repetition_penalty < 1e-40
    assert isclose(message.sampling.min_p, 1.0, rel_tol=1e-7)


def test_a_close_without_a_known_reason_is_a_close() -> None:
    for reason in (0, 77):
        request = pb.VerifyRequest(close=pb.Close(reason=reason))  # type: ignore[arg-type]
        assert codec.parse_edge(request.SerializeToString()) == Close(reason=CloseReason.DONE)


# --- every bound, from the verifier

GOOD = codec.encode_cloud(
    Opened(
        session_id=SessionId(bytes(16)),
        limits=SMALL_LIMITS,
        target=toy_identity(24),
        length=Position(3),
    )
).opened


def opened(**fields: object) -> pb.VerifyResponse:
    response = pb.VerifyResponse(opened=GOOD)
    response.opened.MergeFrom(pb.Opened(**fields))  # type: ignore[arg-type]
    return response


def identity(**fields: object) -> pb.VerifyResponse:
    response = pb.VerifyResponse(opened=GOOD)
    for name, value in fields.items():
        setattr(response.opened.target, name, value)
    return response


def limits(**fields: int) -> pb.VerifyResponse:
    response = pb.VerifyResponse(opened=GOOD)
    for name, value in fields.items():
        setattr(response.opened.limits, name, value)
    return response


def committed(**fields: object) -> pb.VerifyResponse:
    return pb.VerifyResponse(commit=pb.Commit(**fields))  # type: ignore[arg-type]


def entry(**fields: object) -> pb.VerifyResponse:
    return committed(tokens=[1], logprobs=[pb.TokenLogprobs(**fields)])  # type: ignore[arg-type]


WRONG_RESPONSES: list[tuple[str, pb.VerifyResponse]] = [
    ("message", pb.VerifyResponse()),
    ("opened.session_id", opened(session_id=bytes(17))),
    ("opened.address", opened(address="x" * 257)),
    ("opened.limits.window", limits(window=63)),
    ("opened.limits.max_lead", limits(max_lead=0)),
    ("opened.limits.context_length", limits(context_length=0)),
    ("opened.limits.max_tokens", limits(max_tokens=0)),
    ("opened.target.name", identity(name="\u00e9" * 129)),
    ("opened.target.dtype", identity(dtype="x" * 257)),
    ("opened.target.quantisation", identity(quantisation="x" * 257)),
    ("opened.target.weights_fingerprint", identity(weights_fingerprint=bytes(1))),
    ("opened.target.tokenizer_fingerprint", identity(tokenizer_fingerprint=b"")),
    ("opened.target.vocabulary_size", identity(vocabulary_size=0)),
    ("opened.target.context_length", identity(context_length=0)),
    ("commit.tokens", committed(tokens=range(1025))),
    ("commit.logprobs", committed(tokens=[1, 2], logprobs=[pb.TokenLogprobs()])),
    ("commit.logprobs", entry(logprob=nan)),
    ("commit.logprobs", entry(top_tokens=[1], top_logprobs=[nan])),
    ("commit.logprobs.top_tokens", entry(top_tokens=range(21), top_logprobs=[0.0] * 21)),
    ("commit.logprobs.top_logprobs", entry(top_tokens=[1])),
    ("commit.finish", committed(finish=9)),
    ("commit.accepted_mask", committed(tokens=[1, 2], accepted_mask=b"\4")),
    ("failure.reason", pb.VerifyResponse(failure=pb.Failure(reason="X" * 65))),
    ("failure.message", pb.VerifyResponse(failure=pb.Failure(message="x" * 1025))),
]


@pytest.mark.parametrize(("field", "response"), WRONG_RESPONSES, ids=numbered(WRONG_RESPONSES))
def test_a_response_out_of_bounds_is_refused_by_name(
    field: str, response: pb.VerifyResponse
) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        codec.parse_cloud(response.SerializeToString())
    assert str(refused.value).startswith(f"{field}: got ")


def test_zero_bytes_at_the_end_of_the_mask_may_be_there() -> None:
    message = codec.decode_cloud(committed(tokens=[1, 2], accepted_mask=b"\2\0\0"))
    assert isinstance(message, Commit)
    assert message.accepted == (False, True)


def test_a_long_failure_is_cut_at_a_character() -> None:
    failure = Failure(reason="R" * 70, message="x" + "\u00e9" * 600, retryable=False)
    message = codec.decode_cloud(codec.encode_cloud(failure))
    assert isinstance(message, Failure)
    assert message.reason == "R" * 64
    assert message.message == "x" + "\u00e9" * 511
    half = replace(failure, message="\ud800")
    assert codec.encode_cloud(half).failure.message == "?"


def test_a_verifier_need_not_tell_its_weights() -> None:
    message = codec.decode_cloud(identity(weights_fingerprint=b""))
    assert isinstance(message, Opened)
    assert message.target.weights_fingerprint == b""


# --- nonsense


def test_bytes_that_are_no_message() -> None:
    for parse in (codec.parse_edge, codec.parse_cloud):
        with pytest.raises(RemoteProtocolError, match="message: got 3 bytes that are no Verify"):
            parse(b"\xff\xff\xff")


@pytest.mark.slow
def test_random_bytes_raise_nothing_but_our_errors() -> None:
    """Pure noise, and good messages with some bytes changed, cut or doubled."""
    rng = random.Random(5)
    good = [
        codec.encode_edge(toy_request(output=(4, 5), stop_tokens=(9,))).SerializeToString(),
        codec.encode_edge(
            Proposal(base_position=Position(300), tokens=(TokenId(4),) * 9, parents=(0, 2))
        ).SerializeToString(),
        codec.encode_edge(
            Resume(session_id=SessionId(bytes(16)), length=Position(9))
        ).SerializeToString(),
        opened(address="host:1").SerializeToString(),
        entry(top_tokens=[1], top_logprobs=[-1.0]).SerializeToString(),
    ]
    outcomes = {"refused": 0, "taken": 0}
    for _ in range(20_000):
        if rng.random() < 0.3:
            payload = rng.randbytes(rng.randrange(40))
        else:
            mutable = bytearray(rng.choice(good))
            for _ in range(rng.randrange(1, 4)):
                mutable[rng.randrange(len(mutable))] = rng.randrange(256)
            payload = bytes(mutable[: rng.randrange(1, 3 * len(mutable))])
        for parse in (codec.parse_edge, codec.parse_cloud):
            try:
                parse(payload)
                outcomes["taken"] += 1
            except (ProtocolError, InvalidRequestError) as error:
                assert ": " in str(error)  # noqa: PT017 - it names the field
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 300


@pytest.mark.slow
@given(payload=st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_our_errors(payload: bytes) -> None:
    for parse in (codec.parse_edge, codec.parse_cloud):
        with suppress(ProtocolError, InvalidRequestError):
            parse(payload)


def test_a_description_is_read_from_its_bytes() -> None:
    told = pb.DescribeResponse(
        target=codec.encode_identity(toy_identity(24)),
        limits=codec.encode_limits(SMALL_LIMITS),
        protocol_version=1,
    )
    assert codec.read_description(told.SerializeToString()) == told
