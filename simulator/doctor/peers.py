"""Looks at verifiers and broker: the way there, who it is, whether it lets us in, what it does for us."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from edge.control_options import ControlSettings
from paceline.errors import ConfigError
from paceline.mqtt.settings import tls_context as broker_context
from paceline.settings import Address
from simulator.doctor.probes.broker import echo_topic, visit_broker
from simulator.doctor.probes.network import look_at_server, reach, shows_tls
from simulator.doctor.probes.verifier import ask_verifier, expects_tls
from simulator.doctor.probes.verifier import tls_context as verifier_context
from simulator.doctor.settings import DoctorSettings
from simulator.doctor.verdicts.broker import judge_login, judge_orchestrator, judge_rights
from simulator.doctor.verdicts.certificates import judge_certificate
from simulator.doctor.verdicts.check import Check, Status, skipped
from simulator.doctor.verdicts.models import ModelFinding
from simulator.doctor.verdicts.network import judge_connection, judge_link, judge_name
from simulator.doctor.verdicts.verifier import (
    Described,
    judge_access,
    judge_same_text,
    judge_target,
)


async def examine_network(
    settings: DoctorSettings,
    *,
    target: ModelFinding,
    now: datetime,
    tell: Callable[[Check], None],
) -> None:
    """Look at all verifiers, at whether they go together, and at the broker."""
    answered: dict[str, Described] = {}
    for address in settings.agent.verifiers:
        described = await _verifier(address, settings, now=now, tell=tell)
        if described is not None and described.samples_s:
            answered[str(address)] = described
            tell(judge_target(f"verifier {address} model", described, target))
            tell(judge_link(f"verifier {address} link", described.samples_s))
    if not settings.agent.verifiers:
        tell(skipped("verifier", "no --cloud given; a private one would run on this machine"))
    together = judge_same_text(answered)
    if together is not None:
        tell(together)
    if settings.control is None:
        tell(skipped("broker", "no --broker given; an edge goes by its own controller"))
    else:
        await _broker(settings.control, settings, now=now, tell=tell)


async def _verifier(
    address: Address, settings: DoctorSettings, *, now: datetime, tell: Callable[[Check], None]
) -> Described | None:
    """Look at one verifier, as far as it goes; none if it cannot be asked."""
    name, connection = f"verifier {address}", settings.agent.connection
    context: ssl.SSLContext | None = None
    if expects_tls(address, connection):
        try:
            context = verifier_context(connection)
        except (OSError, ValueError):
            tell(skipped(name, "our own certificates cannot be used, see above"))
            return None
    way = _Way(name=name, program="`paceline cloud`", address=address, context=context)
    if not await _walk(way, settings, now=now, tell=tell):
        return None
    described = await ask_verifier(address, connection, deadline_s=settings.deadline_s)
    if described.is_transport and context is None:
        tls = await shows_tls(address, deadline_s=settings.deadline_s)
        described = replace(described, shows_tls=tls)
    tell(judge_access(f"{name} access", described))
    return described


async def _broker(
    control: ControlSettings,
    settings: DoctorSettings,
    *,
    now: datetime,
    tell: Callable[[Check], None],
) -> None:
    broker, edge_id = control.broker, control.edge_id
    name = f"broker {broker.address}"
    try:
        context = broker_context(broker)
    except ConfigError:
        tell(skipped(name, "our own certificates cannot be used, see above"))
        return
    way = _Way(name=name, program="an MQTT broker", address=broker.address, context=context)
    if not await _walk(way, settings, now=now, tell=tell):
        return
    finding = await visit_broker(broker, edge_id=edge_id, deadline_s=settings.deadline_s)
    tell(judge_login(f"{name} login", finding))
    tell(judge_rights(f"{name} rights", finding, topic=echo_topic(edge_id)))
    tell(judge_orchestrator(finding))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A way to a server."""

    name: str
    program: str
    """What should listen there."""
    address: Address
    context: ssl.SSLContext | None
    """None: we speak to it without TLS."""


async def _walk(
    way: _Way, settings: DoctorSettings, *, now: datetime, tell: Callable[[Check], None]
) -> bool:
    """Judge name, connection and certificate, as far as it goes; return whether it leads there."""
    reached = await reach(way.address, deadline_s=settings.deadline_s)
    checks = [judge_name(f"{way.name} name", reached)]
    if reached.hosts:
        checks.append(judge_connection(f"{way.name} connection", reached, program=way.program))
    if reached.connect_s is not None:
        certificate = f"{way.name} certificate"
        if way.context is None:
            checks.append(skipped(certificate, "without TLS: loopback, or --insecure"))
        else:
            shown = await look_at_server(way.address, way.context, deadline_s=settings.deadline_s)
            checks.append(judge_certificate(certificate, shown, now=now))
    for check in checks:
        tell(check)
    if checks[-1].status is Status.FAIL:
        tell(skipped(way.name, "the rest needs this"))
        return False
    return True
