"""How to reach a broker."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from paceline.errors import ConfigError
from paceline.settings import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Which broker, and how to speak to it.

    Raises:
        ConfigError: a field is out of its range, or one comes without the other that it needs.
    """

    address: Address
    """Where the broker listens."""

    user: str | None = None
    """Name to log in with; the broker's access rules are about it."""

    password: str | None = field(default=None, repr=False)
    """Password of `user`."""

    insecure: bool = False
    """Speak without TLS to other machines as well. Loopback addresses are always spoken to without TLS, unless
    `ca_file` or `cert_file` is given; others always with it."""

    ca_file: Path | None = None
    """Certificates to trust, PEM; the system's if None."""

    cert_file: Path | None = None
    """Our own certificate, PEM, for mutual TLS; needs `key_file`."""

    key_file: Path | None = None
    """Key of `cert_file`, PEM."""

    keepalive_s: int = 15
    """The broker gives a silent client up, and publishes its will, after 1.5 times so long, in whole seconds, 5 to 600."""

    timeout_s: float = 10.0
    """Longest wait for an answer of the broker, in seconds; above 0. Then it counts as lost."""

    first_retry_s: float = 0.2
    """Longest delay before a lost broker is tried again, in seconds; above 0. It doubles with every attempt."""

    max_retry_s: float = 10.0
    """Longest delay between two attempts, in seconds; at least `first_retry_s`. A broker that refuses us is always
    left alone for so long. There is no last attempt."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.address.port == 0:
            raise ConfigError(f"address: got {self.address}, expected a port above 0")
        if self.password is not None and self.user is None:
            raise ConfigError("password: got one without a user, expected both or none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("cert_file, key_file: got one of them, expected both or none")
        if not 5 <= self.keepalive_s <= 600:
            raise ConfigError(f"keepalive_s: got {self.keepalive_s}, expected 5 to 600")
        if not self.timeout_s > 0.0:
            raise ConfigError(f"timeout_s: got {self.timeout_s}, expected more than 0")
        if not 0.0 < self.first_retry_s <= self.max_retry_s:
            raise ConfigError(
                f"first_retry_s, max_retry_s: got {self.first_retry_s}, {self.max_retry_s}, "
                "expected 0 < first_retry_s <= max_retry_s"
            )

    @property
    def uses_tls(self) -> bool:
        """The link is encrypted and the broker proves who it is."""
        has_certificates = self.ca_file is not None or self.cert_file is not None
        return has_certificates or not (self.insecure or self.address.is_loopback)


def tls_context(settings: BrokerSettings) -> ssl.SSLContext | None:
    """Return what TLS connections are made with; None if the settings want none.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """
    if not settings.uses_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ConfigError(
            f"ca_file: cannot read certificates from {settings.ca_file}: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _ClosingSocket
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except OSError as error:
            raise ConfigError(
                f"cert_file, key_file: cannot read {settings.cert_file} with {settings.key_file}: {error}"
            ) from error
    return context


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base class has it so
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise
