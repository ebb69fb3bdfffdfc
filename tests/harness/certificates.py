"""A throw-away certificate authority, made with the openssl command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path, *, client_name: str = "edge-7") -> Certificates:
    """Make an authority, and with it certificates for 127.0.0.1 and for a client."""
    _openssl(folder, *_NEW, *("-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem"))
    _signed(folder, "server", subject="/CN=localhost", extra="subjectAltName=IP:127.0.0.1")
    _signed(folder, "client", subject=f"/CN={client_name}", extra="keyUsage=digitalSignature")
    return Certificates(
        authority=folder / "ca.pem",
        server=folder / "server.pem",
        server_key=folder / "server.key",
        client=folder / "client.pem",
        client_key=folder / "client.key",
    )


_NEW = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _signed(folder: Path, name: str, *, subject: str, extra: str) -> None:
    _openssl(
        folder,
        *_NEW,
        *("-subj", subject, "-addext", extra, "-addext", "basicConstraints=CA:FALSE"),
        *("-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
