"""The timeline of a real answer: a real client before a real verifier."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness.endpoint import scene
from harness.event_loop import run_async
from harness.models import save_tiny
from harness.timelines import check_timeline, check_trace

from edge.agent import open_agent
from edge.generate import OutputSettings, _generate
from edge.options import AgentSettings, AnswerSettings
from edge.timeline import TimelineFile
from paceline.prompts import Message, PromptLine
from paceline.timeline.building import timeline_of
from paceline.timeline.facts import Upward
from paceline.timeline.summing import INFERRED
from paceline.timeline.value import Lane

REPEATED = PromptLine(name="1", messages=(Message(role="user", content="aaaa aaaa aaaa"),))


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    with TemporaryDirectory() as path:
        yield str(save_tiny(Path(path)))


@pytest.mark.slow
@pytest.mark.parametrize("draft", ["folder", "none"])
def test_an_answer_writes_its_timeline_and_not_its_text(
    folder: str, draft: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = TimelineFile(path=tmp_path / "t.json")
    agents: list[AgentSettings] = []

    async def answer() -> None:
        async with scene() as here:
            agent = AgentSettings(
                verifiers=(here.verifier.address,),
                target=folder,
                draft=folder if draft == "folder" else draft,
            )
            agents.append(agent)
            await _generate(
                (REPEATED,),
                opening=open_agent(agent),
                answers=AnswerSettings(max_tokens=24, seed=5, temperature=0.0),
                output=OutputSettings(as_json=True),
                trace=file.trace,
            )

    run_async(answer())
    answered = json.loads(capsys.readouterr().out)
    timeline = timeline_of(file.trace.facts(), title="real")
    check_timeline(timeline, num_tokens=len(answered["token_ids"]))
    check_trace(timeline)
    tokens = [token for commit in timeline.commits for token in commit.tokens]
    assert tokens == answered["token_ids"]
    told = answered["statistics"]
    figures = timeline.figures
    assert (figures.accepted, figures.judged) == (told["accepted"], told["judged"])
    assert (figures.drafted, figures.steps) == (told["drafted"], told["steps"])
    sent = [fact for fact in file.trace.facts().facts if isinstance(fact, Upward)]
    assert sum(fact.num_bytes for fact in sent) == told["payload_bytes_up"]
    assert {span.lane for span in timeline.spans} >= {Lane.UPLINK, Lane.VERIFY, Lane.DOWNLINK}
    assert any(span.lane is Lane.DRAFT for span in timeline.spans) == (draft == "folder")
    assert timeline.notes == (INFERRED,)
    assert not timeline.happenings

    file.save(agents[0])
    written = file.path.read_text(encoding="utf-8")
    assert "token_ids" not in written
    assert len(json.loads(written)["traceEvents"]) > 24
    assert str(file.path) in capsys.readouterr().err
