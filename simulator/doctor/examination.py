"""The order in which things are looked at: first what the rest stands on."""

import asyncio
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from edge.draft_spec import BLOCK, models_of, parse
from edge.options import NO_DRAFT
from simulator.doctor.probes import installation
from simulator.doctor.probes.certificates import Pair, look_at_authority, look_at_pair
from simulator.doctor.probes.network import look_at_port
from simulator.doctor.settings import USUAL_PORTS, DoctorSettings
from simulator.doctor.verdicts import gguf, machine, models, network, software
from simulator.doctor.verdicts.certificates import judge_certificate
from simulator.doctor.verdicts.check import Check, Status, skipped

LOADING_TAKES = 10.0
"""How much longer loading weights may take than reading a tokenizer."""


def examine(settings: DoctorSettings, *, show: Callable[[Check], None]) -> tuple[Check, ...]:
    """Look at everything in turn.

    Args:
        settings: what to look at.
        show: called with each check as soon as it is there.

    Returns:
        All checks, in order.
    """
    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        show(check)

    now = datetime.now(UTC)
    for check in _installation(now):
        tell(check)
    if any(check.status is Status.FAIL and check.name == "packages" for check in checks):
        tell(skipped("everything else", "it needs these packages"))
        return tuple(checks)
    target = _look_at_models(settings, tell)
    for check in (*_ports(settings), *_own_certificates(settings, now)):
        tell(check)
    # gRPC and the broker's client are imported only now: they stand on the packages.
    from simulator.doctor.peers import examine_network  # noqa: PLC0415

    asyncio.run(examine_network(settings, target=target, now=now, tell=tell))
    return tuple(checks)


def _installation(now: datetime) -> Iterator[Check]:
    yield software.judge_python(
        platform.python_version(), specifier=installation.python_specifier()
    )
    packages = installation.packages()
    yield software.judge_packages(packages)
    yield machine.judge_clock(now, installed=installation.installed_at())
    if all(package.fits for package in packages):
        found = installation.machine()
        yield machine.judge_processor(found)
        yield machine.judge_memory(found)
        yield machine.judge_gpu(found)


def _look_at_models(settings: DoctorSettings, tell: Callable[[Check], None]) -> models.ModelFinding:
    """Look at target and draft; return the target's finding, which verifiers are compared with."""
    from simulator.doctor.probes.gguf import gguf_files  # noqa: PLC0415 - stands on the packages
    from simulator.doctor.probes.models import look_at_model  # noqa: PLC0415 - imports PyTorch

    agent = settings.agent
    thoroughly: Literal["count", "load"] = "load" if settings.load else "count"
    deadline_s = settings.model_deadline_s * (LOADING_TAKES if settings.load else 1.0)
    target = look_at_model(
        agent.target,
        role="target",
        dtype=agent.dtype,
        # With a verifier elsewhere only the target's tokenizer is read here.
        weights="none" if agent.verifiers else thoroughly,
        deadline_s=deadline_s,
    )
    tell(models.judge_model(target))
    found = [target]
    same_words: models.ModelFinding | None = None
    spec = None if agent.draft == NO_DRAFT else parse(agent.draft)
    files = () if spec is None else gguf_files(spec)
    for model in () if spec is None else models_of(spec):
        draft = look_at_model(
            model.model,
            role="draft",
            dtype=agent.dtype,
            weights=thoroughly,
            deadline_s=deadline_s,
            is_block=model.how == BLOCK,
        )
        tell(models.judge_model(draft))
        found.append(draft)
        if model.how in ("", BLOCK):
            same_words = draft
    if same_words is not None or not files:
        tell(models.judge_pair(target, same_words))
    found += [_look_at_file(file, target, tell) for file in files]
    tell(models.judge_fit(tuple(found), available_bytes=installation.available_bytes()))
    return target


def _look_at_file(
    file: str, target: models.ModelFinding, tell: Callable[[Check], None]
) -> models.ModelFinding:
    """Look at a file that llama.cpp is to compute; return what memory is needed for it."""
    from simulator.doctor.probes.gguf import look_at_gguf  # noqa: PLC0415 - stands on the packages

    finding = look_at_gguf(file, target=None if target.error else target.name)
    tell(gguf.judge_file(finding))
    tell(gguf.judge_words(finding, target_error=target.error))
    tell(gguf.judge_library(finding))
    return models.ModelFinding(
        role="draft", name=file, error=finding.error, weight_bytes=finding.file_bytes
    )


def _ports(settings: DoctorSettings) -> Iterator[Check]:
    for address in settings.listen or USUAL_PORTS:
        finding = look_at_port(address, was_asked_for=bool(settings.listen))
        yield network.judge_port(finding)


def _own_certificates(settings: DoctorSettings, now: datetime) -> Iterator[Check]:
    """Judge the files that are named, whatever they are used for."""
    connection = settings.agent.connection
    authorities: dict[str, Path | None] = {"--tls-ca": connection.ca_file}
    pairs = {"--tls-cert": (connection.cert_file, connection.key_file)}
    if settings.control is not None:
        broker = settings.control.broker
        authorities["--broker-ca"] = broker.ca_file
        pairs["--broker-cert"] = (broker.cert_file, broker.key_file)
    for name, file in authorities.items():
        if file is not None:
            for finding in look_at_authority(file):
                yield judge_certificate(name, finding, now=now)
    for name, (certificate, key) in pairs.items():
        if certificate is not None and key is not None:
            finding = look_at_pair(Pair(certificate=certificate, key=key))
            yield judge_certificate(name, finding, now=now)
