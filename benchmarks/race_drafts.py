"""What it is worth that a verifier guesses itself where an edge has no draft: real answers, in virtual time.

    .venv/bin/python benchmarks/race_drafts.py --prompts spec_bench.jsonl --human-eval human_eval.jsonl --cache FOLDER \
        [--output benchmarks/results/race_drafts.json]

The target answers 44 prompts of all categories once, greedily and at temperature 1 (`distil_eval.py` has which, and shares the
--cache). Then simulated verifiers, which run the sessions, the scheduler and the drafts of the real one, draw just these answers;
what a step takes was measured (simulator/recordings). Told are

  by category: one edge without drafts at a round trip of 50 ms: tokens per step, rows, speed against guessing nothing, and the worst
               answer;
  with drafts: every other answer, with an edge that grows trees as two drafts were recorded, at several round trips. Recorded
               hits know nothing of the text at hand;
  load:        many edges without drafts on one verifier: tokens per second of all together;
  cost:        microseconds of the event loop, of this machine, and bytes for each remembered token.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from distil_eval import TEMPERATURES, answers, prompts

from cloud.race_drafts import MOST_GUESSES, RaceDraft
from cloud.scheduler import RaceDrafting, SchedulerSettings
from edge.distillation.shards import read_shard
from paceline.client import DraftingSettings
from paceline.control.node_scores import NodeScores
from paceline.ngram.recurrence import Rule
from paceline.ngram.rules import counted, looked_up
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId
from simulator.acceptance.recordings import recorded_costs, recorded_trace
from simulator.notation import parse_network
from simulator.virtual.edge import Asked, EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.model import ModelSettings
from simulator.virtual.target import GREEDY, ToyTarget
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

START = 38
"""So many first tokens tell the prompts apart."""
RTTS_MS = (10, 50, 100, 200)
EDGES = (1, 4, 16, 32)
DRAFTS = ("smollm2-135m-draft-first", "low-bit-4-64")
"""The one that comes with Paceline, and one that is right much more often."""
COSTS = recorded_costs("xeon-1-core").target
RULES: dict[str, Rule] = {"lookup": looked_up, "suffix": counted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """An answer of the real target."""

    category: str
    prompt: tuple[TokenId, ...]
    answer: tuple[TokenId, ...]


@dataclass(frozen=True, kw_only=True)
class RecordedTarget(ToyTarget):
    """Draws the answers that were recorded; whatever after any other text."""

    answers: Mapping[tuple[TokenId, ...], Text] = field(default_factory=dict)

    def draw(self, text: Sequence[TokenId], path: Sequence[TokenId] = ()) -> TokenId:
        """See `ToyTarget`."""
        found = self.answers[tuple(text[:START])]
        place = len(text) + len(path) - len(found.prompt)
        if place < len(found.answer):
            return found.answer[place]
        return super().draw(text, path)

    def run(
        self, text: Sequence[TokenId], count: int, *, sampling: SamplingSettings = GREEDY
    ) -> tuple[TokenId, ...]:
        """See `Target`."""
        return self.answers[tuple(text[:START])].answer[:count]


def read_texts(cache: Path, number: int) -> list[Text]:
    shard = read_shard(cache, number)
    texts = []
    for passage in shard.description.passages:
        part = slice(passage.start, passage.start + passage.length)
        tokens = tuple(map(TokenId, shard.tokens[part].tolist()))
        begin = int(np.flatnonzero(shard.roles[part] == shard.roles[part][-1])[0])
        texts.append(Text(category=passage.category, prompt=tokens[:begin], answer=tokens[begin:]))
    return texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the answers are asked for."""

    rtt_ms: int = 50
    num_edges: int = 1
    """So many share the answers."""
    draft: str | None = None
    """The edges grow trees as this recorded draft."""


@dataclass(slots=True)
class Sums:
    """Over some answers."""

    tokens: int = 0
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0


def world(
    texts: Sequence[Text], temperature: float, drafting: RaceDrafting, place: Place
) -> tuple[list[Asked], int]:
    """What became of asking for all answers, and the roots and drafts of all steps."""
    requests = [
        Request(prompt=text.prompt, max_tokens=len(text.answer), seed=seed, temperature=temperature)
        for seed, text in enumerate(texts)
    ]
    tree = tree_drafter(recorded_trace(place.draft)) if place.draft else None
    reach = DraftingSettings(draft_length=32, window=256, growth=Growth() if tree else None)
    settings = WorldSettings(
        edges=tuple(
            EdgeSettings(
                requests=tuple(requests[number :: place.num_edges]),
                draft=None,
                make_drafter=tree,
                drafting=reach,
            )
            for number in range(place.num_edges)
        ),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=COSTS.cost),
                scheduler=SchedulerSettings(race_drafts=drafting),
            ),
        ),
        network=parse_network(f"rtt={place.rtt_ms}ms"),
        target=RecordedTarget(
            vocabulary_size=49152, answers={text.prompt[:START]: text for text in texts}
        ),
    )
    log = EventLog()
    result = run(settings, log=log)
    asked = [one for each in result.asked for one in each]
    for one in asked:
        answer = settings.target.run(one.request.prompt, one.request.max_tokens)
        assert tuple(one.pieces) == answer, "the text is another one"
    rows = [dict(event.fields)["rows"] for event in log if event.kind == "step"]
    return asked, sum(number for number in rows if isinstance(number, int))


