"""Can the other side be reached, is it the right one, and is the link good enough?"""

from dataclasses import dataclass
from statistics import median

from simulator.doctor.verdicts.check import Check, failed, passed, warned

LONG_RTT_S = 0.25
"""From here on the first token and every wrong guess are waits that readers notice."""
UNSTEADY_S = 0.05
"""Spread of the round trip that is noticed, if it is also more than the round trip itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFinding:
    """A port somebody would listen at."""

    address: str
    error: str = ""
    """Why it cannot be listened at; empty: it is free."""
    was_asked_for: bool = False
    """The user named it; otherwise it is one of the usual ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far the way to an address led: first its name, then a connection."""

    address: str
    hosts: tuple[str, ...] = ()
    """IP addresses of the name; empty: it has none."""
    connect_s: float | None = None
    """None: no connection."""
    error: str = ""


def judge_port(finding: PortFinding) -> Check:
    """Judge a port to listen at."""
    name = f"port {finding.address}"
    if not finding.error:
        return passed(name, "free")
    if finding.was_asked_for:
        return failed(name, finding.error, "End what listens there, or choose another port.")
    return warned(
        name,
        finding.error,
        "Well if Paceline runs already; else choose another port with --listen.",
    )


def judge_name(name: str, reached: Reached) -> Check:
    """Judge whether the name leads anywhere."""
    if reached.hosts:
        return passed(name, ", ".join(reached.hosts))
    return failed(
        name,
        reached.error,
        "Check the spelling, and the name server or /etc/hosts of this machine.",
    )


def judge_connection(name: str, reached: Reached, *, program: str) -> Check:
    """Judge whether somebody listens there.

    Args:
        name: of the check.
        reached: the finding.
        program: what should listen there, as a user starts it.
    """
    if reached.connect_s is not None:
        return passed(name, f"connected in {_ms(reached.connect_s)}")
    return failed(
        name,
        reached.error,
        f"Check that {program} runs there, listens beyond 127.0.0.1, and that no firewall is in between.",
    )


def judge_link(name: str, samples_s: tuple[float, ...]) -> Check:
    """Judge round trips to a verifier for what they mean to a reader.

    Args:
        name: of the check.
        samples_s: measured one after another, in seconds; at least one.
    """
    middle, slowest = median(samples_s), max(samples_s)
    jitter = slowest - min(samples_s)
    found = f"RTT {_ms(middle)}, slowest of {len(samples_s)} {_ms(slowest)}, jitter {_ms(jitter)}"
    if middle > LONG_RTT_S:
        return warned(
            name,
            f"{found}: every answer and every wrong guess waits that long",
            "Use a nearer verifier if there is one; else a larger --draft-length and --window keep more under way.",
        )
    if jitter > max(UNSTEADY_S, middle):
        return warned(
            name,
            f"{found}: text will come in bursts",
            "Look for a weak radio, Wi-Fi power saving or a full uplink; a cable tells.",
        )
    if middle < 0.005:
        return passed(name, f"{found}: so near that drafts only save steps of the target")
    return passed(name, f"{found}: good, drafting ahead covers it")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
