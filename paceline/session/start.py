"""What a verifier's shell has to see to before there is a session."""

from paceline.errors import LocalProtocolError
from paceline.messages import FLOOR_WINDOW, Limits, Open


def check_start(request: Open, limits: Limits) -> None:
    """Raise unless a session can begin so.

    Raises:
        LocalProtocolError: the shell should have refused the request, or settings, that led here.
    """
    if limits.window < FLOOR_WINDOW or limits.max_lead < 1:
        raise LocalProtocolError(
            f"limits: got window {limits.window} and max_lead {limits.max_lead}, expected at least {FLOOR_WINDOW} and 1"
        )
    if not 0 < len(request.prompt) < limits.context_length:
        raise LocalProtocolError(
            f"open.prompt: got {len(request.prompt)} tokens, expected 1 to {limits.context_length - 1}, "
            "so that the context holds one more; refuse the request before it becomes a session"
        )