def by_category(texts: Sequence[Text], temperature: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    plain: dict[tuple[TokenId, ...], float] = {}
    for drafting in RaceDrafting:
        sums: dict[str, Sums] = defaultdict(Sums)
        asked, rows = world(texts, temperature, drafting, Place())
        worst = 1.0
        for one, text in zip(asked, texts, strict=True):
            told = one.statistics
            assert told is not None
            for name in (text.category, "all"):
                sums[name].tokens += told.committed
                sums[name].steps += told.steps
                sums[name].seconds += told.duration_s
            before_s = plain.setdefault(text.prompt, told.duration_s)
            worst = min(worst, before_s / told.duration_s)
        sums["all"].rows = rows - sums["all"].steps
        off = found.get("off", {})
        found[str(drafting)] = {
            name: {
                "tokens": each.tokens,
                "tokens_per_step": round(each.tokens / each.steps, 3),
                "tokens_per_s": round(each.tokens / each.seconds, 2),
                "speed": round(
                    each.tokens / each.seconds / off[name]["tokens_per_s"] if off else 1.0, 3
                ),
            }
            for name, each in sorted(sums.items())
        }
        total = sums["all"]
        found[str(drafting)]["all"] |= {
            "rows_per_step": round(max(0, total.rows) / total.steps, 3),
            "accepted_per_row": round((total.tokens - total.steps) / max(1, total.rows), 3),
            "worst_answer": round(worst, 3),
        }
    return found


def with_drafts(texts: Sequence[Text], temperature: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rtt_ms in RTTS_MS:
        speeds = {
            f"{draft or 'no drafts'}, {drafting}": _tokens_per_s(
                world(texts, temperature, drafting, Place(rtt_ms=rtt_ms, draft=draft))[0]
            )
            for draft in (None, *DRAFTS)
            for drafting in (RaceDrafting.OFF, RaceDrafting.SUFFIX)
        }
        base = speeds["no drafts, off"]
        found[f"{rtt_ms} ms"] = {name: round(speed / base, 3) for name, speed in speeds.items()}
    return found


def load(texts: Sequence[Text], temperature: float) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in EDGES:
        speeds = {}
        for drafting in RaceDrafting:
            asked, _ = world(texts, temperature, drafting, Place(num_edges=count))
            # All edges ask from the beginning on: the mean speed of an answer times the edges.
            speeds[str(drafting)] = _tokens_per_s(asked) * count
        found[str(count)] = {
            name: round(value / speeds["off"], 3) for name, value in speeds.items()
        }
        found[str(count)]["tokens_per_s_off"] = round(speeds["off"], 1)
    return found


def _tokens_per_s(asked: Sequence[Asked]) -> float:
    told = [one.statistics for one in asked if one.statistics is not None]
    return sum(one.committed for one in told) / sum(one.duration_s for one in told)


def cost(texts: Sequence[Text], rule: Rule) -> dict[str, float]:
    """Processor time of what the event loop does, and memory."""
    scores, read_ns, offer_ns, num_read, num_offers = NodeScores(), 0, 0, 0, 0
    for text in texts:
        draft, log = RaceDraft(rule, scores), list(text.prompt)
        target = [*text.prompt, *text.answer]
        while len(log) < len(target):
            began = time.thread_time_ns()
            num_read += draft.read(log, most=1 << 30)
            middle = time.thread_time_ns()
            offer = draft.offer(log, most=MOST_GUESSES)
            offer_ns += time.thread_time_ns() - middle
            read_ns += middle - began
            num_offers += 1
            right = 0
            ahead = target[len(log) :]
            while (
                right < min(len(offer.tokens), len(ahead)) and offer.tokens[right] == ahead[right]
            ):
                right += 1
            log += ahead[: right + 1]
    long = [token for text in texts for token in (*text.prompt, *text.answer)][:8192]
    tracemalloc.start()
    draft = RaceDraft(rule, NodeScores())
    draft.read(long, most=len(long))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {
        "us_per_token_read": round(read_ns / num_read / 1e3, 2),
        "us_per_step": round(offer_ns / num_offers / 1e3, 1),
        "bytes_per_token": round(held / len(long)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--human-eval", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    chosen = prompts(arguments.prompts, arguments.human_eval)
    answers(arguments.cache, chosen, target=arguments.target, max_tokens=96)
    result: dict[str, Any] = {
        "command": "python benchmarks/race_drafts.py --prompts spec_bench.jsonl --human-eval human_eval.jsonl --cache FOLDER",
        "machine": f"{platform.machine()}; all but the cost in virtual time, where the same run gives the same figures",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "step": asdict(COSTS.cost),
    }
    for number, temperature in enumerate(TEMPERATURES):
        texts = read_texts(arguments.cache, number)
        result[f"temperature {temperature:g}"] = {
            "by category": by_category(texts, temperature),
            "with drafts": with_drafts(texts[::2], temperature),
            "load": load(texts, temperature),
            "cost": {name: cost(texts, rule) for name, rule in RULES.items()},
        }
    print(json.dumps(result, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
