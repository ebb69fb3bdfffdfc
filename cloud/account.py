"""What a verifier has done so far and holds now, as one frozen value."""

from dataclasses import dataclass

from cloud.orders import StepTimes
from paceline.engine.rows import MemoryStats, StepSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierStatistics:
    """Sums since the start, unless a field says otherwise; subtract two to look at some time in between."""

    num_sessions: int
    """Sessions now, those without a stream included."""
    num_streams: int
    """Sessions now whose edge is connected."""
    num_served: int
    """How often a session got tokens from a step."""
    queue_ns: int
    """How long sessions waited for these steps, from the end of the one before or the arrival of their work."""
    steps: StepTimes
    """Where the time of steps went."""
    engine: StepSplit
    """`steps.forward_ns` divided further."""
    memory: MemoryStats
    """Bytes of the cache now."""
