"""Does the broker let this edge take part, and is an orchestrator there?"""

from dataclasses import dataclass

from simulator.doctor.verdicts.check import Check, failed, passed, skipped, warned


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFinding:
    """What became of a visit to the broker."""

    reason: str = ""
    """Wire reason why it ended early; empty: we were let in."""
    error: str = ""
    was_replaced: bool = False
    """We were let in, and then another program of the same name took our place."""
    echo_s: float | None = None
    """How long a message to ourselves took; None: it did not come back."""
    orchestrator: str | None = None
    """online, offline, or what else its presence says; None: it was never there, or may not be read."""


def judge_login(name: str, finding: BrokerFinding) -> Check:
    """Judge whether the broker lets us in."""
    if not finding.reason:
        return passed(name, "accepted")
    if finding.reason == "UNAUTHENTICATED":
        return failed(
            name,
            finding.error,
            "Give --broker-user and --broker-password-file, or --broker-cert and --broker-key, as the broker's operator "
            "made them for this edge.",
        )
    return failed(
        name,
        finding.error,
        "It takes connections and does not answer: one that asks for certificates needs --broker-cert and --broker-key "
        "from its own authority, one without TLS needs --insecure here. Its log says more.",
    )


def judge_rights(name: str, finding: BrokerFinding, *, topic: str) -> Check:
    """Judge whether we may publish and subscribe under our own name.

    Args:
        name: of the check.
        finding: what became of the visit.
        topic: where we spoke to ourselves.
    """
    if finding.reason:
        return skipped(name, "no login")
    if finding.was_replaced:
        return skipped(name, "a running program of the same name took our place; end it to check")
    if finding.echo_s is not None:
        return passed(name, f"a message to ourselves came back in {finding.echo_s * 1e3:.1f} ms")
    return failed(
        name,
        f"a message to ourselves under {topic} did not come back",
        "The broker's access rules forbid it: the login's name (a certificate's common name) must be the --edge-id, and "
        "the rules must be those of deploy/mosquitto/acl.",
    )


def judge_orchestrator(finding: BrokerFinding) -> Check:
    """Judge whether somebody steers; edges do without."""
    if finding.reason:
        return skipped("orchestrator", "no login at the broker")
    if finding.orchestrator is None and finding.was_replaced:
        return skipped("orchestrator", "not seen before another program took our place")
    if finding.orchestrator == "online":
        return passed("orchestrator", "online")
    found = finding.orchestrator or "never seen at this broker"
    return warned(
        "orchestrator",
        found,
        "Edges go on with their own controller; start `paceline orchestrator serve` for policies and the dashboard.",
    )
