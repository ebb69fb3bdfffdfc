"""The orchestrator's figures under their Prometheus names."""

from orchestrator.figures import OwnFigures
from paceline.metrics.figures import Figure

_COUNTERS: tuple[Figure[OwnFigures], ...] = (
    Figure(
        name="paceline:orchestrator_messages",
        kind="counter",
        help="Messages that were read, by what they tell.",
        label="kind",
        value=lambda own: {
            "telemetry": own.intake.num_telemetry,
            "status": own.intake.num_status,
            "presence": own.intake.num_presence,
            "policy": own.intake.num_policies,
        },
    ),
    Figure(
        name="paceline:orchestrator_messages_shed",
        kind="counter",
        help="Messages that newer ones pushed out unread.",
        value=lambda own: own.num_shed,
    ),
    Figure(
        name="paceline:orchestrator_messages_malformed",
        kind="counter",
        help="Messages that could not be read.",
        value=lambda own: own.link.malformed,
    ),
    Figure(
        name="paceline:orchestrator_messages_ignored",
        kind="counter",
        help="Messages that were read but not believed, by reason.",
        label="reason",
        value=lambda own: {
            "stale": own.ignored.stale,
            "repeated": own.ignored.repeated,
            "backwards": own.ignored.backwards,
            "refused": own.ignored.refused,
        },
    ),
    Figure(
        name="paceline:orchestrator_policies",
        kind="counter",
        help="Policies decided and handed to the broker link.",
        value=lambda own: own.num_policies,
    ),
    Figure(
        name="paceline:orchestrator_broker_connections",
        kind="counter",
        help="Times the broker was found.",
        value=lambda own: own.link.connections,
    ),
    Figure(
        name="paceline:orchestrator_history_rows",
        kind="counter",
        help="Rows for the history, by what became of them.",
        label="fate",
        value=lambda own: {
            "written": own.history.num_written,
            "shed": own.history.num_shed,
            "failed": own.history.num_failed,
        },
    ),
    Figure(
        name="paceline:orchestrator_pages_dropped",
        kind="counter",
        help="Open pages that were dropped because they read too slowly.",
        value=lambda own: own.feed.num_dropped,
    ),
)

_LEVELS: tuple[Figure[OwnFigures], ...] = (
    Figure(
        name="paceline:orchestrator_edges",
        kind="gauge",
        help="Edges, by state.",
        label="state",
        value=lambda own: own.edges,
    ),
    Figure(
        name="paceline:orchestrator_verifiers",
        kind="gauge",
        help="Verifiers, by state.",
        label="state",
        value=lambda own: own.verifiers,
    ),
    Figure(
        name="paceline:orchestrator_broker_connected",
        kind="gauge",
        help="1 while the broker is there.",
        value=lambda own: float(own.is_connected),
    ),
    Figure(
        name="paceline:orchestrator_pages",
        kind="gauge",
        help="Open pages that follow the fleet.",
        value=lambda own: own.feed.num_readers,
    ),
)

_TIMES: tuple[Figure[OwnFigures], ...] = (
    Figure(
        name="paceline:orchestrator_decision_latency_seconds",
        kind="histogram",
        help="From a message's arrival to the policy that answers it.",
        value=lambda own: own.latency,
    ),
    Figure(
        name="paceline:orchestrator_fold_seconds",
        kind="histogram",
        help="Time to take a batch of messages into the fleet.",
        value=lambda own: own.fold,
    ),
    Figure(
        name="paceline:orchestrator_plan_seconds",
        kind="histogram",
        help="Time to plan for the fleet.",
        value=lambda own: own.plan,
    ),
)

FIGURES: tuple[Figure[OwnFigures], ...] = (*_COUNTERS, *_LEVELS, *_TIMES)
