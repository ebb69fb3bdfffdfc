"""The edge of benchmarks/distance.py: a program that holds the client and its drafters, and does what it is told over TCP.

    PYTHONPATH=benchmarks python -m distance_edge --target smollm2-135m --dtype bfloat16

A message is a line of JSON. {"do": "prepare", "job": ...} loads the drafter, connects to the verifier if the tenant is new, and
forgets what was computed for earlier prompts; {"do": "answer"} generates; {"do": "rehearse", "most": ...} asks for all texts that rounding may lead to. The
reply is a line as well. With "stream" true every token is a line as soon as it is there: so a co-located edge serves a user, from
whose side of a link the question comes.
"""

import argparse
import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from distance_cells import NO_DRAFT
from distance_drafts import KnownTexts, recorded_drafter
from distance_rehearsal import Question, rehearse
from distance_seat import Job, Seat, job_of

from edge.drafters import ModelDrafter, load_drafter
from paceline.beside import running_beside
from paceline.client.session_trace import SessionTrace
from paceline.drafter import Drafter
from paceline.engine.loading import DType, load_tokenizer, resolve
from paceline.timeline.facts import Downward, Facts, Forward

MOST_LINE_BYTES = 1 << 24
MOST_SEATS = 16
"""Clients that stay connected; those not used for longest leave."""
Tell = Callable[[dict[str, Any]], None]


class Station:
    """One job at a time, with drafters that stay loaded."""

    def __init__(self, *, target: str, dtype: DType) -> None:
        self._dtype = dtype
        self.tokenizer = load_tokenizer(resolve(target))
        self._drafters: dict[str, Drafter] = {}
        self._seats: dict[str, Seat] = {}
        self._job: Job | None = None

    async def prepare(self, job: Job) -> None:
        """Load, connect, forget."""
        drafter = self._drafter(job)
        seat = self._seats.pop(job.token, None)
        if seat is None:
            seat = Seat(job, tokenizer=self.tokenizer, drafter=drafter)
            await seat.connect()
        seat.change(drafter)
        self._seats[job.token] = seat  # the newest is last
        while len(self._seats) > MOST_SEATS:
            await self._seats.pop(next(iter(self._seats))).leave()
        self._job = job

    async def answer(self, tell: Tell, *, stream: bool) -> dict[str, Any]:
        """Generate; return all that was measured."""
        assert self._job is not None, "prepared"
        job, seat, trace = self._job, self._seats[self._job.token], SessionTrace()
        async with (
            running_beside(seat.controller.run),
            seat.client.generate(
                prompt_ids=job.prompt,
                max_tokens=job.max_tokens,
                sampling=job.sampling,
                trace=trace,
            ) as generation,
        ):
            async for piece in generation:
                if stream:
                    tell({"tokens": piece.token_ids})
        return {
            "output": generation.result.token_ids,
            "statistics": asdict(generation.statistics),
        } | told(trace.facts(), has_trees=job.has_trees)

    async def rehearse(self, *, most: int) -> dict[str, Any]:
        """Return the texts that rounding may lead to."""
        assert self._job is not None, "prepared"
        question = Question(
            prompt=self._job.prompt,
            sampling=self._job.sampling,
            max_tokens=self._job.max_tokens,
        )
        texts = await rehearse(self._seats[self._job.token].client, question, most=most)
        return {"texts": texts}

    def _drafter(self, job: Job) -> Drafter | None:
        draft = job.guessing
        if draft is NO_DRAFT:
            return None
        if not draft.spec:
            known = KnownTexts(
                len(job.prompt), job.texts, vocabulary_size=self.tokenizer.vocabulary_size
            )
            return recorded_drafter(
                draft, target=known, category=job.category, temperature=job.temperature
            )
        spec = draft.spec if job.has_trees else draft.spec.removeprefix("tree:")
        if spec not in self._drafters:
            self._drafters[spec] = load_drafter(spec, tokenizer=self.tokenizer, dtype=self._dtype)
        drafter = self._drafters[spec]
        if isinstance(drafter, ModelDrafter):
            drafter.engine.warm_up()
            drafter.engine.clear_prefixes()
        return drafter


def told(facts: Facts, *, has_trees: bool) -> dict[str, Any]:
    """Return what a line keeps of a trace: the drafter's passes, and every commit with its time since the question.

    Args:
        facts: of the generation.
        has_trees: a call of the drafter was a forward pass; else each token that it gave was one.
    """
    calls = [fact for fact in facts.facts if isinstance(fact, Forward) and fact.num_tokens]
    commits = [
        fact for fact in facts.facts if isinstance(fact, Downward) and fact.message == "commit"
    ]
    return {
        "passes": len(calls) if has_trees else sum(fact.num_tokens for fact in calls),
        "passes_s": round(sum(fact.end_s - fact.at_s for fact in calls), 5),
        "commits": [
            {
                "at_s": round(fact.at_s - facts.began_s, 5),
                "tokens": len(fact.tokens),
                "accepted": fact.num_accepted,
                "judged": fact.num_judged,
                "rows": fact.num_rows,
                "steps": fact.num_steps,
                "verify_s": round(fact.verify_s, 5),
            }
            for fact in commits
        ],
    }


async def serve(station: Station) -> None:
    """Answer lines, for ever."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def tell(value: dict[str, Any]) -> None:
            writer.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")

        while line := await reader.readline():
            message = json.loads(line)
            match message["do"]:
                case "prepare":
                    await station.prepare(job_of(message["job"]))
                    tell({"ready": True})
                case "answer":
                    tell({"done": await station.answer(tell, stream=message["stream"])})
                case "rehearse":
                    tell({"done": await station.rehearse(most=message["most"])})
                case _:
                    tell({"ready": True})  # a greeting: the connection is there
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=MOST_LINE_BYTES)
    host, port = server.sockets[0].getsockname()
    print(f"ready on {host}:{port}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    asyncio.run(serve(Station(target=arguments.target, dtype=arguments.dtype)))


if __name__ == "__main__":
    main()
