"""What a verifier tells the fleet of itself. Pure: statistics in, message out."""

import re
from dataclasses import dataclass

from cloud.account import VerifierStatistics
from paceline.control.messages import VerifierCounters, VerifierStatus
from paceline.errors import ConfigError
from paceline.messages import ModelIdentity
from paceline.settings import Address

MAX_ID = 64
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")
_UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - compared with, never listened at


@dataclass(frozen=True, slots=True, kw_only=True)
class Teller:
    """Who tells, which is the same in all messages of a program."""

    incarnation: int
    """Drawn at random when the program starts; not 0."""
    address: Address
    """Where edges reach it."""
    target: ModelIdentity
    row_budget: int
    """Most rows of a step."""
    version: str
    """Of the program."""


def status(teller: Teller, statistics: VerifierStatistics, *, sequence: int) -> VerifierStatus:
    """Return the message.

    Args:
        teller: who tells.
        statistics: what it has done so far and holds now.
        sequence: number of the message, from 1.
    """
    load, drafts = statistics.load, statistics.drafts
    return VerifierStatus(
        online=True,
        incarnation=teller.incarnation,
        sequence=sequence,
        address=str(teller.address),
        target=teller.target,
        draining=statistics.is_draining,
        max_sessions=statistics.max_sessions,
        num_sessions=statistics.num_sessions,
        row_budget=teller.row_budget,
        step_s=load.step_s,
        queue_s=load.queue_s,
        busy=load.busy,
        row_price_s=load.row_price_s,
        counters=VerifierCounters(
            sessions=statistics.num_opened,
            steps=statistics.steps.num_steps,
            rows=statistics.steps.num_rows,
            committed=statistics.committed,
            judged=drafts.judged,
            accepted=drafts.accepted,
        ),
        version=teller.version,
    )


def default_id(host_name: str, port: int) -> str:
    """Return the id of a verifier that was given none: host name and port, with what no topic may have made a hyphen."""
    safe = _NOT_OF_AN_ID.sub("-", host_name).strip("-") or "verifier"
    suffix = f"-{port}"
    return safe[: MAX_ID - len(suffix)] + suffix


def advertised(listen: Address, advertise: Address | None) -> Address:
    """Return where edges are told to connect.

    Args:
        listen: where it listens; its port may still be 0.
        advertise: what the operator says, if anything.

    Raises:
        ConfigError: nobody could connect there.
    """
    if advertise is None:
        if listen.host in _UNSPECIFIED:
            raise ConfigError(
                f"--advertise: got none, and {listen} is no address that edges could connect to; say how they reach this "
                "verifier, for example --advertise gpu-box:50051"
            )
        return listen
    if advertise.port == 0 or advertise.host in _UNSPECIFIED:
        raise ConfigError(
            f"--advertise: got {advertise}, expected a host and a port above 0 that edges can connect to"
        )
    return advertise
