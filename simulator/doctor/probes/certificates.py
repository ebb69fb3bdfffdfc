"""Looks at certificates with the standard library: a handshake within this process shows what stands in one.

Python reads the fields of a certificate for us only when it has verified it (ssl.SSLSocket.getpeercert). So a
certificate of ours is shown to ourselves, in the role of a server and in that of a client.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator.doctor.verdicts.certificates import WRONG_PURPOSE, Certificate, CertificateFinding

MAX_FLIGHTS = 10
"""Turns of a handshake; TLS needs fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its key, PEM files."""

    certificate: Path
    key: Path


def look_at_pair(pair: Pair) -> CertificateFinding:
    """Return what stands in a certificate of ours, and for which roles it is good."""
    try:
        _context(ssl.PROTOCOL_TLS_SERVER, pair)
    except (ssl.SSLError, ValueError, OSError) as error:
        return CertificateFinding(error=f"{pair.certificate} with {pair.key}: {_reason(error)}")
    purposes: list[str] = []
    found = CertificateFinding(error=f"{pair.certificate}: good for nothing", code=WRONG_PURPOSE)
    for purpose in ("server", "client"):
        try:
            certificate = _shown(pair, purpose=purpose)
        except ssl.SSLError as error:
            if error_code(error) != WRONG_PURPOSE and not purposes:
                found = CertificateFinding(
                    error=f"{pair.certificate}: {_reason(error)}", code=error_code(error)
                )
        else:
            purposes.append(purpose)
            found = CertificateFinding(certificate=certificate, purposes=tuple(purposes))
    return found


def look_at_authority(file: Path) -> tuple[CertificateFinding, ...]:
    """Return every certificate in a file of authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, ValueError, OSError) as error:
        return (CertificateFinding(error=f"{file}: {_reason(error)}"),)
    found = context.get_ca_certs()
    if not found:
        return (CertificateFinding(error=f"{file}: no certificate in it is an authority's"),)
    return tuple(CertificateFinding(certificate=read_fields(fields)) for fields in found)


def read_fields(fields: Mapping[str, Any]) -> Certificate:
    """Return what we need of what `getpeercert` returns."""
    subject = {key: value for part in fields.get("subject", ()) for key, value in part}
    expires_s = ssl.cert_time_to_seconds(fields["notAfter"])
    return Certificate(
        subject=subject.get("commonName", ""),
        expires=datetime.fromtimestamp(expires_s, tz=UTC),
        names=tuple(value for _, value in fields.get("subjectAltName", ())),
    )


def error_code(error: BaseException) -> int:
    """Return OpenSSL's number of why verification failed, 0 for anything else."""
    return error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0


def _context(protocol: int, pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    # An empty password: an encrypted key is refused instead of asked about on the terminal.
    context.load_cert_chain(pair.certificate, pair.key, password="")
    return context


def _shown(pair: Pair, *, purpose: str) -> Certificate:
    """Return the certificate as the other side reads it once it has verified it.

    Raises:
        ssl.SSLError: it does not verify in this role.
    """
    server, client = (
        _context(ssl.PROTOCOL_TLS_SERVER, pair),
        _context(ssl.PROTOCOL_TLS_CLIENT, pair),
    )
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    judge = client if purpose == "server" else server
    judge.verify_mode = ssl.CERT_REQUIRED
    # The certificate itself is trusted: who signed it does not matter here.
    judge.load_verify_locations(pair.certificate)
    judge.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    for _ in range(MAX_FLIGHTS):
        is_done = [_advanced(end) for end in ends]  # both ends, each time
        if all(is_done):
            break
    reader = ends[0] if purpose == "server" else ends[1]
    fields = reader.getpeercert()
    assert fields is not None, "a handshake with a required certificate ends with one, or raises"
    return read_fields(fields)


def _advanced(end: ssl.SSLObject) -> bool:
    """Do what can be done of one end's handshake; return whether it is over."""
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _reason(error: BaseException) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_message=message):
            return message
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case OSError(strerror=str(text)):
            return text
    return str(error)
