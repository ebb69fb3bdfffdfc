"""What the page and the API show, as JSON. Made when somebody looks; a tick without readers costs nothing.

All values that peers tell stay texts and numbers here; the page puts texts in as text nodes only.
"""

import json
from collections import deque
from importlib.metadata import version
from typing import Any

from orchestrator.figures import OwnFigures
from orchestrator.fleet import Fleet
from orchestrator.history_file import MAX_INTEGER
from orchestrator.members import Edge, MemberState, Verifier
from orchestrator.rates import VerifierMeter, lately, total

TREND_POINTS = 120
TREND_EVERY_S = 5.0

Row = dict[str, Any]


class Board:
    """Turns the fleet into rows and tells what has changed in them.

    Args:
        broker: address of the broker, to be shown.
        history: where the history is, to be shown.
        unix_offset_s: seconds since 1970 at the zero of the fleet's clock.
    """

    def __init__(self, *, broker: str, history: str, unix_offset_s: float) -> None:
        self._labels = {"broker": broker, "history": history, "version": version("paceline")}
        self._unix_offset_s = unix_offset_s
        self._meters: dict[str, VerifierMeter] = {}
        self._trend: deque[Row] = deque(maxlen=TREND_POINTS)
        self._trend_due_s = float("-inf")
        self._told: dict[str, Row] = {}

    def note(self, fleet: Fleet, *, now_s: float) -> None:
        """Follow what only differences tell. Called about once a second."""
        for gone in self._meters.keys() - fleet.verifiers.keys():
            del self._meters[gone]
        for verifier_id, verifier in fleet.verifiers.items():
            meter = self._meters.setdefault(verifier_id, VerifierMeter())
            meter.add(verifier.status, at_s=verifier.heard_at_s)
        if now_s >= self._trend_due_s:
            self._trend_due_s = now_s + TREND_EVERY_S
            point = {"at_s": self._unix(now_s), **_totals(fleet, now_s=now_s)}
            self._trend.append(point)

    def everything(self, fleet: Fleet, own: OwnFigures, *, now_s: float) -> str:
        """Return the whole fleet."""
        rows = [self.edge_row(edge, now_s=now_s) for edge in fleet.edges.values()]
        return _line(
            {**self._frame(fleet, own, now_s=now_s), "edges": rows, "trend": list(self._trend)}
        )

    def change(self, fleet: Fleet, own: OwnFigures, *, now_s: float, has_joined: bool) -> str:
        """Return what has changed since this was asked last.

        Args:
            fleet: as it is now.
            own: figures of this program.
            now_s: time of the fleet's clock.
            has_joined: somebody reads who was given everything in between, so all rows are told again: a row that went
                there and back would stay wrong on that page.
        """
        rows = {edge_id: self.edge_row(edge, now_s=now_s) for edge_id, edge in fleet.edges.items()}
        told, self._told = self._told, rows
        return _line(
            {
                **self._frame(fleet, own, now_s=now_s),
                "edges": [row for name, row in rows.items() if has_joined or told.get(name) != row],
                "gone": [edge_id for edge_id in told if edge_id not in rows],
                "trend_point": self._trend[-1] if self._trend else None,
            }
        )

    def edge_row(self, edge: Edge, *, now_s: float) -> Row:
        """Return one edge as the table shows it."""
        gauges, policy, done = edge.gauges, edge.policy, lately(edge, now_s=now_s)
        row: Row = {
            "id": edge.edge_id,
            "state": edge.state.value,
            # Of some only an earlier orchestrator's policy, or an operator's order, is known.
            "heard_at_s": None if edge.presence is None else self._unix(edge.heard_at_s),
            "verifier": "",
            "rtt_s": 0.0,
            "jitter_s": 0.0,
            "acceptance_probability": None,
            "draft_length": 0,
            "window": 0,
            "num_generations": 0,
            "tokens_per_s": _round(done.tokens_per_s),
            "waste": _round(done.waste),
            "pinned": edge.pinned,
            "revision": 0 if policy is None else min(policy.revision, MAX_INTEGER),
            "explanation": "" if policy is None else policy.explanation,
        }
        if gauges is not None:
            row |= {
                "verifier": gauges.verifier,
                "rtt_s": _round(gauges.rtt_s),
                "jitter_s": _round(gauges.rtt_jitter_s),
                "acceptance_probability": _round(gauges.acceptance_probability)
                if gauges.num_judged
                else None,
                "draft_length": gauges.draft_length,
                "window": gauges.window,
                "num_generations": gauges.num_generations,
            }
        return row

    def edge_details(self, edge: Edge, *, explanation: str, now_s: float) -> Row:
        """Return everything about one edge."""
        row = self.edge_row(edge, now_s=now_s) | {"explanation": explanation, "policy": None}
        if (policy := edge.policy) is not None:
            row["policy"] = {
                "revision": min(policy.revision, MAX_INTEGER),
                "draft_length": policy.draft_length,
                "window": policy.window,
                "verifiers": list(policy.verifiers),
                "explanation": policy.explanation,
            }
        telemetry = edge.telemetry
        return row | {
            "drafter": "" if telemetry is None else telemetry.drafter,
            "verifiers": []
            if telemetry is None
            else [
                {"address": known.address, "rtt_s": _round(known.rtt_s)}
                for known in telemetry.verifiers
            ],
        }

    def _frame(self, fleet: Fleet, own: OwnFigures, *, now_s: float) -> Row:
        return {
            "at_s": self._unix(now_s),
            "orchestrator": self._labels
            | {
                "uptime_s": round(own.uptime_s, 1),
                "is_connected": own.is_connected,
                "num_received": own.intake.num_received,
                "num_shed": own.num_shed,
                "num_malformed": own.link.malformed,
                "num_published": own.num_policies,
                "num_readers": own.feed.num_readers,
                "decision_latency_median_s": _round(own.latency_median_s),
                "decision_latency_p99_s": _round(own.latency_p99_s),
            },
            "totals": _totals(fleet, now_s=now_s),
            "verifiers": [
                self._verifier_row(verifier, now_s=now_s) for verifier in fleet.verifiers.values()
            ],
        }

    def _verifier_row(self, verifier: Verifier, *, now_s: float) -> Row:
        status, meter = verifier.status, self._meters.get(verifier.verifier_id)
        is_draining = status.draining and verifier.state is MemberState.ONLINE
        return {
            "id": verifier.verifier_id,
            "state": "draining" if is_draining else verifier.state.value,
            "heard_at_s": self._unix(verifier.heard_at_s),
            "address": status.address,
            "model": "" if status.target is None else status.target.name,
            "dtype": "" if status.target is None else status.target.dtype,
            "num_sessions": status.num_sessions,
            "max_sessions": status.max_sessions,
            "step_s": _round(status.step_s),
            "queue_s": _round(status.queue_s),
            "busy": _round(status.busy),
            "row_price_s": _round(status.row_price_s),
            "tokens_per_s": None if meter is None else _round(meter.tokens_per_s(now_s=now_s)),
            "version": status.version,
        }

    def _unix(self, at_s: float) -> float:
        return round(at_s + self._unix_offset_s, 1)


def _totals(fleet: Fleet, *, now_s: float) -> Row:
    done = [lately(edge, now_s=now_s) for edge in fleet.edges.values()]
    sums = total(done)
    usable = [
        verifier.status
        for verifier in fleet.verifiers.values()
        if verifier.state is MemberState.ONLINE
    ]
    return {
        "num_edges": len(fleet.edges),
        "num_online": sum(edge.state is MemberState.ONLINE for edge in fleet.edges.values()),
        "num_verifiers": len(fleet.verifiers),
        "num_verifiers_online": len(usable),
        "num_sessions": sum(status.num_sessions for status in usable),
        "max_sessions": sum(status.max_sessions for status in usable),
        "tokens_per_s": _round(sum(part.tokens_per_s or 0.0 for part in done)),
        "acceptance_probability": _round(sums.acceptance_probability),
        "waste": _round(sums.waste),
    }


def _round(value: float | None) -> float | None:
    """Return five digits: more is noise, and costs bytes a thousand times a second."""
    return None if value is None else float(f"{value:.5g}")


def _line(value: Row) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
