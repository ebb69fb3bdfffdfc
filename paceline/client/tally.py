"""Counts what a generation costs, over all its streams. Pure."""

from dataclasses import dataclass

from paceline.client.link import Link
from paceline.client.outcome import Statistics
from paceline.messages import Commit
from paceline.session.drafting import EdgeCounts


@dataclass(slots=True, kw_only=True)
class DrafterWork:
    """What the drafter did for a generation."""

    time_s: float = 0.0
    num_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums up; times are seconds of the client's clock."""

    started_s: float = 0.0
    first_token_s: float | None = None
    last_token_s: float | None = None
    committed_tokens: int = 0
    num_streams: int = 0
    num_proposals: int = 0
    proposal_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    step_ns: int = 0
    num_steps_timed: int = 0

    def committed(self, commit: Commit, *, now_s: float) -> None:
        """Count a commit, cut to what is new."""
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.last_token_s = now_s
        self.committed_tokens += len(commit.tokens)
        if commit.verify_ns:
            self.step_ns += commit.verify_ns
            self.num_steps_timed += 1

    def proposed(self, *, payload_bytes: int) -> None:
        """Count a proposal with drafted tokens."""
        self.num_proposals += 1
        self.proposal_bytes += payload_bytes

    def ended(self, link: Link) -> None:
        """Count the bytes of a stream that is over."""
        self.bytes_up += link.payload_bytes_up
        self.bytes_down += link.payload_bytes_down

    def statistics(
        self,
        counts: EdgeCounts,
        *,
        link: Link | None,
        rtt_s: float,
        work: DrafterWork,
        now_s: float,
    ) -> Statistics:
        """Return the sums, the bytes of the stream that still lives included."""
        first_s = self.first_token_s
        end_s = now_s if self.last_token_s is None else self.last_token_s
        return Statistics(
            duration_s=end_s - self.started_s,
            time_to_first_token_s=0.0 if first_s is None else first_s - self.started_s,
            committed=self.committed_tokens,
            drafted=counts.drafted,
            judged=counts.judged,
            accepted=counts.accepted,
            late=counts.late,
            stale=counts.stale,
            unsent=counts.unsent,
            steps=counts.steps,
            payload_bytes_up=self.bytes_up + (link.payload_bytes_up if link else 0),
            payload_bytes_down=self.bytes_down + (link.payload_bytes_down if link else 0),
            proposal_bytes=self.proposal_bytes,
            rtt_s=rtt_s,
            verifier_step_s=self.step_ns / max(1, self.num_steps_timed) / 1e9,
            reconnects=max(0, self.num_streams - 1),
            drafting_s=work.time_s,
            drafting_tokens=work.num_tokens,
            proposals=self.num_proposals,
            answers=counts.answers,
            prepared=counts.prepared,
        )
