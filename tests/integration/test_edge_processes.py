"""The commands as processes: settings from everywhere, clean ends, one sentence for what goes wrong."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import psutil
import pytest
from harness.models import save_tiny, tiny_tokenizer
from harness.processes import Child, running

from paceline.settings import child_environment

pytestmark = pytest.mark.slow

COMMAND = "paceline.command"
GONE_S = 15.0
"""Longest time until the children of a killed process have noticed."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("target")))


@pytest.fixture(scope="module")
def cloud(target: str) -> Iterator[str]:
    """The address of a verifier in a process of its own."""
    arguments = ("cloud", "--target", target, "--listen", "127.0.0.1:0", "--threads", "1")
    with running(COMMAND, *arguments, ready=r"ready on (\S+)") as child:
        assert child.ready is not None
        yield child.ready[1]


def completed(
    *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a folder."""
    return subprocess.run(
        [sys.executable, "-P", "-m", COMMAND, *arguments],
        cwd=folder,
        env=child_environment({"HOME": str(folder), **environment}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@contextmanager
def chatting(target: str) -> Iterator[tuple[Child, list[psutil.Process]]]:
    """A chat that has answered once, and the processes below it."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", COMMAND, "chat", "--target", target, "--max-tokens", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=child_environment(),
    )
    child = Child(process)
    below: list[psutil.Process] = []
    try:
        assert process.stdin is not None
        process.stdin.write("Hello\n")
        process.stdin.flush()
        child.wait_for("\n")
        below = psutil.Process(process.pid).children(recursive=True)
        yield child, below
    finally:
        child.kill()
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        for left in below:
            if left.is_running():
                left.kill()


def test_file_environment_and_flags_reach_the_answer_of_a_private_verifier(
    target: str, tmp_path: Path
) -> None:
    settings = f'[generate]\ntarget = "{target}"\nmax-tokens = 9\nseed = 4\nthreads = 1\n'
    (tmp_path / "paceline.toml").write_text(settings)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a"}\n{"id": "b", "messages": [{"role": "user", "content": "c"}]}'
    )
    ran = completed(
        *("generate", "--json", "--prompts", str(prompts), "--seed", "5"),
        folder=tmp_path,
        PACELINE_GENERATE_MAX_TOKENS="7",
        PACELINE_CLOUD_TARGET="/nowhere",
    )
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == ["1", "b"]
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [7, 7]
    assert [answer["seed"] for answer in answers] == [5, 5]
    assert "starting a private verifier" in ran.stderr


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9), (None, 0)],
)
def test_no_process_is_left_however_a_chat_ends(
    target: str, number: signal.Signals | None, status: int
) -> None:
    with chatting(target) as (chat, below):
        assert below, "the private verifier is a child"
        if number is None:
            assert chat.process.stdin is not None
            chat.process.stdin.close()
        else:
            chat.signal(number)
        assert chat.wait() == status
        _, alive = psutil.wait_procs(below, timeout=GONE_S)
        assert not alive
        assert "Traceback" not in chat.stderr
        assert number is not None or chat.stderr.count("tokens/s") == 1


def test_an_agent_ends_with_its_private_verifier(target: str) -> None:
    arguments = ("edge", "--listen", "127.0.0.1:0", "--target", target, "--threads", "1")
    with running(COMMAND, *arguments, ready=r"ready on (\S+)") as agent:
        (verifier,) = psutil.Process(agent.pid).children()
        verifier.kill()
        assert agent.wait() == 2
    last = agent.stderr.splitlines()[-1]
    assert last.startswith("paceline: the private verifier ended with status -9")
    assert "Traceback" not in agent.stderr


def test_a_chat_ends_with_its_private_verifier(target: str) -> None:
    with chatting(target) as (chat, (verifier, *_)):
        verifier.kill()
        assert chat.process.stdin is not None
        chat.process.stdin.write("Still there?\n")
        chat.process.stdin.flush()
        assert chat.wait() == 2
        assert "paceline: the private verifier ended with status -9" in chat.stderr
        assert "Traceback" not in chat.stderr
        assert "never awaited" not in chat.stderr


def test_a_private_verifier_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)  # all that we need, but not all that it needs
    ran = completed("generate", "Hi", "--target", str(tmp_path), folder=tmp_path)
    assert ran.returncode == 2, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("paceline: the private verifier ended with status 2: ")
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_the_agent_serves_openai_clients_until_it_is_told_to_end(target: str, cloud: str) -> None:
    arguments = ("edge", "--listen", "127.0.0.1:0", "--cloud", cloud, "--target", target)
    environment = {"PACELINE_EDGE_API_KEY": "0123456789", "PACELINE_EDGE_MODEL_NAME": "mine"}
    with running(COMMAND, *arguments, ready=r"ready on (\S+)", environment=environment) as agent:
        assert agent.ready is not None
        with openai.OpenAI(base_url=agent.ready[1], api_key="0123456789") as client:
            assert [model.id for model in client.models.list()] == ["mine"]
            answer = client.chat.completions.create(
                model="mine", messages=[{"role": "user", "content": "Hi"}], max_tokens=5
            )
            assert answer.usage is not None
            assert answer.usage.completion_tokens <= 5
        assert agent.terminate() == 0
        assert agent.stderr.count("Traceback") == 0


@pytest.mark.real
def test_generate_alone_answers_with_the_real_model(tmp_path: Path) -> None:
    ran = completed(
        *("generate", "What is the capital of France?", "--json", "--max-tokens", "16"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert "Paris" in answer["text"]
    assert answer["finish_reason"] == "stop"
    assert answer["statistics"]["committed"] == answer["usage"]["completion_tokens"]
