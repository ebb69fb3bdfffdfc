"""What a drafted token costs on the wire, by tokens per message.

    PYTHONPATH=tests .venv/bin/python benchmarks/wire_bytes.py --output benchmarks/results/wire_bytes.json

A verifier process with SmolLM2, a relay that counts socket bytes. Prompt lookup drafts short runs, so its messages are
seldom full; the target as its own draft, which the verifier waits for (no race), fills them. "Payload" is the serialised
Proposals; "socket" is everything the relay carried in a direction: gRPC, HTTP/2 and acknowledgements included, TCP and
IP headers not.
"""

import argparse
import asyncio
import json
import platform
import sys
from pathlib import Path
from typing import Any

import grpc
import torch
from harness.processes import running
from harness.relay import threaded_relay

from edge.drafters import load_drafter
from paceline.client.client import Client
from paceline.client.outcome import Statistics
from paceline.client.settings import DraftingSettings
from paceline.drafter import Drafter
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from simulator.relay import RelayStatistics

PROMPTS = Path(__file__).parent.parent / "tests/data/prompts/prompts.jsonl"


async def generate(
    address: str,
    *,
    tokenizer: Tokenizer,
    drafter: Drafter,
    prompts: list[str],
    drafting: DraftingSettings,
    max_tokens: int,
) -> list[Statistics]:
    """Answer all prompts, one after the other."""
    found = []
    async with Client(
        verifiers=[address], tokenizer=tokenizer, drafter=drafter, drafting=drafting
    ) as client:
        for prompt in prompts:
            async with client.generate(
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                sampling=SamplingSettings(temperature=0.0),
            ) as generation:
                async for _ in generation:
                    pass
            found.append(generation.result.statistics)
    return found


def row_of(
    name: str,
    per_message: int,
    found: list[Statistics],
    before: RelayStatistics,
    after: RelayStatistics,
) -> dict[str, Any]:
    """Return the bytes of one run, as ratios of sums."""
    drafted, committed = sum(s.drafted for s in found), sum(s.committed for s in found)
    up, down = after.up_bytes - before.up_bytes, after.down_bytes - before.down_bytes
    return {
        "drafter": name,
        "tokens_per_message": per_message,
        "drafted": drafted,
        "committed": committed,
        "accepted": sum(s.accepted for s in found),
        "payload_bytes_per_drafted": round(sum(s.proposal_bytes for s in found) / drafted, 2),
        "socket_up_bytes_per_drafted": round(up / drafted, 2),
        "socket_up_bytes_per_committed": round(up / committed, 2),
        "socket_down_bytes_per_committed": round(down / committed, 2),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    arguments = parser.parse_args()
    tokenizer = load_tokenizer(resolve("smollm2-135m"))
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    prompts = [line["prompt"] for line in lines[:: len(lines) // arguments.prompts]][
        : arguments.prompts
    ]
    options = [
        "--target",
        "smollm2-135m",
        "--listen",
        "127.0.0.1:0",
        "--dtype",
        "bfloat16",
        "--threads",
        "1",
    ]
    torch.set_num_threads(1)
    drafters: dict[str, Drafter] = {
        "lookup": load_drafter("lookup", tokenizer=tokenizer),
        "the target itself": load_drafter("smollm2-135m", tokenizer=tokenizer, dtype="bfloat16"),
    }
    rows: list[dict[str, Any]] = []
    with (
        running(
            "paceline.command",
            "cloud",
            *options,
            "--no-race",
            ready=r"ready on (\S+)",
            timeout_s=120.0,
        ) as child,
        threaded_relay(child.ready[1] if child.ready else "", rtt_s=0.06) as relay,
    ):
        for name, drafter in drafters.items():
            for per_message in (1, 4, 8):
                before = relay.statistics()
                found = asyncio.run(
                    generate(
                        str(relay.address),
                        tokenizer=tokenizer,
                        drafter=drafter,
                        prompts=prompts,
                        drafting=DraftingSettings(tokens_per_message=per_message, draft_length=32),
                        max_tokens=arguments.max_tokens,
                    )
                )
                rows.append(row_of(name, per_message, found, before, relay.statistics()))
                print(json.dumps(rows[-1]), file=sys.stderr)
    result = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": f"{platform.machine()}, 2 cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "grpc": grpc.__version__,
        },
        "prompts": len(prompts),
        "rows": rows,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
