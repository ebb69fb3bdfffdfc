"""The pure parts of benchmarks/distance.py: what is kept of a run, what is measured when, what a table says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distance_cells import DRAFTS, LINKS, SYSTEMS, Wanted, best_round, blocks
from distance_drafts import KnownTexts, trace_of
from distance_lines import LINES, RunFolder, lost_at
from distance_report import formula, groups, row
from distance_steps import fitted, steps

from paceline.tokens import TokenId
from simulator.cost import StepCost, Work


def line(
    system: str, *, prompt: str = "a", repetition: int = 0, took_s: float = 1.0, **more: Any
) -> dict[str, Any]:
    """A generation of ten tokens."""
    counts = {"drafted": 20, "judged": 9, "accepted": 6, "late": 2, "stale": 4, "unsent": 3}
    sizes = {"payload_bytes_up": 300, "payload_bytes_down": 200, "steps": 4}
    return {
        "kind": "generation",
        "key": f"{repetition}|{prompt}|{system}",
        "repetition": repetition,
        "link": "50 ms",
        "rtt_s": 0.05,
        "temperature": 0.0,
        "prompt": prompt,
        "system": system,
        "draft": "none" if system == "cloud-only" else "recorded-79",
        "output": [1, 2, 3],
        "lost_at": None,
        "committed": 10,
        "duration_s": took_s,
        "first_s": 0.1,
        "statistics": counts | sizes | {"verifier_step_s": 0.05},
        "passes": 10,
        "passes_s": 0.04,
        "cpu_s": {"cloud": 0.5 * took_s},
        "commits": [commit(at_s=0.1, tokens=1, judged=0)],
    } | more


def commit(*, at_s: float, tokens: int, judged: int) -> dict[str, Any]:
    return {"at_s": at_s, "tokens": tokens, "judged": judged, "rows": 1 + judged, "steps": 1}


# --- the folder


def test_what_a_kill_cut_short_is_measured_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append(line("paceline"))
    with (tmp_path / LINES).open("a", encoding="utf-8") as file:
        file.write('{"kind": "generation", "key": "0|a|clo')

    again = RunFolder(tmp_path)
    again.append(line("cloud-only"))

    assert again.done() == {"0|a|paceline", "0|a|cloud-only"}
    kept = (tmp_path / LINES).read_text().splitlines()
    assert [json.loads(each)["system"] for each in kept] == ["paceline", "cloud-only"]


def test_a_run_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    RunFolder(tmp_path).settle({"dtype": "bfloat16", "max-tokens": 32})  # nothing came of it
    RunFolder(tmp_path).settle({"dtype": "bfloat16", "max-tokens": 96})
    RunFolder(tmp_path).append(line("paceline"))
    RunFolder(tmp_path).settle({"dtype": "bfloat16", "max-tokens": 96})
    with pytest.raises(SystemExit, match=r"--max-tokens: got 64, but the lines in .* with 96"):
        RunFolder(tmp_path).settle({"dtype": "bfloat16", "max-tokens": 64})


def test_a_generation_of_an_unknown_text_is_kept_and_not_done(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append({"kind": "text", "prompt": "a", "temperature": 0.0, "output": [1, 2, 3]})
    folder.append(line("paceline", output=[1, 9, 3], lost_at=1))
    assert folder.done() == frozenset()
    assert folder.tries("0|a|paceline") == 1
    assert folder.texts("a", 0.0) == [(1, 2, 3), (1, 9, 3)]

    folder.append(line("paceline"))
    assert folder.done() == {"0|a|paceline"}
    assert len(folder.generations()) == 1


@pytest.mark.parametrize(
    ("output", "place"),
    [((1, 2, 3), None), ((1, 2, 7), None), ((1, 7, 3), 1), ((7, 2, 3), 0), ((1, 5, 6), None)],
)
def test_where_a_text_leaves_what_is_known(output: tuple[int, ...], place: int | None) -> None:
    known = [tuple(map(TokenId, text)) for text in ((1, 2, 3), (1, 5, 6))]
    assert lost_at(tuple(map(TokenId, output)), known, guessed=1) == place


# --- what meets what


def test_every_block_has_all_systems_of_a_link_and_the_middle_comes_first() -> None:
    wanted = Wanted(
        links=LINKS,
        temperatures=(0.0,),
        prompts=("a", "b"),
        systems=SYSTEMS,
        drafts=DRAFTS[:2],
        repetitions=2,
    )
    found = list(blocks(wanted))
    assert [(each[0].repetition, each[0].link.name, each[0].prompt) for each in found[:3]] == [
        (0, "50 ms", "a"),
        (0, "50 ms", "b"),
        (0, "100 ms", "a"),
    ]
    everywhere = {system.name for system in SYSTEMS if not system.links}
    for each in found:
        names = {cell.system.name for cell in each}
        assert names == (
            {system.name for system in SYSTEMS} if each[0].link.name == "100 ms" else everywhere
        )
    keys = [cell.key for each in found for cell in each]
    assert len(keys) == len(set(keys))
    firsts = {each[0].system.name for each in found}
    assert len(firsts) > 1, "the order turns"
    later = blocks(replace(wanted, first_repetition=1))
    assert list(later) == [each for each in found if each[0].repetition == 1]


def test_rounds_grow_with_the_distance_and_with_the_draft() -> None:
    weak, good = (
        next(one for one in DRAFTS if one.name == name) for name in ("shipped", "recorded-79")
    )
    for draft in (weak, good):
        lengths = [best_round(draft, rtt_s=rtt_s) for rtt_s in (0.0, 0.05, 0.2, 1.0)]
        assert lengths == sorted(lengths)
        assert lengths[0] < lengths[-1]
    assert best_round(good, rtt_s=0.1) > best_round(weak, rtt_s=0.1)
    assert best_round(good, rtt_s=0.1, is_hidden=True) >= best_round(good, rtt_s=0.1)


# --- recorded drafts


def test_known_texts_follow_the_committed_one() -> None:
    outputs = [[TokenId(token) for token in text] for text in ((1, 2, 3, 4), (1, 5, 6, 7))]
    known = KnownTexts(1, outputs, vocabulary_size=100)
    text = [TokenId(9)]
    assert known.draw(text) == 1
    assert known.draw(text, [TokenId(1)]) == 2, (
        "the first text counts while nothing speaks against it"
    )
    assert known.draw([*text, TokenId(1), TokenId(5)]) == 6
    assert known.draw([*text, TokenId(1)], [TokenId(5), TokenId(6)]) == 7
    assert known.draw([*text, TokenId(1)]) == 2
    assert 0 <= known.draw([*text, TokenId(8)]) < 100, "something, where nothing is known"


@pytest.mark.parametrize(("name", "acceptance"), [("recorded-60", 0.60), ("recorded-79", 0.785)])
def test_a_recorded_draft_is_as_good_as_it_is_called(name: str, acceptance: float) -> None:
    draft = next(one for one in DRAFTS if one.name == name)
    ranks = b"".join(text.ranks for text in trace_of(draft, temperature=0.0).texts)
    assert ranks.count(1) / len(ranks) == pytest.approx(acceptance, abs=0.01)


# --- tables


def test_a_ratio_is_one_of_sums_within_a_repetition() -> None:
    lines = [
        line("cloud-only", prompt="a", took_s=1.0),
        line("cloud-only", prompt="b", took_s=3.0),
        line("paceline", prompt="a", took_s=0.5),
        line("paceline", prompt="b", took_s=1.5),
        line("paceline", prompt="c", took_s=9.0),
        line("paceline", prompt="a", repetition=1, took_s=9.0),
    ]
    plain, ours = groups(lines)
    assert (plain.system, ours.num_alone) == ("cloud-only", 2)

    told = row(ours, reference=lambda _: [1, 2, 3])
    assert told is not None
    assert told["ratio"] == told["ratio_by_repetition"][0] == 2.0
    assert told["ratio_band"] == [2.0, 2.0]
    assert told["ratio_by_prompt"] == {"a": 2.0, "b": 2.0}
    assert told["tokens_per_s"] == 10.0
    assert told["bytes_up_per_token"] == 30.0
    assert told["processor"] == {"cloud": 0.5}
    assert (told["identical"], told["parted_at"]) == (2, [])


def test_waste_and_acceptance_are_all_that_was_drafted() -> None:
    lines = [line("cloud-only"), line("paceline", output=[1, 2, 4])]
    told = row(groups(lines)[1], reference=lambda _: [1, 2, 3])
    assert told is not None
    lost = told["waste_per_token"]
    assert lost == {"unsent": 0.3, "stale": 0.4, "late": 0.2, "wrong": 0.3, "below_wrong": 0.5}
    sent = sum(share for cause, share in lost.items() if cause != "unsent")
    assert sent + told["accepted_per_token"] == pytest.approx(told["nodes_per_token"])
    assert (told["identical"], told["parted_at"]) == (0, [2])


def test_the_formula_counts_a_pause_without_drafts_as_one_miss() -> None:
    commits = [
        commit(at_s=0.0, tokens=1, judged=0),
        commit(at_s=0.1, tokens=4, judged=3),
        commit(at_s=0.2, tokens=1, judged=0),
        commit(at_s=0.3, tokens=1, judged=0),
        commit(at_s=0.4, tokens=4, judged=3),
    ]
    told = formula([line("paceline", commits=commits)], rtt_s=0.2)
    assert told is not None
    assert told["pace"] == pytest.approx(40.0)
    assert told["misses_per_token"] == pytest.approx(0.1)
    assert told["bound_s"] == pytest.approx(1 / 40 + 0.1 * (0.2 + 0.1))
    assert told["measured_s"] == pytest.approx(0.04)
    assert formula([line("cloud-only", commits=commits[:1])], rtt_s=0.2) is None


# --- what steps cost


COST = StepCost(fixed_s=0.05, per_row_s=0.0006, per_prefill_row_s=0.0005)
BETWEEN_S, RESTED_S = 0.001, 0.004


def answered(system: str, *, rows: Sequence[int], pause_s: float) -> dict[str, Any]:
    """An answer whose steps take what `COST` says; rows of the prompt first."""
    commits, at_s = [], 0.0
    for index, count in enumerate(rows):
        work = Work().with_sequence(num_rows=count, context=20 + index, prefill=not index)
        rested_s = RESTED_S if pause_s > BETWEEN_S or not index else 0.0
        took_s = COST.seconds(work) + rested_s
        at_s += pause_s + took_s
        one = commit(at_s=at_s, tokens=1, judged=0) | {"rows": count, "verify_s": took_s}
        commits.append(one)
    return line(system, prompt_tokens=20, commits=commits)


def test_steps_of_a_run_say_what_steps_cost_and_what_a_pause_adds() -> None:
    plain = answered("cloud-only", rows=[60] + [1] * 60, pause_s=BETWEEN_S)
    tree = answered("paceline", rows=[90] + [1, 4, 9] * 60, pause_s=BETWEEN_S)
    rounds = answered("stop-and-wait", rows=[30] + [5] * 60, pause_s=0.1)

    found = steps([plain, tree, rounds])
    assert sum(step.has_rested for step in found) == 3 + 60, "prompts, and all rounds"
    cost = fitted(found, rested=found, name="target", dtype="bfloat16")
    assert cost.cost.fixed_s == pytest.approx(COST.fixed_s, rel=1e-6)
    assert cost.cost.per_row_s == pytest.approx(COST.per_row_s, rel=1e-6)
    assert cost.cost.per_prefill_row_s == pytest.approx(COST.per_prefill_row_s, rel=1e-6)
    assert cost.between_s == pytest.approx(BETWEEN_S)
    assert cost.rested_s == pytest.approx(RESTED_S)
    assert fitted(steps([plain, tree]), rested=[], name="t", dtype="").rested_s == 0.0


def test_a_commit_of_two_steps_tells_nothing_of_either() -> None:
    two = answered("cloud-only", rows=[60, 1, 1, 1], pause_s=BETWEEN_S)
    two["commits"][2]["steps"] = 2
    assert [step.context for step in steps([two])] == [0, 21, 23]
