"""A world of real programs in virtual time: the target's text, and the same log everywhere."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from harness.model_world import save_pair

from edge.steering import LengthPolicy
from paceline.tokens import TokenId
from simulator.cost import Spread, StepCost
from simulator.notation import parse_network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.model import ModelSettings
from simulator.virtual.target import END_TOKEN, ToyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

ROOT = Path(__file__).parents[2]
SPREAD = Spread(quantiles=(0.9, 0.95, 0.98, 1.0, 1.05, 1.2, 1.5))


def _settings(*, seed: int = 1, num_edges: int = 2, **edge: object) -> WorldSettings:
    return WorldSettings(
        edges=tuple(
            EdgeSettings(
                requests=tuple(
                    Request(
                        prompt=tuple(map(TokenId, range(3, 8 + number))),
                        max_tokens=40,
                        seed=100 * number + index,
                    )
                    for index in range(2)
                ),
                length_policy=LengthPolicy.CLOSED_FORM,
                draft=DraftSettings(spread=SPREAD),
                **edge,  # type: ignore[arg-type]
            )
            for number in range(num_edges)
        ),
        verifiers=(VerifierSettings(model=ModelSettings(spread=SPREAD)), VerifierSettings()),
        seed=seed,
        network=parse_network("rtt=40ms,jitter=5ms,loss=1%,bandwidth=10mbit"),
    )


def _log(settings: WorldSettings) -> str:
    log = EventLog()
    run(settings, log=log)
    return "\n".join(log.lines())


def test_every_answer_is_the_targets_own_text() -> None:
    settings = _settings()
    result = run(settings)
    assert not result.bugs
    for edge, asked in zip(settings.edges, result.asked, strict=True):
        assert [one.request for one in asked] == list(edge.requests)
        for one in asked:
            assert tuple(one.pieces) == settings.target.run(one.request.prompt, 40)
            assert one.statistics is not None
            assert one.statistics.accepted > 0


def test_the_same_seed_gives_the_same_log_and_another_one_another() -> None:
    first = _log(_settings())
    assert first == _log(_settings())
    assert first != _log(_settings(seed=2))


def test_a_log_does_not_change_what_happens() -> None:
    assert run(_settings()) == run(_settings(), log=EventLog())


def test_a_text_may_end_by_itself() -> None:
    target = ToyTarget(stop_chance=0.1, seed=5)
    settings = WorldSettings(
        edges=(EdgeSettings(requests=(Request(prompt=(TokenId(1),), max_tokens=1000),)),),
        verifiers=(VerifierSettings(),),
        target=target,
    )
    (asked,) = run(settings).asked[0]
    assert asked.reason == "stop"
    assert tuple(asked.pieces) == target.run((TokenId(1),), 1000)
    assert asked.pieces[-1] == END_TOKEN


def test_every_message_of_a_world_takes_exactly_half_the_round_trip() -> None:
    settings = replace(_settings(), network=parse_network("rtt=40ms"))
    log = EventLog()
    run(settings, log=log)
    ways: dict[tuple[object, bool], list[list[float]]] = {}
    for event in log:
        if event.kind in ("sent", "arrived"):
            is_up = event.place.startswith("edge") == (event.kind == "sent")
            times = ways.setdefault((dict(event.fields)["call"], is_up), [[], []])
            times[event.kind == "arrived"].append(event.at_s)
    assert len(ways) >= 4
    for sent, arrived in ways.values():
        # What is on its way when a stream ends arrives nowhere.
        assert arrived == pytest.approx([at_s + 0.02 for at_s in sent[: len(arrived)]])
        assert len(arrived) >= len(sent) - 2
    num_together = sum(len(sent) - len(set(sent)) for sent, _ in ways.values())
    assert num_together > 0


def test_plain_decoding_takes_a_step_for_each_token() -> None:
    settings = WorldSettings(
        edges=(EdgeSettings(requests=(Request(prompt=(TokenId(1),), max_tokens=50),), draft=None),),
        verifiers=(
            VerifierSettings(model=ModelSettings(cost=StepCost(fixed_s=0.02, per_row_s=0.001))),
        ),
        network=parse_network("rtt=100ms"),
    )
    result = run(settings)
    # Two round trips but for half of one until the first step, then the prompt's row and 49 others, and the way back.
    assert result.duration_s == pytest.approx(
        0.1 + 0.05 + 0.02 + 49 * 0.021 + 0.05 + 0.05, abs=0.06
    )


def test_drafting_pays_where_it_is_right() -> None:
    def duration_s(acceptance: float) -> float:
        return run(_settings_of(DraftSettings(acceptance=acceptance))).duration_s

    def _settings_of(draft: DraftSettings) -> WorldSettings:
        edge = EdgeSettings(requests=(Request(prompt=(TokenId(1),), max_tokens=60),), draft=draft)
        return WorldSettings(
            edges=(edge,), verifiers=(VerifierSettings(),), network=parse_network("rtt=20ms")
        )

    assert duration_s(1.0) < 0.6 * duration_s(0.0)


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    save_pair(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(first, names)
    assert '"kind":"answered","tokens":64' in capsys.readouterr().out
    for example in others:
        exec(example, names)
