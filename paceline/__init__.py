"""Edge-cloud speculative decoding: a small model at the edge drafts, a large one in the cloud verifies."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline.client import Client as Client

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return `paceline.Client`, imported when it is asked for: gRPC and the rest take a while (PEP 562)."""
    if name == "Client":
        from paceline.client import Client  # noqa: PLC0415 - see above

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
