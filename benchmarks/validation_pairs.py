"""Which links and drafters meet in benchmarks/validation.py."""

from dataclasses import dataclass
from pathlib import Path

SOME = ("50 ms", "200 ms", "LTE")
"""Links over which more is tried than the usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A link and a drafter, and what else is not as usual."""

    link: str
    """What a table calls it."""
    network: str
    """As `--network` has it."""
    draft: str
    policy: str = "fixed"
    min_step_ms: int = 0
    """Steps are padded to this; emulates a slower target, ahead of which more drafts come in time."""
    most_rounds: int = 9

    @property
    def name(self) -> str:
        """What results call it."""
        padding = f", {self.min_step_ms} ms steps" if self.min_step_ms else ""
        return f"{self.link}, {self.draft}, {self.policy}{padding}"


def pairs_of(links: Path, *, draft: str, padded_ms: int) -> list[Pair]:
    """Return all pairs.

    Args:
        links: folder of the recordings.
        draft: name of the distilled draft.
        padded_ms: step of the slower target, on three of the links.
    """
    lte = ",".join(f"{way}.trace={links / 'ATT-LTE-driving-2016'}.{way}" for way in ("up", "down"))
    networks = {f"{rtt} ms": f"rtt={rtt}ms" for rtt in (10, 50, 100, 200)} | {
        "LTE": f"rtt=50ms,{lte}",
        "Starlink": f"starlink,series={links / 'starlink_mobile_rtt.csv'}",
    }
    drafts = ("lookup", "low-bit:4/64", draft)
    plain = [
        Pair(link=link, network=network, draft=each)
        for link, network in networks.items()
        for each in drafts
    ]
    steered = [
        Pair(link=link, network=networks[link], draft=draft, policy="closed-form") for link in SOME
    ]
    padded = [
        Pair(link=link, network=networks[link], draft=each, min_step_ms=padded_ms)
        for link in SOME
        for each in drafts
    ]
    return plain + steered + padded
