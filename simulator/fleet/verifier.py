"""A verifier in the fleet's model: continuous batching, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.cost import Work
from simulator.fleet.door import Desk, Door
from simulator.fleet.edge import FOREVER_S
from simulator.fleet.guesses import GuessBook
from simulator.fleet.plan import shares
from simulator.fleet.session import Session
from simulator.fleet.settings import VerifierModel
from simulator.fleet.sizes import MessageSizes
from simulator.fleet.tally import Answered, Stepped, Tally

Rows = list[tuple[Session, int]]
"""Sessions of a step, and how many rows each has: drafts, or of its prompt."""


class Verifier:
    """One verifier and its edges.

    Args:
        model: the verifier.
        factors: scatter of the times of steps, in turn.
        desks: the edges placed on it.
        book: which guesses are right.
        sizes: of messages.
        measured: what happens between these two times is counted; nobody asks after the second.
    """

    def __init__(
        self,
        model: VerifierModel,
        *,
        factors: Sequence[float],
        desks: Sequence[Desk],
        book: GuessBook,
        sizes: MessageSizes,
        measured: tuple[float, float],
    ) -> None:
        self._model = model
        self._factors = factors
        self._sizes = sizes
        self.tally = Tally(begins_s=measured[0], ends_s=measured[1])
        self._door = Door(
            model,
            desks=desks,
            book=book,
            sizes=sizes,
            tally=self.tally,
            closes_s=measured[1],
        )
        self._ready: list[Session] = []
        self._filling: list[Session] = []
        self._num_steps = 0

    def run(self, until_s: float = FOREVER_S) -> Tally:
        """Run up to a time, or until everything is answered and nobody asks any more; return what was counted."""
        now_s = 0.0
        while now_s < until_s:
            self._filling += self._door.let_in(now_s)
            served, filled = self._planned(now_s)
            if served or filled:
                ends_s = now_s + self._step(served, filled, now_s=now_s)
                sessions = len(self._ready) + len(self._filling)
                self.tally.worked(now_s, ends_s, num_sessions=sessions)
                self._put_away(ends_s)
            else:
                ends_s = self._next_s()
                if ends_s == FOREVER_S:
                    break
                ends_s = max(ends_s, now_s)
                self.tally.waited(now_s, ends_s, num_sessions=len(self._ready))
            now_s = ends_s
        return self.tally

    def _next_s(self) -> float:
        """Return when to look again, with nothing to do now."""
        patience_s = self._model.scheduler.patience_s
        waking_s = (min(one.next_s, one.waiting_since_s + patience_s) for one in self._ready)
        return min(self._door.next_s, min(waking_s, default=FOREVER_S))

    # --- a step

    def _planned(self, now_s: float) -> tuple[Rows, Rows]:
        """Return who has a root in the step that begins now, with drafts, and whose prompt is computed."""
        settings, most = self._model.scheduler, self._model.max_draft_rows
        for session in self._ready:
            if session.seen_s < now_s:
                session.look(now_s)
        due, filling = self._ready, self._filling
        if not settings.race:
            due = [session for session in due if self._is_due(session, now_s)]
        served = [(session, session.offers(most)) for session in due]
        wants = len(served) + sum(count for _, count in served)
        wants += sum(session.to_prefill for session in filling)
        if wants <= settings.row_budget:
            return served, [(one, one.to_prefill) for one in filling]
        served, filling = sorted(served, key=_turn_of_rows), sorted(filling, key=_turn)
        _, drafts, prefill = shares(
            [count for _, count in served],
            [session.to_prefill for session in filling],
            settings,
        )
        served = [(one, count) for (one, _), count in zip(served, drafts, strict=False)]
        filled = [(one, rows) for one, rows in zip(filling, prefill, strict=True) if rows]
        return served, filled

    def _is_due(self, session: Session, now_s: float) -> bool:
        """Whether a root is worth it with the race off; see `cloud.scheduler`."""
        has_drafts = session.arrived_tip > session.length
        patience_s = self._model.scheduler.patience_s
        return has_drafts or session.is_idle or session.waiting_since_s + patience_s <= now_s

    def _step(self, served: Rows, filled: Rows, *, now_s: float) -> float:
        """Make a step; return how long it takes."""
        work = _work(served, filled)
        self._num_steps += 1
        factor = self._factors[self._num_steps % len(self._factors)]
        took_s = factor * self._model.cost.seconds(work)
        ends_s = now_s + took_s
        yields = list(served)
        for session, rows in filled:
            session.to_prefill -= rows
            if session.queued_s is None:
                session.queued_s = now_s - session.arrived_s
            if session.to_prefill:
                session.waiting_since_s = ends_s
            else:  # the last row of a prompt is its first root
                yields.append((session, 0))
        num_tokens = num_bytes = 0
        waited_s = 0.0
        for session, num_drafts in yields:
            waited_s += now_s - session.waiting_since_s
            num_tokens -= session.length
            num_bytes += self._commit(session, num_drafts, began_s=now_s, ends_s=ends_s)
            num_tokens += session.length
        self.tally.stepped(
            Stepped(
                ends_s=ends_s,
                num_tokens=num_tokens,
                num_served=len(yields),
                num_roots=len(served),
                num_draft_rows=work.num_rows - len(served),
                num_prefill_rows=work.num_prefill_rows,
                waited_s=waited_s,
                num_bytes=num_bytes,
            )
        )
        return took_s

    def _commit(self, session: Session, num_drafts: int, *, began_s: float, ends_s: float) -> int:
        """Commit what a step yields for a session and send it; return how many bytes."""
        # What comes during a step is no row of it, but is compared with what it yields.
        session.look(ends_s)
        before, half = session.length, session.edge_half
        judged, accepted = session.step(num_drafts)
        has_waited = session.waiting_since_s < began_s
        session.waiting_since_s = ends_s
        session.heard_s = half.commit(
            ends_s, judged=judged, accepted=accepted, step_s=ends_s - began_s
        )
        num_bytes = 0
        if not before:
            session.first_token_s = session.heard_s - half.starts_s
            num_bytes = self._sizes.opened
        num_counts = (judged > 0) + (session.num_late > 0) + (session.num_stale > 0)
        session.num_late = session.num_stale = 0
        num_tokens = session.length - before
        return num_bytes + self._sizes.commit(
            num_tokens, num_accepted=accepted, num_counts=num_counts, waited=has_waited
        )

    def _put_away(self, now_s: float) -> None:
        """Sort sessions by what they need next; those that are over go."""
        if self._filling:
            self._ready += [one for one in self._filling if not one.to_prefill]
            self._filling = [one for one in self._filling if one.to_prefill]
        ended = [one for one in self._ready if one.is_over]
        if ended:
            self._ready = [one for one in self._ready if not one.is_over]
            for session in ended:
                self._finish(session, now_s=now_s)

    def _finish(self, session: Session, *, now_s: float) -> None:
        """Count an answer that is complete, and let its edge go on."""
        half, heard_s = session.edge_half, session.heard_s
        half.advance(heard_s)
        half.drafts.ended = half.drafts.drafted - half.drafts.accounted
        self._door.goodbye(half, heard_s=heard_s)
        self.tally.answered(
            Answered(
                kind=half.edge.kind,
                edge=half.edge.number,
                asked_s=half.starts_s,
                first_token_s=session.first_token_s,
                lasted_s=heard_s - half.starts_s,
                tokens=session.length,
                queued_s=session.queued_s or 0.0,
                served_s=now_s - session.let_in_s,
            ),
            drafts=half.drafts,
            num_bytes=half.bytes_up,
        )


def _work(served: Rows, filled: Rows) -> Work:
    """Return what a step computes."""
    num_rows = num_prefill = context = attended = 0
    for session, num_drafts in served:
        rows, text = 1 + num_drafts, session.text
        num_rows += rows
        context += text
        attended += rows * text
    for session, rows in filled:
        text = session.text - session.to_prefill
        num_prefill += rows
        context += text
        attended += rows * text
    return Work(
        num_sequences=len(served) + len(filled),
        num_rows=num_rows,
        num_prefill_rows=num_prefill,
        num_context_tokens=context,
        num_attended=attended,
    )


def _turn_of_rows(rows: tuple[Session, int]) -> tuple[float, int]:
    return _turn(rows[0])


def _turn(session: Session) -> tuple[float, int]:
    """Who has waited longest comes first."""
    return session.waiting_since_s, session.number
