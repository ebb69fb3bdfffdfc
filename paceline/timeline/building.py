"""Makes the timeline of a session from what is known of it. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from paceline.timeline.facts import Downward, Facts, Forward, Step, StreamChange, Upward
from paceline.timeline.placing import COMMIT, Down, Up, downs, judge, rejected, ups
from paceline.timeline.summing import figures_of, notes_of
from paceline.timeline.value import (
    Committed,
    Fate,
    Flow,
    Happening,
    Lane,
    Reference,
    Span,
    Timeline,
)

ROUNDING_S = 1e-6
"""Times that are closer are the same: messages tell nanoseconds, and sums of them round."""

TOUCH_S = 1e-9
"""Times are told in whole nanoseconds: spans that overlap by less touch."""


def timeline_of(facts: Facts, *, title: str, reference: Reference | None = None) -> Timeline:
    """Return the timeline of a session.

    Args:
        facts: what is known of it.
        title: what it is; a line.
        reference: to be drawn beside its text.
    """
    builder = _Builder(facts)
    return Timeline(
        title=title,
        spans=tuple(builder.spans),
        commits=builder.commits,
        flows=tuple(builder.flows),
        happenings=builder.happenings,
        figures=figures_of(facts, told=builder.told, spans=builder.spans, commits=builder.commits),
        notes=notes_of(facts),
        reference=reference,
    )


class _Builder:
    """Collects spans, then what led to what."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._ups, self._downs = ups(facts), downs(facts)
        self._refused = judge(self._ups, self._downs)
        self.spans: list[Span] = []
        self.flows: list[Flow] = []
        self._sent = self._add_ups()
        self._steps = self._add_verifications()
        self._step_ends = [self.spans[index].end_s for index in self._steps]
        self._received = self._add_downs()
        self._step_of = self._verified_positions()
        self._add_queues()
        self._link_forwards(self._add_forwards())
        self.commits = self._commits()
        self.happenings = self._happenings()

    def _s(self, at_s: float) -> float:
        return max(0.0, at_s - self._facts.began_s)

    @property
    def told(self) -> list[Downward]:
        """Commits that the edge took."""
        return [down.fact for down in self._downs if down.is_text and down.fact.message == COMMIT]

    # --- lanes

    def _add(self, spans: Sequence[Span]) -> list[int]:
        """Add the spans of one lane, by their begin, to the first row that is free; return their indices."""
        free: list[float] = []
        indices = []
        for span in spans:
            row = next(
                (i for i, end in enumerate(free) if end <= span.begin_s + TOUCH_S), len(free)
            )
            free[row : row + 1] = [span.end_s]
            indices.append(len(self.spans))
            self.spans.append(replace(span, row=row))
        return indices

    def _add_forwards(self) -> list[tuple[Forward, int]]:
        facts = [fact for fact in self._facts.facts if isinstance(fact, Forward)]
        spans = [
            Span(
                lane=Lane.DRAFT,
                begin_s=self._s(fact.at_s),
                end_s=self._s(fact.end_s),
                name=f"draft {fact.num_tokens}" if fact.num_tokens else "prepare",
                details=(("text", fact.position), ("tokens", fact.num_tokens)),
            )
            for fact in facts
        ]
        return list(zip(facts, self._add(spans), strict=True))

    def _add_ups(self) -> list[tuple[Up, int]]:
        there = [up for up in self._ups if up.arrives_s is not None]
        spans = [
            Span(
                lane=Lane.UPLINK,
                begin_s=self._s(up.fact.at_s),
                end_s=max(self._s(up.fact.at_s), self._s(up.arrives_s or 0.0)),
                name=self._up_name(up),
                fate=self._fate(up),
                details=self._up_details(up),
            )
            for up in there
        ]
        return list(zip(there, self._add(spans), strict=True))

    def _up_name(self, up: Up) -> str:
        if up.fact.message != "proposal":
            return up.fact.message
        return f"propose {len(up.nodes)}" if up.nodes else "acknowledge"

    def _fate(self, up: Up) -> Fate:
        if not up.nodes:
            return Fate.NONE
        count = sum(node.is_accepted for node in up.nodes)
        if count:
            return Fate.ACCEPTED if count == len(up.nodes) else Fate.PARTLY
        are_right = all(node.is_right for node in up.nodes)
        return Fate.LATE if are_right else Fate.WASTED

    def _up_details(self, up: Up) -> tuple[tuple[str, int | tuple[int, ...]], ...]:
        details: list[tuple[str, int | tuple[int, ...]]] = [("bytes", up.fact.num_bytes)]
        if up.nodes:
            first = up.nodes[0].position - self._facts.prompt_length
            accepted = sum(node.is_accepted for node in up.nodes)
            details += [("position", first), ("tokens", len(up.nodes)), ("accepted", accepted)]
            if self._facts.has_tokens:
                details.append(("token_ids", tuple(up.fact.tokens)))
        return tuple(details)

    def _add_verifications(self) -> list[int]:
        """Add the steps; return their indices."""
        steps = [fact for fact in self._facts.facts if isinstance(fact, Step)]
        if not steps:  # what commits tell of theirs
            steps = [
                Step(
                    at_s=max(self._facts.began_s, down.verify[0]),
                    end_s=down.verify[1],
                    num_rows=down.fact.num_rows,
                    num_prefill_rows=0,
                )
                for down in self._downs
                if down.verify
            ]
        ends = [self._s(step.end_s) for step in steps]
        answered = [self._last_before(down, ends) for down in self._downs if down.verify]
        spans = [
            Span(
                lane=Lane.VERIFY,
                begin_s=self._s(step.at_s),
                end_s=ends[place],
                # The first token comes from the step that reads the end of the prompt; a later step may read other
                # sessions' prompts.
                name=(
                    "prefill"
                    if place in answered[:1] or (step.num_prefill_rows and place not in answered)
                    else "verify"
                ),
                details=(("rows", step.num_rows), ("prefill_rows", step.num_prefill_rows)),
            )
            for place, step in enumerate(steps)
        ]
        return self._add(spans)

    def _add_downs(self) -> list[tuple[Down, int]]:
        spans = [
            Span(
                lane=Lane.DOWNLINK,
                begin_s=min(self._s(down.sent_s), self._s(down.fact.at_s)),
                end_s=self._s(down.fact.at_s),
                name=(
                    f"commit {len(down.fact.tokens)}" + (", end" if down.fact.is_end else "")
                    if down.fact.message == COMMIT
                    else down.fact.message
                ),
                details=(("tokens", len(down.tokens)), ("accepted", sum(down.accepted))),
            )
            for down in self._downs
        ]
        order = sorted(range(len(spans)), key=lambda index: spans[index].begin_s)
        indices = self._add([spans[index] for index in order])
        return sorted(
            ((self._downs[i], index) for i, index in zip(order, indices, strict=True)),
            key=lambda pair: pair[0].fact.at_s,
        )

    def _commits(self) -> tuple[Committed, ...]:
        prompt = self._facts.prompt_length
        return tuple(
            Committed(
                at_s=self._s(down.fact.at_s),
                position=down.position - prompt,
                accepted=down.accepted,
                rejected=tuple(p - prompt for p in rejected(down, self._refused)),
                tokens=down.tokens if self._facts.has_tokens else (),
            )
            for down in self._downs
            if down.tokens
        )

    def _happenings(self) -> tuple[Happening, ...]:
        """Streams that broke, and those after them; not that one is put away when all is said."""
        found: list[Happening] = []
        num_streams = 0
        for fact in self._facts.facts:
            if isinstance(fact, Upward) and fact.message == "close":
                break
            if not isinstance(fact, StreamChange):
                continue
            num_streams += fact.is_up
            if not fact.is_up or num_streams > 1:
                name = "connected again" if fact.is_up else "stream lost"
                found.append(Happening(at_s=self._s(fact.at_s), name=name))
        return tuple(found)

    # --- what led to what

    def _step_before(self, down: Down) -> int | None:
        """Return the step that a commit tells of: the last one that had ended when it was sent."""
        if down.verify is None:
            return None
        place = self._last_before(down, self._step_ends)
        return self._steps[place] if place >= 0 else None

    def _last_before(self, down: Down, ends: Sequence[float]) -> int:
        return bisect_right(ends, self._s(down.sent_s) + ROUNDING_S) - 1

    def _verified_positions(self) -> dict[tuple[int, int], int]:
        """Return which step drew each position, by the stream that told."""
        found: dict[tuple[int, int], int] = {}
        for down, index in self._received:
            step = self._step_before(down)
            if step is not None:
                self.flows.append(Flow(source=step, target=index))
                positions = range(down.position, down.position + len(down.tokens))
                found.update(dict.fromkeys(((down.stream, one) for one in positions), step))
        return found

    def _add_queues(self) -> None:
        """Add what waited at the verifier: drafts until they are compared, and the session for its step."""
        waits = []
        for up, index in self._sent:
            compared = self._compared_in(up, index)
            self.flows += [Flow(source=index, target=step) for step in compared]
            if compared:
                begin_s = self.spans[index].end_s
                waits.append(self._wait(begin_s, compared[0], name="drafts wait"))
        for down, _ in self._received:
            step = self._step_before(down)
            if step is not None:
                begin_s = max(0.0, self.spans[step].begin_s - down.fact.queue_s)
                waits.append(self._wait(begin_s, step, name="session waits"))
        there = [span for span in waits if span.end_s - span.begin_s > ROUNDING_S]
        self._add(sorted(there, key=lambda span: span.begin_s))

    def _compared_in(self, up: Up, index: int) -> list[int]:
        """Return the steps after which drafts of a message were compared; none for those that came too late."""
        steps = dict.fromkeys(
            self._step_of.get((up.stream, node.position)) for node in up.nodes if node.is_compared
        )
        end_s = self.spans[index].end_s
        return [step for step in steps if step is not None and end_s <= self.spans[step].end_s]

    def _wait(self, begin_s: float, step: int, *, name: str) -> Span:
        end_s = max(begin_s, self.spans[step].begin_s)
        return Span(lane=Lane.QUEUE, begin_s=begin_s, end_s=end_s, name=name)

    def _link_forwards(self, forwards: list[tuple[Forward, int]]) -> None:
        """Link each call of the drafter to the proposals that took what it gave."""
        offered: dict[int, list[tuple[float, int]]] = {}
        for up, index in self._sent:
            for node in up.nodes:
                offered.setdefault(node.position, []).append((up.fact.at_s, index))
        for forward, index in forwards:
            first = (
                next(
                    (
                        up
                        for at_s, up in offered.get(position, ())
                        if at_s >= forward.end_s - ROUNDING_S
                    ),
                    None,
                )
                for position in range(forward.position, forward.position + forward.num_tokens)
            )
            self.flows += [
                Flow(source=index, target=up) for up in dict.fromkeys(first) if up is not None
            ]

    # --- what it comes to
