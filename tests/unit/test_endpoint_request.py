"""Request bodies of the OpenAI-compatible endpoint: what is used, accepted, refused."""

from typing import Any

import pytest

from edge.endpoint.failures import ApiError, translate
from edge.endpoint.request import GenerationRequest, parse_chat, parse_completion
from paceline.errors import InvalidRequestError, LinkClosed, ModelError, OverloadedError
from paceline.prompts import Message

HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> GenerationRequest:
    return parse_chat({"model": "m", "messages": HELLO, **fields}, default_seed=11)


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    return caught.value


def test_defaults_are_openai_s() -> None:
    request = chat()
    assert request.messages == (Message(role="user", content="Hello"),)
    assert request.sampling.temperature == 1.0
    assert request.sampling.seed == 11
    assert request.max_tokens is None
    assert request.num_logprobs is None
    assert not request.stream
    assert not request.include_usage


def test_every_sampling_field_arrives() -> None:
    request = chat(
        temperature=0,
        top_p=0.5,
        top_k=7,
        min_p=0.25,
        presence_penalty=1,
        frequency_penalty=-1.5,
        repetition_penalty=1.25,
        logit_bias={"12": -100, "3": 5},
        seed=42,
    )
    settings = request.sampling
    assert (settings.temperature, settings.top_p, settings.top_k) == (0.0, 0.5, 7)
    assert (settings.min_p, settings.presence_penalty) == (0.25, 1.0)
    assert (settings.frequency_penalty, settings.repetition_penalty) == (-1.5, 1.25)
    assert settings.logit_bias == ((3, 5.0), (12, -100.0))
    assert settings.seed == 42


def test_null_means_absent_everywhere() -> None:
    names = ("temperature", "top_k", "stop", "seed", "logit_bias", "stream", "n", "tools", "user")
    assert chat(**dict.fromkeys(names)) == chat()


def test_negative_seed_wraps_round() -> None:
    assert chat(seed=-1).sampling.seed == 2**64 - 1


@pytest.mark.parametrize(
    ("stop", "strings"), [("a", ("a",)), (["a", "bc"], ("a", "bc")), ([], ()), (None, ())]
)
def test_stop_is_a_text_or_a_list(stop: Any, strings: tuple[str, ...]) -> None:
    assert chat(stop=stop).stop == strings


def test_newer_name_of_max_tokens_wins() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_completion_tokens=6).max_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=6).max_tokens == 6


def test_logprobs_and_their_alternatives() -> None:
    assert chat(logprobs=True).num_logprobs == 0
    assert chat(logprobs=True, top_logprobs=5).num_logprobs == 5
    assert chat(logprobs=False).num_logprobs is None


def test_content_parts_and_developer_role() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    request = chat(
        messages=[{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}]
    )
    assert request.messages == (
        Message(role="system", content="Be brief"),
        Message(role="user", content="one two"),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
        {"n": 1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}},
    ],
)
def test_fields_that_change_nothing_are_accepted(fields: dict[str, Any]) -> None:
    assert chat(**fields) == chat()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("reasoning_effort", "high"),
        ("temprature", 0.5),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 10**400),
        ("top_k", 1.5),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("stop", 3),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("seed", 2**64),
        ("seed", "abc"),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1": "a"}),
        ("logit_bias", {"1": 10**400}),
        ("logit_bias", {"1": float("nan")}),
        ("logit_bias", [1]),
        ("top_logprobs", 3),
        ("messages", []),
        ("messages", "Hello"),
        ("model", ""),
        ("model", 3),
    ],
)
def test_refusals_name_the_field(name: str, value: Any) -> None:
    error = refused(**{name: value})
    assert error.status == 400
    assert error.param == name
    assert name in error.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("text", "messages[0]"),
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[0].content[0].text"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "messages[0].tool_calls"),
    ],
)
def test_refusals_name_the_place_in_the_conversation(message: Any, param: str) -> None:
    assert refused(messages=[message]).param == param


def test_misspelled_field_gets_a_hint() -> None:
    assert "did you mean 'temperature'" in refused(temprature=1).message


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "presence_penalty"])
def test_ranges_are_those_of_the_sampler(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat(**{name: 1000})
    error = translate(caught.value)
    assert (error.status, error.param) == (400, name)


def test_stream_options() -> None:
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream=True, stream_options={"include_usage": False}).include_usage
    assert refused(stream=True, stream_options={"other": 1}).param == "stream_options"
    assert refused(stream=True, stream_options=[1]).param == "stream_options"


def test_body_must_be_an_object() -> None:
    with pytest.raises(ApiError, match="JSON object"):
        parse_chat([], default_seed=0)


def test_text_completion() -> None:
    request = parse_completion({"model": "m", "prompt": "Once"}, default_seed=3)
    assert request.prompt == "Once"
    assert request.max_tokens == 16
    assert request.sampling.seed == 3
    assert parse_completion({"model": "m", "prompt": ["Once"]}, default_seed=3) == request


@pytest.mark.parametrize(
    ("name", "value"),
    [("prompt", ["a", "b"]), ("prompt", ""), ("logprobs", 2), ("echo", True), ("best_of", 3)],
)
def test_text_completion_refusals(name: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        parse_completion({"model": "m", "prompt": "Once", name: value}, default_seed=0)
    assert caught.value.param == name


def test_our_errors_become_openai_s() -> None:
    overloaded = translate(OverloadedError("full", retry_after_s=2.5))
    assert (overloaded.status, overloaded.headers()) == (429, {"Retry-After": "3"})
    unreachable = translate(LinkClosed("gone"))
    assert unreachable.status == 503
    assert "Retry-After" in unreachable.headers()
    assert translate(ModelError("nan")).status == 500
    too_long = translate(InvalidRequestError("prompt: got 10 tokens, the context holds 8"))
    assert (too_long.status, too_long.code) == (400, "context_length_exceeded")
    assert set(too_long.body()["error"]) == {"message", "type", "param", "code"}
