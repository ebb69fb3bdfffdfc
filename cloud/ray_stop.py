"""Whether Ray Serve is stopping the replica that this process is."""

import functools
import logging
from typing import Any

import ray

log = logging.getLogger(__name__)


def is_being_stopped() -> bool:
    """Return whether Serve has begun to stop this replica: by a redeployment, a smaller number of them, or its own end.

    Serve waits for running calls then, and tells the replica nothing; yet edges must hear that they should move. So we
    look at what Serve's own half of this process knows. Without it (another version of Ray) sessions run on until they
    end or Serve kills them, and their edges open them elsewhere.
    """
    try:
        return bool(_half_of_serve()._shutting_down)  # noqa: SLF001 - see above
    except (AttributeError, ImportError, ValueError):
        _warn()
        return False


def _half_of_serve() -> Any:
    from ray._private.worker import global_worker  # noqa: PLC0415 - private: only where it is used

    (actor,) = global_worker.actors.values()
    return actor._replica_impl  # noqa: SLF001


@functools.cache
def _warn() -> None:
    log.warning(
        "this version of Ray does not show when a replica is stopped; edges will not be told to move",
        extra={"ray": ray.__version__},
    )
