"""What an edge learns of a verifier's steps from its commits: how long they take, what a row costs, what they bring. Pure."""

from math import sqrt

from paceline.messages import Commit

RECENT = 48
"""Commits after which the weight of an older one has fallen to 1/e: some seconds of work."""

ROW_SHARE = 0.01
"""Taken for the cost of a row, as a part of a step, until steps of different rows tell."""

DOUBT = 20.0
"""That counts as much as a spread of the rows per step by the root of this."""


class StepMeter:
    """Means over the recent past, weighted so that each commit counts less with every newer one."""

    __slots__ = (
        "_commits",
        "_price_s",
        "_rows",
        "_rows_s",
        "_rows_sq",
        "_s",
        "_s_sq",
        "_steps",
        "_tokens",
    )

    def __init__(self) -> None:
        self._commits = 0.0
        self._s = self._s_sq = 0.0
        self._rows = self._rows_sq = self._rows_s = 0.0
        self._tokens = self._steps = self._price_s = 0.0

    def add(self, commit: Commit) -> None:
        """Take what a commit tells of its last step; one of none, or of the prompt's, says nothing."""
        if not commit.verify_ns or not commit.num_steps:
            return
        step_s, rows = (commit.verify_ns + commit.queue_ns) / 1e9, float(commit.num_rows)
        keep = 1.0 - 1.0 / RECENT
        self._commits = self._commits * keep + 1.0
        self._s = self._s * keep + step_s
        self._s_sq = self._s_sq * keep + step_s * step_s
        self._rows = self._rows * keep + rows
        self._rows_sq = self._rows_sq * keep + rows * rows
        self._rows_s = self._rows_s * keep + rows * step_s
        self._price_s = self._price_s * keep + commit.row_price_ns / 1e9
        self._tokens = self._tokens * keep + len(commit.tokens)
        self._steps = self._steps * keep + commit.num_steps

    @property
    def step_s(self) -> float:
        """Mean time from one step to the next, waiting for it included, in seconds; 0 before the first."""
        return self._s / self._commits if self._commits else 0.0

    @property
    def light_s(self) -> float:
        """The same for a step that is one standard deviation shorter."""
        if not self._commits:
            return 0.0
        spread = self._s_sq / self._commits - self.step_s**2
        return max(0.5 * self.step_s, self.step_s - sqrt(max(0.0, spread)))

    @property
    def row_s(self) -> float:
        """By how much a step gets longer with a row, in seconds (least squares, drawn to a usual share); 0 before the first."""
        if not self._commits:
            return 0.0
        mean_rows = self._rows / self._commits
        spread = max(0.0, self._rows_sq / self._commits - mean_rows**2)
        together = self._rows_s / self._commits - mean_rows * self.step_s
        return max(0.0, (together + DOUBT * ROW_SHARE * self.step_s) / (spread + DOUBT))

    @property
    def row_price_s(self) -> float:
        """What a row costs other sessions, as the verifier says."""
        return self._price_s / self._commits if self._commits else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Committed tokens of a step; 0 before the first."""
        return self._tokens / self._steps if self._steps else 0.0
