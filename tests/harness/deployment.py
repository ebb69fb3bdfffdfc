"""The files of deploy/ put to work on this machine: certificates, the broker, paths and host names mapped."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.brokers import MOSQUITTO
from harness.processes import END_TIMEOUT_S, Child, free_port

from paceline.mqtt.settings import BrokerSettings
from paceline.settings import Address

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def make_certificate(
    folder: Path, role: str, name: str, *hosts: str, days: int = 90
) -> subprocess.CompletedProcess[str]:
    """Run deploy/certificates.sh; its exit status is the caller's to check."""
    return subprocess.run(
        ["sh", str(DEPLOY / "certificates.sh"), str(folder), role, name, *hosts],
        env={"PATH": os.environ["PATH"], "DAYS": str(days)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def certificates(folder: Path, *, servers: Sequence[str] = (), clients: Sequence[str] = ()) -> Path:
    """Make certificates, those of servers for 127.0.0.1, and the orchestrator's; returns the folder."""
    make_certificate(folder / "steering", "client", "orchestrator").check_returncode()
    for name in servers:
        make_certificate(folder, "server", name, "127.0.0.1").check_returncode()
    for name in clients:
        make_certificate(folder, "client", name).check_returncode()
    return folder


def expire(folder: Path, name: str) -> None:
    """Sign a certificate again so that it has just expired."""
    copy = ("-copy_extensions", "copyall")
    request = ("-in", f"{name}.pem", "-x509toreq", "-signkey", f"{name}.key", "-out", "request")
    signed = ("-req", "-in", "request", "-days", "0", "-CA", "ca.pem", "-CAkey", "ca.key")
    for arguments in (
        (*request, *copy),
        (*signed, *copy, "-set_serial", "1", "-out", f"{name}.pem"),
    ):
        subprocess.run(["openssl", "x509", *arguments], cwd=folder, check=True, capture_output=True)


@contextmanager
def command(
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Child]:
    """Run any program; ended when left, whatever happens."""
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=folder,
    )
    child = Child(process)
    try:
        yield child
    finally:
        if process.poll() is None:
            child.kill()
        for reader in child._readers:
            reader.join(END_TIMEOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPorts:
    """Where that broker listens on 127.0.0.1."""

    members: int = field(default_factory=free_port)
    """For edges and verifiers."""
    steering: int = field(default_factory=free_port)
    """For the orchestrator."""


@contextmanager
def deployed_broker(
    folder: Path, *, secrets: Path, ports: BrokerPorts, kept: Path | None = None
) -> Iterator[Child]:
    """Run mosquitto with deploy/mosquitto on 127.0.0.1.

    Args:
        folder: for its files.
        secrets: the folder with its keys.
        ports: where to listen.
        kept: data of an earlier run; none begins without.
    """
    assert MOSQUITTO is not None
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8")
    data = kept or folder / "data"
    data.mkdir(exist_ok=True)
    shutil.copy(DEPLOY / "mosquitto" / "acl", folder / "acl")
    (folder / "acl").chmod(0o600)
    for path, here in {
        "listener 8883": f"listener {ports.members} 127.0.0.1",
        "listener 8884": f"listener {ports.steering} 127.0.0.1",
        "/run/secrets/steering-ca.pem": str(secrets / "steering" / "ca.pem"),
        "/run/secrets": str(secrets),
        "/mosquitto/config": str(folder),
        "/mosquitto/data/": f"{data}/",
    }.items():
        assert path in text, path
        text = text.replace(path, here)
    # Keys are for their owner alone; as root mosquitto would become somebody else and could not read them.
    (folder / "mosquitto.conf").write_text(f"{text}\nuser root\n", encoding="utf-8")
    with command([MOSQUITTO, "-c", folder / "mosquitto.conf"]) as child:
        child.wait_for_stderr(r"mosquitto version \S+ running", timeout_s=10.0)
        yield child


def broker_login(secrets: Path, name: str, *, ports: BrokerPorts) -> BrokerSettings:
    """Return how the owner of a certificate reaches that broker."""
    steers = name == "orchestrator"
    folder = secrets / "steering" if steers else secrets
    return BrokerSettings(
        address=Address(host="127.0.0.1", port=ports.steering if steers else ports.members),
        ca_file=secrets / "ca.pem",
        cert_file=folder / f"{name}.pem",
        key_file=folder / f"{name}.key",
    )
