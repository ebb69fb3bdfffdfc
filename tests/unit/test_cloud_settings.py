"""Settings of the server, from the command line on; and what errors are on the wire."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cloud.program
from cloud.command import cloud as cloud_command
from cloud.program import run, verifier_settings
from cloud.scheduler import RaceDrafting, Schedule
from cloud.server import ServerSettings, TlsSettings
from cloud.service import STATUS
from cloud.worker import WorkerSettings
from paceline.errors import ConfigError, PacelineError
from paceline.settings import Address

EVERYWHERE = Address(host="0.0.0.0", port=1)
TLS = TlsSettings(certificate=b"c", key=b"secret-key")


def subclasses(kind: type[PacelineError]) -> set[type[PacelineError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_every_error_has_a_status() -> None:
    # Errors of other tests, defined in test modules, are no part of the product.
    ours = {kind for kind in subclasses(PacelineError) if kind.__module__ == "paceline.errors"}
    assert set(STATUS) == ours


def options(*arguments: str) -> dict[str, Any]:
    context = cloud_command.make_context("cloud", list(arguments))
    return dict(context.params)


def test_defaults_are_valid_and_local() -> None:
    settings = verifier_settings(options())
    assert settings.server.listen.is_loopback
    assert settings.tenants.anonymous_namespace


def test_options_arrive() -> None:
    settings = verifier_settings(
        options(
            *("--listen", "0.0.0.0:0", "--insecure", "--no-race", "--race-patience", "80ms"),
            *("--race-drafts", "lookup"),
            *("--row-budget", "40", "--window", "64", "--max-lead", "16", "--lease", "2m"),
            *("--schedule", "alternating", "--max-slowdown", "1.5"),
            *("--max-sessions", "3", "--min-step", "20ms", "--drain", "1s"),
            *("--token", "t" * 20),
        )
    )
    assert settings.server.is_insecure_allowed
    assert settings.server.drain_s == 1.0
    assert (settings.scheduler.race, settings.scheduler.patience_s) == (False, 0.08)
    assert settings.scheduler.race_drafts is RaceDrafting.LOOKUP
    assert settings.scheduler.row_budget == 40
    assert settings.scheduler.schedule is Schedule.ALTERNATING
    assert settings.scheduler.max_slowdown == 1.5
    assert (settings.worker.max_draft_rows, settings.worker.min_step_s) == (39, 0.02)
    assert (settings.sessions.window, settings.sessions.max_lead) == (64, 16)
    assert (settings.sessions.lease_s, settings.sessions.max_sessions) == (120.0, 3)
    assert settings.sessions.max_sessions_per_tenant == 3
    assert settings.tenants.tokens == {"t" * 20: "default"}
    assert not settings.tenants.anonymous_namespace, "strangers share nothing"


def test_every_option_explains_itself() -> None:
    for parameter in cloud_command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tls": TLS},
        {"has_tokens": True},
    ],
)
def test_strangers_are_not_let_in_by_accident(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        ServerSettings(listen=EVERYWHERE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"is_insecure_allowed": True},
        {"tls": TLS, "has_tokens": True},
        {"tls": TlsSettings(certificate=b"c", key=b"k", client_authority=b"a")},
    ],
)
def test_known_peers_and_closed_networks_are(changes: dict[str, Any]) -> None:
    ServerSettings(listen=EVERYWHERE, **changes)


def test_keys_are_not_shown() -> None:
    assert "secret-key" not in repr(ServerSettings(listen=EVERYWHERE, tls=TLS, has_tokens=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ping_interval_s": 0.0},
        {"ping_timeout_s": 0.0},
        {"max_message_bytes": 1},
        {"drain_s": -1.0},
    ],
)
def test_server_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ServerSettings(listen=Address(host="127.0.0.1", port=0), **wrong)


@pytest.mark.parametrize("wrong", [{"max_draft_rows": -1}, {"min_step_s": 11.0}])
def test_worker_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WorkerSettings(**wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-cert", "c"], "--tls-key"),
        (["--tls-key", "c"], "--tls-cert"),
        (["--client-ca", "c"], "--client-ca"),
        (["--tls-cert", "missing", "--tls-key", "missing"], "cannot read missing"),
        (["--token", "short"], "16"),
        (["--token-file", "missing"], "cannot read missing"),
        (["--listen", "0.0.0.0:0"], "--insecure"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verifier_settings(options(*arguments))


def test_bad_certificates(tmp_path: Path) -> None:
    path = tmp_path / "no.pem"
    path.write_text("no certificate", encoding="utf-8")
    with pytest.raises(ConfigError, match="PEM"):
        verifier_settings(options("--tls-cert", str(path), "--tls-key", str(path)))


def test_port_in_use_is_told_before_weights_are_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {where}"):
            cloud.program.run(options("--listen", where, "--target", "/does/not/exist"))


def test_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        cloud.program.run(options("--listen", "192.0.2.1:0", "--insecure"))


@pytest.mark.slow
def test_help_imports_neither_torch_nor_grpc() -> None:
    code = "import sys, cloud.command; print({'torch', 'grpc'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert answer.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--broker", "127.0.0.1:1", "--listen", "0.0.0.0:0", "--insecure"),
            "--advertise: got none",
        ),
        (("--verifier-id", "gpu-1"), "--verifier-id: got it without --broker"),
        (("--broker", "127.0.0.1:1", "--verifier-id", "a b"), "--verifier-id: got 'a b'"),
        (("--metrics-listen", "192.0.2.1:9464"), "--metrics-listen: cannot listen on 192.0.2.1"),
    ],
)
def test_what_the_fleet_could_not_use_is_told_before_a_model_is_loaded(
    arguments: tuple[str, ...], sentence: str
) -> None:
    listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        run(options("--target", "no-such-model", *listen, *arguments))
