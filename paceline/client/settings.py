"""How a client connects and how far ahead it drafts."""

from dataclasses import dataclass, field
from pathlib import Path

from paceline.errors import ConfigError
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a lost verifier is sought again.

    Raises:
        ConfigError: a field is out of its range.
    """

    first_s: float = 0.1
    """Longest delay before the first attempt, in seconds; above 0. It doubles with every round of attempts."""

    max_s: float = 5.0
    """Longest delay between two attempts, in seconds; at least `first_s`."""

    give_up_after_s: float = 120.0
    """Without a new token for so long, in seconds, no further attempt is made; 0 makes one attempt only."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0.0 < self.first_s <= self.max_s:
            raise ConfigError(
                f"retry.first_s, retry.max_s: got {self.first_s}, {self.max_s}, expected 0 < first_s <= max_s"
            )
        if self.give_up_after_s < 0.0:
            raise ConfigError(
                f"retry.give_up_after_s: got {self.give_up_after_s}, expected at least 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How to reach a verifier, and for how long to wait for it.

    Raises:
        ConfigError: a field is out of its range, or a certificate comes without its key.
    """

    insecure: bool = False
    """Speak without TLS to other machines as well. Loopback addresses are always spoken to without TLS, unless
    `ca_file` or `cert_file` is given."""

    ca_file: Path | None = None
    """Certificates to trust, PEM; the system's if None."""

    cert_file: Path | None = None
    """Our own certificate, PEM, for mutual TLS; needs `key_file`."""

    key_file: Path | None = None
    """Key of `cert_file`, PEM."""

    token: str | None = field(default=None, repr=False)
    """Bearer token that names the tenant; sent with every call."""

    connect_s: float = 10.0
    """Longest wait for a connection, in seconds; above 0."""

    silence_s: float = 60.0
    """Longest time an open stream may say nothing, or take nothing, in seconds; then it counts as broken, and the
    session resumes on a new one. Must exceed the longest prefill: resuming too early costs a round trip each time."""

    keepalive_s: float = 25.0
    """Time between pings on a connection, in seconds, 20 to 30: below the 60 s after which many a NAT forgets a flow,
    above what servers take for abuse."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """What happens when a verifier cannot be reached."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            # The token itself is not told: errors are shown and logged.
            raise ConfigError("token: it has characters that no HTTP header takes, expected ASCII")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("cert_file, key_file: got one of them, expected both or none")
        for name in ("connect_s", "silence_s", "keepalive_s"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected more than 0")

    @property
    def has_certificates(self) -> bool:
        """TLS is wanted even on loopback."""
        return self.ca_file is not None or self.cert_file is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftingSettings:
    """How far ahead to draft.

    Raises:
        ConfigError: a field is out of its range.
    """

    draft_length: int = 8
    """How many tokens deep to draft beyond the committed text; 0 drafts nothing. Good is about what the target commits
    within a round trip; more costs the verifier rows and the edge time when a guess is wrong. On a CPU every row
    costs; on a GPU, and over a long link, more may pay."""

    window: int = 64
    """Most drafted tokens in flight; at least 1. The verifier may allow fewer."""

    tokens_per_message: int = 4
    """Most tokens drafted at a time, and so per message; at least 1. Fewer reach the verifier sooner and let a commit
    interrupt the drafter sooner; more cost fewer bytes per token."""

    growth: Growth | None = None
    """How a tree of guesses grows, if the drafter makes trees (`paceline.drafter.TreeDraft`); None, or another drafter: a
    chain. A tree wants a `draft_length` and a `window` that do not hold it back."""

    pipeline: PipelineSettings = PipelineSettings()  # noqa: RUF009 - frozen
    """What is drafted when, which of it is sent when, and whether the verifier waits for it. A generation keeps the one it began
    with."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, least in (("draft_length", 0), ("window", 1), ("tokens_per_message", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        sends_chains = not (self.pipeline.name.sends_trees or self.pipeline.name.caches_outcomes)
        if self.growth is not None and sends_chains:
            raise ConfigError(
                f"growth: got one with the pipeline {self.pipeline.name}, expected none: it drafts chains"
            )
