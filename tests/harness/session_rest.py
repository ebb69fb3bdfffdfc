"""What must hold while an edge's drafter is asked for nothing, so that only the verifier can make anything happen."""

from paceline.session import EdgeSession
from paceline.session.table import EdgeState


def check_rest(edge: EdgeSession) -> None:
    """Check that nothing waits for a drafter that rests, and that the verifier does not wait for it either."""
    if edge.state is not EdgeState.STREAMING:
        return
    wanted = edge.growth_request if edge.has_growth else edge.draft_request
    if wanted is not None:
        return
    has_room = edge.window_used < min(edge.window, edge._limit)
    assert not (has_room and edge._guesses._outbox.num_waiting), "what may be sent is sent"
    assert edge.window_used or edge._idle_sent, "there is something to verify, or it is told so"
