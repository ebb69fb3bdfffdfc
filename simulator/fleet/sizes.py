"""How many bytes messages have, as `paceline.codec` really writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from cloud.admission import SessionSettings, session_limits
from paceline.codec import encode_cloud, encode_edge
from paceline.messages import (
    SESSION_ID_BYTES,
    Close,
    CloseReason,
    Commit,
    ModelIdentity,
    Open,
    Opened,
    Proposal,
)
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, SessionId, TokenId

POSITION = 512
"""Where a text is taken to stand: positions take one or two bytes."""
COUNT_BYTES = 2
"""A small number in a message of protobuf, with its name."""
WAIT_BYTES = 5
"""The same of a time in nanoseconds."""
STEP_NS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class MessageSizes:
    """Bytes of serialised messages.

    Args:
        token: an id of usual size: small ones take fewer bytes.
    """

    token: int = 20_000
    _proposals: list[int] = field(default_factory=list)
    _beginnings: list[int] = field(default_factory=list)
    _commits: list[int] = field(default_factory=list)
    _accepting: list[int] = field(default_factory=list)

    def proposal(self, num_tokens: int, *, begins: bool = False) -> int:
        """Return the bytes of a piece of a chain; one that begins a chain says that it hangs on the committed text."""
        known = self._beginnings if begins else self._proposals
        while len(known) <= num_tokens:
            num = len(known)
            message = Proposal(
                base_position=Position(POSITION),
                tokens=self._tokens(num),
                parents=(0,) if begins and num else (),
                idle=False,
            )
            known.append(len(encode_edge(message).SerializeToString()))
        return known[num_tokens]

    def commit(
        self, num_tokens: int, *, num_accepted: int = 0, num_counts: int = 0, waited: bool = False
    ) -> int:
        """Return the bytes of what one step commits.

        Args:
            num_tokens: committed.
            num_accepted: of them.
            num_counts: of what became of drafts that are not 0, but for the accepted.
            waited: for the step; else the field is left out.
        """
        while len(self._commits) <= num_tokens:
            self._commits.append(self._commit_bytes(len(self._commits), accepted=False))
            self._accepting.append(self._commit_bytes(len(self._accepting), accepted=True))
        known = self._accepting if num_accepted else self._commits
        return known[num_tokens] + COUNT_BYTES * num_counts + WAIT_BYTES * waited

    def _commit_bytes(self, num_tokens: int, *, accepted: bool) -> int:
        message = Commit(
            position=Position(POSITION),
            tokens=self._tokens(num_tokens),
            accepted=(True,) * num_tokens if accepted else (),
            num_judged=0,
            num_accepted=int(accepted),
            num_late=0,
            num_stale=0,
            queue_ns=0,
            verify_ns=STEP_NS,
            num_rows=1,
            finish=None,
            num_steps=1,
        )
        return len(encode_cloud(message).SerializeToString())

    def opening(self, prompt_tokens: int) -> int:
        """Return the bytes of the question."""
        message = Open(
            tokenizer_fingerprint=bytes(32),
            prompt=self._tokens(prompt_tokens),
            sampling=SamplingSettings(temperature=0.0, seed=2**63),
            max_tokens=POSITION,
        )
        return len(encode_edge(message).SerializeToString())

    @cached_property
    def opened(self) -> int:
        """Bytes of the verifier's answer to the question."""
        identity = ModelIdentity(
            name="smollm2-135m",
            weights_fingerprint=bytes(32),
            dtype="bfloat16",
            quantisation="",
            tokenizer_fingerprint=bytes(32),
            vocabulary_size=49_152,
            context_length=8192,
        )
        limits = session_limits(SessionSettings(), identity)
        message = Opened(
            session_id=SessionId(bytes(SESSION_ID_BYTES)),
            limits=limits,
            target=identity,
            length=Position(POSITION),
            step_ns=STEP_NS,
        )
        return len(encode_cloud(message).SerializeToString())

    @cached_property
    def close(self) -> int:
        """Bytes of the last message."""
        return len(encode_edge(Close(reason=CloseReason.DONE)).SerializeToString())

    def _tokens(self, num: int) -> tuple[TokenId, ...]:
        return (TokenId(self.token),) * num
