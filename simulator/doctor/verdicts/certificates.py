"""Are certificates good, for how long, and for whom?"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from simulator.doctor.verdicts.check import Check, failed, passed, warned

SOON = timedelta(days=30)
"""Time left from which on a certificate should be renewed."""

NO_TLS = -1
"""In the place of OpenSSL's number: the other side did not answer in TLS."""
# OpenSSL's numbers (x509_vfy.h); stable since its beginning.
NOT_YET_VALID, EXPIRED, SELF_SIGNED, SELF_SIGNED_IN_CHAIN = 9, 10, 18, 19
NO_ISSUER, NO_ISSUER_LEAF, WRONG_PURPOSE, WRONG_HOST, WRONG_ADDRESS = 20, 21, 26, 62, 64

_ADVICE = {
    NO_TLS: "The other side speaks without TLS: start it with --tls-cert and --tls-key, or, in a closed network only, give "
    "--insecure here.",
    NOT_YET_VALID: "Check the clock of this machine and of the one that made the certificate.",
    EXPIRED: "Make a new certificate (deploy/certificates.sh); check this machine's clock as well.",
    WRONG_PURPOSE: "It was made for the other role: deploy/certificates.sh FOLDER server NAME HOST... for what others "
    "connect to, client for what connects.",
    WRONG_HOST: "Use a name that stands in the certificate, or make one for this name: deploy/certificates.sh FOLDER "
    "server NAME HOST...",
}
_ADVICE[WRONG_ADDRESS] = _ADVICE[WRONG_HOST]
_UNKNOWN_AUTHORITY = frozenset({SELF_SIGNED, SELF_SIGNED_IN_CHAIN, NO_ISSUER, NO_ISSUER_LEAF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What stands in a certificate."""

    subject: str
    """Its common name."""
    expires: datetime
    names: tuple[str, ...] = ()
    """Host names and addresses it is good for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFinding:
    """A certificate that was looked at: one here, or the one a server showed."""

    certificate: Certificate | None = None
    """None if it could not be verified or read."""
    error: str = ""
    """Why not."""
    code: int = 0
    """OpenSSL's number of why verification failed, or NO_TLS; 0 for anything else."""
    purposes: tuple[str, ...] = ()
    """What a certificate of ours is good for: "server", "client". Of a server's own it is server."""


def judge_certificate(name: str, finding: CertificateFinding, *, now: datetime) -> Check:
    """Judge a certificate by whether it verified and by how long it is good."""
    certificate = finding.certificate
    if certificate is None:
        return failed(name, finding.error, certificate_advice(finding.code))
    left = certificate.expires - now
    days = left.days
    for_whom = f" for {', '.join(certificate.names)}" if certificate.names else ""
    role = f" ({' and '.join(finding.purposes)})" if finding.purposes else ""
    found = f"{certificate.subject or 'without a name'}{role}{for_whom}, expires {certificate.expires:%Y-%m-%d}"
    if left <= timedelta():
        return failed(name, found, _ADVICE[EXPIRED])
    if left < SOON:
        return warned(
            name, f"{found}, in {days} days", "Renew it before it stops all connections at once."
        )
    return passed(name, f"{found}, in {days} days")


def certificate_advice(code: int) -> str:
    """Return what to do about a certificate that did not verify.

    Args:
        code: OpenSSL's number.
    """
    if code in _UNKNOWN_AUTHORITY:
        return (
            "The authority that signed it is not known here: copy its ca.pem to this machine and give it as --tls-ca "
            "(for a broker --broker-ca)."
        )
    return _ADVICE.get(
        code, "Check that the files are PEM, that the key is the certificate's, and who signed it."
    )
