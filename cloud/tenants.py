"""Who a peer is: bearer tokens and client certificates name tenants."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from paceline.errors import ConfigError, UnauthenticatedError

MIN_TOKEN_LENGTH = 16
"""Characters of a bearer token; shorter ones can be guessed."""
MAX_TOKENS = 10_000
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of a stream."""

    tenant: str
    """Owns sessions and counts against a quota; empty where nobody has to say who they are."""
    namespace: str
    """Whose prompt prefixes it may share; empty for nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """Whom to let in."""

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Bearer token to tenant; empty to ask for none. Looking one up costs a comparison with each."""

    anonymous_namespace: str = ""
    """Whose prefixes peers without a tenant share; empty: each is on its own. Sharing saves prefill and lets a peer
    learn from its speed that somebody else had the same prompt."""

    def __post_init__(self) -> None:
        """Check every field; messages never quote a token."""
        if len(self.tokens) > MAX_TOKENS:
            raise ConfigError(f"tokens: got {len(self.tokens)}, expected at most {MAX_TOKENS}")
        for token, tenant in self.tokens.items():
            if not tenant:
                raise ConfigError("tokens: got a token without a tenant, expected a name for each")
            if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or " " in token:
                raise ConfigError(
                    f"tokens: the token of tenant {tenant!r} has {len(token)} characters, expected at least "
                    f"{MIN_TOKEN_LENGTH} of printable ASCII without spaces; make one with: openssl rand -hex 32"
                )


class Doorkeeper:
    """Finds out who a peer is."""

    def __init__(self, settings: TenantSettings) -> None:
        self._anonymous = Peer(tenant="", namespace=settings.anonymous_namespace)
        self._tenants = [
            (sha256(token.encode()).digest(), tenant) for token, tenant in settings.tokens.items()
        ]

    def admit(self, *, authorization: str | None, certificate_name: str | None) -> Peer:
        """Return who this is.

        Args:
            authorization: the metadata entry of that name, "Bearer <token>".
            certificate_name: common name of a client certificate that TLS has verified.

        Raises:
            UnauthenticatedError: a token is required, and it is missing or wrong.
        """
        if not self._tenants:
            if certificate_name:
                return Peer(tenant=certificate_name, namespace=certificate_name)
            return self._anonymous
        if authorization is None:
            raise UnauthenticatedError(
                "authorization: got none, expected `Bearer <token>`; ask the verifier's operator for a token"
            )
        if not authorization.lower().startswith(_SCHEME):
            raise UnauthenticatedError(
                "authorization: got another scheme, expected `Bearer <token>`"
            )
        digest = sha256(authorization[len(_SCHEME) :].strip().encode()).digest()
        found = ""
        for known, tenant in self._tenants:
            # All are compared, each in constant time: how long it takes tells nothing about any token.
            if hmac.compare_digest(known, digest):
                found = tenant
        if not found:
            raise UnauthenticatedError(
                "authorization: the token is not known here; check it, or ask the verifier's operator"
            )
        return Peer(tenant=found, namespace=found)


def read_tokens(path: Path) -> dict[str, str]:
    """Return the tokens of a file: one `tenant token` per line; empty lines and lines that begin with # are skipped.

    Raises:
        ConfigError: the file cannot be read, or a line is not that; names the line, never quotes it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file: cannot read {path}: {error}") from error
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 2:
            raise ConfigError(
                f"--token-file: {path}, line {number}: got {len(parts)} words, expected `tenant token`"
            )
        if parts[1] in tokens:
            raise ConfigError(f"--token-file: {path}, line {number}: this token was there before")
        tokens[parts[1]] = parts[0]
    if not tokens:
        raise ConfigError(f"--token-file: {path} holds no token; write one `tenant token` per line")
    return tokens
