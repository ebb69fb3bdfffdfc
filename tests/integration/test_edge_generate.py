"""`generate` and `chat` in this process, before a real verifier."""

import asyncio
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness.endpoint import scene, tiny_tokenizer
from harness.event_loop import run_async
from harness.models import gpt2_config, llama_config, save_tiny, tiny_model
from harness.raw_edge import settled
from harness.reference import reference_output

from cloud.worker import WorkerSettings
from edge.agent import open_agent
from edge.chat import Conversation
from edge.generate import OutputSettings, _generate
from edge.options import AgentSettings, AnswerSettings
from paceline.console import TokenPrinter
from paceline.errors import IncompatibleError, InvalidRequestError, PacelineError, TransportError
from paceline.prompts import Message, PromptLine
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import TokenId

HELLO = PromptLine(name="hello", messages=(Message(role="user", content="Hello"),))
ANSWERS = AnswerSettings(max_tokens=12, seed=5, temperature=0.7)


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    with TemporaryDirectory() as path:
        yield str(save_tiny(Path(path)))


def expected(prompt: tuple[TokenId, ...]) -> list[TokenId]:
    return reference_output(
        tiny_model(llama_config()),
        list(prompt),
        sampling=SamplingSettings(temperature=0.7, seed=5),
        max_tokens=12,
        stop_tokens=tiny_tokenizer().stop_tokens,
        vocabulary_size=tiny_tokenizer().vocabulary_size,
    )


def chat_ids(*messages: Message) -> tuple[TokenId, ...]:
    return tiny_tokenizer().encode_chat([{"role": m.role, "content": m.content} for m in messages])


def generated(
    folder: str,
    *lines: PromptLine,
    answers: AnswerSettings = ANSWERS,
    output: OutputSettings | None = None,
    draft: str = "lookup",
) -> None:
    failures: list[PacelineError] = []

    async def run() -> None:
        async with scene() as here:
            agent = AgentSettings(verifiers=(here.verifier.address,), target=folder, draft=draft)
            try:
                await _generate(
                    lines,
                    opening=open_agent(agent),
                    answers=answers,
                    output=output or OutputSettings(),
                )
            except PacelineError as error:
                # Out here it would be part of the verifier's group of failures.
                failures.append(error)

    run_async(run())
    if failures:
        raise failures[0]


@pytest.mark.parametrize("draft", ["lookup", "none", "folder"])
def test_json_has_the_targets_own_answer(
    folder: str, draft: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = PromptLine(name="2", messages=(Message(role="user", content="aaaa aaaa"),))
    name = folder if draft == "folder" else draft
    generated(folder, HELLO, other, output=OutputSettings(as_json=True), draft=name)
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [data["id"] for data in objects] == ["hello", "2"]
    for data, line in zip(objects, (HELLO, other), strict=True):
        tokens = expected(chat_ids(*line.messages))
        assert data["token_ids"] == tokens
        assert data["text"] == tiny_tokenizer().decode(tokens)
        assert data["usage"]["prompt_tokens"] == len(chat_ids(*line.messages))
        assert data["usage"]["completion_tokens"] == len(tokens) == 12
        assert data["finish_reason"] == "length"
        assert data["seed"] == 5
        if draft == "none":
            assert data["statistics"]["drafted"] == 0


def test_text_goes_to_stdout_and_the_line_to_stderr(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = OutputSettings(json_file=tmp_path / "answers.jsonl")
    generated(folder, HELLO, output=both)
    assert json.loads((tmp_path / "answers.jsonl").read_text())["token_ids"] == expected(
        chat_ids(*HELLO.messages)
    )
    said = capsys.readouterr()
    assert said.out.rstrip("\n") == tiny_tokenizer().decode(
        expected(chat_ids(*HELLO.messages))
    ).rstrip("\n")
    assert said.out.endswith("\n")
    assert "tokens/s" in said.err.splitlines()[-1]
    assert "\x1b" not in said.out + said.err


def test_system_and_raw_make_the_prompt(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    as_json = OutputSettings(as_json=True)
    answers = AnswerSettings(max_tokens=12, seed=5, temperature=0.7, system="Be brief")
    generated(folder, HELLO, answers=answers, output=as_json)
    tokens = json.loads(capsys.readouterr().out)["token_ids"]
    assert tokens == expected(chat_ids(Message(role="system", content="Be brief"), *HELLO.messages))
    generated(folder, HELLO, output=OutputSettings(as_json=True, raw=True))
    tokens = json.loads(capsys.readouterr().out)["token_ids"]
    assert tokens == expected(tiny_tokenizer().encode("Hello"))


def test_a_too_long_prompt_is_told_by_name(folder: str) -> None:
    long = PromptLine(name="1", messages=(Message(role="user", content="x" * 600),))
    with pytest.raises(InvalidRequestError, match="context"):
        generated(folder, long)


def test_a_wrong_tokenizer_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    other = str(save_tiny(tmp_path, config=gpt2_config()))
    vocabulary = tmp_path / "tokenizer.json"
    content = json.loads(vocabulary.read_text())
    content["model"]["vocab"]["zz"] = 260
    vocabulary.write_text(json.dumps(content))
    with pytest.raises(IncompatibleError, match="--target"):
        generated(other, HELLO)


def test_an_unreachable_verifier_is_told_at_once(folder: str) -> None:
    async def run() -> None:
        nowhere = AgentSettings(verifiers=(Address(host="127.0.0.1", port=1),), target=folder)
        async with open_agent(nowhere):
            raise AssertionError("never reached")

    with pytest.raises(TransportError, match=r"127\.0\.0\.1:1"):
        run_async(run())


def test_a_conversation_remembers_and_survives_errors(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = StringIO()

    async def run() -> list[Message]:
        async with scene() as here:
            agent = AgentSettings(verifiers=(here.verifier.address,), target=folder)
            async with open_agent(agent) as opened:
                talk = Conversation(ANSWERS, printer=TokenPrinter(shown))
                await talk.turn(opened.client, "Hello")
                await talk.turn(opened.client, "x" * 600)
                await talk.turn(opened.client, "Again")
                messages = list(talk.messages)
                assert talk.command("/nothing")
                assert talk.command("/help")
                assert talk.command("/new")
                assert not talk.command("/exit")
                assert talk.messages == []
                return messages

    messages = run_async(run())
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert messages[2].content == "Again"
    first, second = messages[1].content, messages[3].content
    assert first == tiny_tokenizer().decode(expected(chat_ids(messages[0])))
    assert second == tiny_tokenizer().decode(expected(chat_ids(*messages[:3])))
    assert first in shown.getvalue()
    said = capsys.readouterr().err
    assert "context" in said
    assert "/nothing is not known" in said


def test_a_stopped_answer_stays_in_the_conversation_and_frees_the_verifier(folder: str) -> None:
    class Watched(StringIO):
        def write(self, text: str) -> int:
            wrote.set()
            return super().write(text)

    wrote = asyncio.Event()

    async def run() -> list[Message]:
        slow = WorkerSettings(min_step_s=0.02)
        async with scene(worker=slow) as here:
            agent = AgentSettings(verifiers=(here.verifier.address,), target=folder)
            async with open_agent(agent) as opened:
                talk = Conversation(AnswerSettings(max_tokens=400), printer=TokenPrinter(Watched()))
                async with asyncio.TaskGroup() as group:
                    turn = group.create_task(talk.turn(opened.client, "Hello"))
                    await wrote.wait()
                    turn.cancel()
                await settled(here.verifier, here.engine)
                return list(talk.messages)

    messages = run_async(run(), timeout_s=7.0)
    assert [message.role for message in messages] == ["user", "assistant"]
    assert messages[1].content
