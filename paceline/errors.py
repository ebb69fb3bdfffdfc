"""Everything that can go wrong, in one tree.

    PacelineError                    base; carries a wire `reason` and `retryable`
    |- ConfigError                   before anything starts; exit status 2
    |- ProtocolError                 abstract, never raised itself
    |  |- LocalProtocolError         we broke the rules: a bug
    |  `- RemoteProtocolError        the peer broke them: that stream ends, others go on
    |- TransportError                the link failed
    |  |- LinkClosed                 it broke or was never there
    |  `- LinkTimeout                it went silent
    |- UnauthenticatedError          missing or wrong credentials
    |- IncompatibleError             wrong tokenizer, model or protocol version
    |- InvalidRequestError           a request that can never succeed as it stands
    |- OverloadedError               admission refused; carries retry_after_s
    |- SessionLostError              the verifier no longer holds the session: open it again in full
    |- FencedError                   a newer stream of the same session took over
    |- DrainingError                 the verifier is going away: move
    |- ConnectionGivenUpError        reconnecting was tried for as long as the policy allows
    `- ModelError                    cannot load, unsupported architecture, non-finite logits

Messages name the field, what was got, what was expected and what to do. Foreign exceptions are translated once, at
the shell. A rejected draft is not an error.
"""

from typing import ClassVar


class PacelineError(Exception):
    """Base of all errors that Paceline raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"
    """Wire reason; stable, while messages may change."""

    retryable: ClassVar[bool] = False
    """The same request may succeed later or elsewhere."""


class ConfigError(PacelineError):
    """A setting is wrong; raised before anything starts."""

    reason = "CONFIG"


class ProtocolError(PacelineError):
    """The rules of the session were broken."""

    reason = "PROTOCOL_VIOLATION"


class LocalProtocolError(ProtocolError):
    """We broke the rules: a bug on this side."""

    reason = "INTERNAL"


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules: end that stream, keep serving others."""


class TransportError(PacelineError):
    """The link failed."""

    reason = "TRANSPORT"
    retryable = True


class LinkClosed(TransportError):  # noqa: N818 - it is a state of the link before it is an error
    """The link broke or could not be made."""


class LinkTimeout(TransportError):  # noqa: N818 - the same
    """The link went silent for too long."""


class UnauthenticatedError(PacelineError):
    """Credentials are missing or wrong."""

    reason = "UNAUTHENTICATED"


class IncompatibleError(PacelineError):
    """Both sides are right, but not for each other: tokenizer, model or protocol version."""

    reason = "INCOMPATIBLE"


class InvalidRequestError(PacelineError):
    """A request that can never succeed as it stands, a too long prompt for example."""

    reason = "INVALID_REQUEST"


class OverloadedError(PacelineError):
    """Admission refused."""

    reason = "OVERLOADED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Earliest time to try again, in seconds from now."""


class SessionLostError(PacelineError):
    """The verifier no longer holds the session: open it again with prompt and output."""

    reason = "SESSION_LOST"
    retryable = True


class FencedError(PacelineError):
    """A newer stream of the same session took over; this one is over."""

    reason = "FENCED"


class DrainingError(PacelineError):
    """The verifier is going away: move to another one."""

    reason = "DRAINING"
    retryable = True


class ConnectionGivenUpError(PacelineError):
    """Reconnecting was tried for as long as the policy allows."""

    reason = "UNAVAILABLE"


class ModelError(PacelineError):
    """A model cannot be loaded or computed nonsense."""

    reason = "MODEL"
