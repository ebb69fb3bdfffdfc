"""Bodies, chunks and the gate of the endpoint, without a verifier."""

import json
from typing import Any

import pytest
from harness.endpoint import tiny_tokenizer

from edge.endpoint.answer import DONE, KEEP_ALIVE, Heading, event, piece_logprobs
from edge.endpoint.gate import EndpointSettings
from edge.endpoint.service import ServedModel
from paceline.client.outcome import EndReason, GenerationResult, Piece, Statistics
from paceline.errors import ConfigError
from paceline.messages import Limits, ModelIdentity, TokenLogprobs
from paceline.settings import Address
from paceline.tokens import Position, TokenId

HEADING = Heading(kind="chat", id="chatcmpl-1", created=1, model="m", fingerprint="fp_1")
RESULT = GenerationResult(
    text="Hi",
    token_ids=(TokenId(1), TokenId(2)),
    finish_reason=EndReason.STOP,
    prompt_tokens=5,
    seed=3,
    statistics=Statistics(committed=9),
)


def test_an_event_is_one_line_whatever_the_text() -> None:
    data = event(HEADING.piece_chunk("a\nb\r\u2028\U0001f6b4", logprobs=None))
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    text = json.loads(data[6:])["choices"][0]["delta"]["content"]
    assert text == "a\nb\r\u2028\U0001f6b4"


def test_comment_and_end_are_the_standard_s() -> None:
    assert KEEP_ALIVE.startswith(b":")
    assert DONE == b"data: [DONE]\n\n"


def test_usage_counts_tokens_up_to_the_stop_not_what_lay_behind() -> None:
    body = HEADING.body(RESULT, logprobs=None)
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert body["paceline"]["statistics"]["committed"] == 9
    assert body["paceline"]["seed"] == 3
    assert body["choices"][0]["logprobs"] is None


def test_a_token_that_is_part_of_a_character_has_no_bytes() -> None:
    tokenizer = tiny_tokenizer()
    part, _ = tokenizer.encode("\u00e9")
    whole = tokenizer.encode("x")[0]
    piece = Piece(
        text="",
        token_ids=(part,),
        accepted=False,
        position=Position(0),
        logprobs=TokenLogprobs(
            logprob=float("-inf"), top_tokens=(whole, part), top_logprobs=(-0.5, -1.5)
        ),
    )
    entry = piece_logprobs(piece, num_top=1, tokenizer=tokenizer)
    assert entry is not None
    assert entry["bytes"] is None
    assert entry["logprob"] == -9999.0
    assert entry["top_logprobs"] == [{"token": "x", "logprob": -0.5, "bytes": [120]}]


def test_a_piece_without_token_has_no_logprobs() -> None:
    piece = Piece(text="x", token_ids=(), accepted=False, position=Position(3))
    assert piece_logprobs(piece, num_top=1, tokenizer=tiny_tokenizer()) is None


def test_fingerprint_changes_with_what_may_change_the_text() -> None:
    def served(**changes: Any) -> ServedModel:
        fields: dict[str, Any] = {"weights_fingerprint": b"w" * 32, "dtype": "float32", "name": "a"}
        fields |= changes
        target = ModelIdentity(
            quantisation="",
            tokenizer_fingerprint=b"",
            vocabulary_size=1,
            context_length=9,
            **fields,
        )
        limits = Limits(window=64, max_lead=8, context_length=9, max_tokens=9, lease_ms=1)
        return ServedModel(name="m", target=target, limits=limits)

    assert served().fingerprint == served(name="b").fingerprint
    assert served().fingerprint != served(dtype="bfloat16").fingerprint
    assert served().fingerprint != served(weights_fingerprint=b"v" * 32).fingerprint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box.example", "127.box.example"])
def test_other_machines_need_a_key_or_the_users_word(host: str) -> None:
    listen = Address(host=host, port=8080)
    with pytest.raises(ConfigError, match="--api-key"):
        EndpointSettings(listen=listen)
    EndpointSettings(listen=listen, insecure=True)
    settings = EndpointSettings(listen=listen, api_key="0123456789")
    assert "0123456789" not in repr(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_needs_none(host: str) -> None:
    EndpointSettings(listen=Address(host=host, port=8080))
