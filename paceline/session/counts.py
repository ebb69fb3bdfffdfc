"""What became of the drafts and steps of a session."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Counts:
    """Sums; whose, is said where they are kept."""

    drafted: int = 0
    """Drafted tokens that arrived, whatever became of them."""
    judged: int = 0
    """Of them, those that the target compared."""
    accepted: int = 0
    """Of them, those that it kept."""
    late: int = 0
    """Drafted tokens that came after the same token had been committed."""
    stale: int = 0
    """Drafted tokens that contradicted the committed text when they came."""
    steps: int = 0
    """Steps of the target."""

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums of both."""
        return Counts(
            drafted=self.drafted + other.drafted,
            judged=self.judged + other.judged,
            accepted=self.accepted + other.accepted,
            late=self.late + other.late,
            stale=self.stale + other.stale,
            steps=self.steps + other.steps,
        )
