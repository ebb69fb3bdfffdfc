"""`paceline simulate`: the mix it reads, what it prints, and that the same seed gives the same bytes."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness.fleets import fleet_of, gauges_of, telemetry_of, told, verifier_seen

from orchestrator.placement import place
from paceline.errors import ConfigError
from simulator.cost import StepCost
from simulator.fleet.figures import CAUSES, figures
from simulator.fleet.mix import EXAMPLE, Kind, counts, parse_mix, placed, read_mix
from simulator.fleet.people import People
from simulator.fleet.picture import check_picture
from simulator.fleet.report import TOLD, VALIDATION, report, validated
from simulator.fleet.run import FleetRun, FleetSettings, run_fleet
from simulator.fleet.settings import DrafterModel, VerifierModel
from simulator.notation import parse_network
from simulator.simulate import simulate
from simulator.virtual.campaign import replay_command

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fleet_validation.json"
SMALL = ["--edges", "12", "--verifiers", "2", "--minutes", "0.5", "--warm-up", "5s", "--network", "rtt=40ms",
         "--max-sessions", "4", "--answer-tokens", "30", "--processes", "1"]  # fmt: skip
MIX = """
[[edges]]
share = 3
network = "rtt=20ms"
[[edges]]
name = "far"
share = 1
network = {rtt = "200ms"}
draft_slowdown = 3
"""


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(simulate, arguments)


def settings(**changes: object) -> FleetSettings:
    wanted = FleetSettings(
        mix=parse_mix(MIX),
        verifier=VerifierModel(cost=StepCost(fixed_s=0.05, per_row_s=0.001), max_sessions=8),
        drafter=DrafterModel(cost=StepCost(fixed_s=0.005, per_row_s=0.0), acceptance=0.8),
        people=People(every_s=20.0, answer_tokens=40.0),
        num_edges=24,
        num_verifiers=3,
        lasts_s=40.0,
        warm_up_s=10.0,
    )
    return replace(wanted, **changes)  # type: ignore[arg-type]


def run(**changes: object) -> FleetRun:
    return run_fleet(settings(**changes), num_processes=1, progress=lambda done, total: None)


# --- the mix


def test_a_mix_says_which_networks_there_are() -> None:
    near, far = parse_mix(MIX)
    assert near == Kind(name="rtt=20ms", share=3.0, network=parse_network("rtt=20ms"))
    assert (far.name, far.draft_slowdown, far.network.up.delay_s) == ("far", 3.0, 0.1)
    assert len(parse_mix(EXAMPLE.read_text(encoding="utf-8"))) == 5
    (only,) = read_mix("lte")
    assert only.network == parse_network("lte")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[[edges]]\nshare = 1", "network"),
        ("[[edges]]\nshare = 0\nnetwork = 'lte'", "share"),
        ("[[edges]]\nshare = 'much'\nnetwork = 'lte'", "share"),
        ("[[edges]]\nnetwork = 'lte'", "share"),
        ("[[edges]]\nshare = 1\nnetwork = 'ltee'", "table 1: .*ltee"),
        ("[[edges]]\nshare = 1\nnetwork = 'lte'\ndraft_slowdown = -1", "draft_slowdown"),
        ("[[edges]]\nshare = 1\nnetwork = 'lte'\nspeed = 1", "speed"),
        ("[[edge]]\nshare = 1", "edge"),
        ("edges = []", "edges"),
        ("edges = [1]", "table 1"),
        ("edges = ", "TOML"),
    ],
)
def test_a_mix_that_is_wrong_is_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        parse_mix(text)


def test_edges_are_dealt_out_evenly() -> None:
    mix = parse_mix(MIX)
    assert counts(mix, 10) == [8, 2]
    assert counts(parse_mix(EXAMPLE.read_text(encoding="utf-8")), 10_000) == [
        4000,
        2500,
        2000,
        1000,
        500,
    ]
    houses = placed(mix, num_edges=103, num_verifiers=4)
    assert sorted(one.number for house in houses for one in house) == list(range(103))
    for kind in (0, 1):
        sizes = [Counter(one.kind for one in house)[kind] for house in houses]
        assert max(sizes) - min(sizes) <= 1
    assert {one.slowdown for house in houses for one in house if one.kind == 1} == {3.0}


def test_the_orchestrator_deals_edges_out_evenly_too() -> None:
    names = ("a", "b", "c", "d")
    rtts = {f"{name}:50051": 0.07 for name in names}
    idle = gauges_of(num_generations=0, rtt_s=0.0, verifier="")
    edges = [
        told(f"e{number:03}", telemetry=telemetry_of(gauges=idle, distances=rtts))
        for number in range(103)
    ]
    fleet = fleet_of(*(verifier_seen(name) for name in names), *edges)
    homes = Counter(one.verifiers[0] for one in place(fleet, fleet.edges.keys()).values())
    assert sum(homes.values()) == 103
    sizes = [len(house) for house in placed(parse_mix(MIX), num_edges=103, num_verifiers=4)]
    assert sorted(homes.values()) == sorted(sizes)


# --- a run


def test_load_and_price_add_up() -> None:
    found = figures(run(load=0.5), price_per_hour=2.0)
    drafting, plain = found["drafting"], found["cloud_only"]
    assert found["settings"]["people"]["every_s"] != 20.0
    verifiers = drafting["verifiers"]
    assert verifiers["load"] == pytest.approx(
        drafting["tokens_per_s"] / (3 * verifiers["most_tokens_per_s"]), rel=1e-3
    )
    assert 0.2 < verifiers["load"] < 0.8  # 40 s of 24 edges
    price = drafting["price_per_million_tokens"]
    assert price["as_it_ran"] == pytest.approx(
        2.0 * 3 * 1e6 / 3600 / drafting["tokens_per_s"], rel=1e-3
    )
    assert price["fully_loaded"] < price["as_it_ran"]
    assert drafting["all"]["tokens_per_s"]["median"] > plain["all"]["tokens_per_s"]["median"]
    drafts = drafting["drafts"]
    wasted = sum(drafts["wasted_per_token"].values())
    assert drafts["drafted_per_token"] == pytest.approx(
        drafts["accepted_per_token"] + wasted, rel=1e-3
    )
    assert set(drafts["wasted_per_token"]) == set(CAUSES)
    assert plain["drafts"]["drafted_per_token"] == 0.0
    assert plain["verifiers"]["draft_rows_per_token"] == 0.0


def test_how_often_edges_ask_can_be_said_instead() -> None:
    found = run(load=None, compare=False)
    assert found.every_s == 20.0
    assert found.plain is None
    told = figures(found, price_per_hour=1.0)
    assert "cloud_only" not in told
    per_edge = told["drafting"]["answers"] / 24
    assert per_edge == pytest.approx(40.0 / 20.0, rel=0.3)


def test_verifiers_that_commit_nothing_cannot_be_loaded() -> None:
    slow = VerifierModel(cost=StepCost(fixed_s=100.0, per_row_s=0.0))
    with pytest.raises(ConfigError, match="how often edges ask"):
        run(verifier=slow)
    told = figures(run(verifier=slow, load=None), price_per_hour=1.0)
    assert told["drafting"]["answers"] == 0
    assert "nobody asked" in "\n".join(report(told))


def test_without_drafts_only_the_cloud_is_told() -> None:
    told = figures(run(drafter=None), price_per_hour=1.0)
    assert "drafting" not in told
    text = "\n".join(report(told))
    assert "cloud only" in text
    assert "wasted" not in text


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes() -> None:
    def told(num_processes: int, seed: int) -> str:
        found = run_fleet(
            settings(seed=seed), num_processes=num_processes, progress=lambda done, total: None
        )
        return json.dumps(figures(found, price_per_hour=1.0), sort_keys=True)

    assert told(1, 0) == told(2, 0)
    assert told(1, 0) != told(1, 1)


def test_progress_comes_to_its_end() -> None:
    seen = []
    run_fleet(settings(lasts_s=5.0), num_processes=1, progress=lambda *one: seen.append(one))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1))


@pytest.mark.parametrize(
    "changes",
    [{"num_edges": 0}, {"num_verifiers": 0}, {"seed": -1}, {"load": 0.0}, {"lasts_s": 0.0}],
)
def test_settings_out_of_range_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        settings(**changes)


# --- how far it is off


def test_the_command_tells_what_was_measured() -> None:
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    told = json.loads(VALIDATION.read_text(encoding="utf-8"))
    assert told == {"num_cases": len(measured["rows"]), "summary": measured["summary"]}
    assert any(row["detailed"]["busy"] > 0.99 for row in measured["rows"])  # near saturation
    sentence = validated()
    for name, label in TOLD.items():
        assert f"{label} {told['summary'][name]['median']:.1%}" in sentence
    assert told["summary"]["tokens_per_s"]["median"] < 0.05


# --- the command


def test_the_command_prints_writes_and_draws(tmp_path: Path) -> None:
    data, picture = tmp_path / "fleet.json", tmp_path / "fleet.svg"
    done = invoked(*SMALL, "--json", str(data), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    for part in ("12 edges, 2 verifiers", "with drafts", "cloud only", "rtt=40ms", "coarse model"):
        assert part in done.output
    told = json.loads(data.read_text(encoding="utf-8"))
    assert told["settings"]["edges"] == 12
    assert re.search(r"<svg", picture.read_text(encoding="utf-8"))


def test_options_say_how_edges_draft(tmp_path: Path) -> None:
    data = tmp_path / "fleet.json"
    quick = [*SMALL, "--no-compare", "--json", str(data)]
    done = invoked(*quick, "--acceptance", "0.9", "--draft-time", "3ms", "--draft-length", "4")
    assert done.exit_code == 0, done.output
    drafter = json.loads(data.read_text(encoding="utf-8"))["settings"]["drafter"]
    assert (drafter["guesses"], drafter["cost"]["fixed_s"]) == (0.9, 0.003)
    assert (drafter["length_policy"], drafter["draft_length"]) == ("fixed", 4)
    refused = invoked(*quick, "--draft", "low-bit-5-64")
    assert isinstance(refused.exception, ConfigError)
    assert "--draft-time" in str(refused.exception)
    assert invoked(*quick, "--draft", "none", "--every", "30s", "--no-race").exit_code == 0


def test_a_missing_file_says_how_to_begin() -> None:
    done = invoked("--network", "/nowhere/mix.toml")
    assert isinstance(done.exception, ConfigError)
    assert "--example-mix" in str(done.exception)
    printed = invoked("--example-mix")
    assert parse_mix(printed.output) == parse_mix(EXAMPLE.read_text(encoding="utf-8"))


def test_pictures_need_matplotlib_and_a_known_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"\.png"):
        check_picture(tmp_path / "fleet.jpeg")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("simulator.fleet.picture.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        check_picture(tmp_path / "fleet.png")


def test_sub_commands_are_listed_and_found() -> None:
    (point,) = entry_points(group="paceline.commands", name="simulate")
    assert point.load() is simulate
    told = invoked("--help").output
    for name in ("faults", "session"):
        assert re.search(rf"^  {name} ", told, re.MULTILINE)
        assert invoked(name, "--help").exit_code == 0
    assert invoked("nothing").exit_code == 2
    assert replay_command(7) == "paceline simulate faults --seed 7"
