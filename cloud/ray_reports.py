"""What the replicas behind Ray Serve have done, for Prometheus: every figure once per replica."""

import logging
from collections.abc import Iterator, Sequence

from prometheus_client.registry import Collector
from ray import serve

from cloud.metrics import VERIFIER_FIGURES
from cloud.replicas import ReplicaReport
from paceline.metrics.figures import Family, new_registry

log = logging.getLogger(__name__)

ANSWER_S = 5.0
"""How long a replica may take to report."""


class Reports(Collector):
    """The newest reports of all replicas. One thread at a time calls `refresh`; scrapes only read what it found.

    Args:
        application: Serve's name of it.
    """

    def __init__(self, application: str) -> None:
        self._handle = serve.get_app_handle(application)
        self._newest: Sequence[ReplicaReport] = ()
        self.registry = new_registry("cloud")
        self.registry.register(self)

    def refresh(self) -> None:
        """Ask all replicas; those of before stay if one of them does not answer."""
        try:
            self._newest = self._handle.broadcast("report").results(timeout_s=ANSWER_S)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises for a replica that has just died
            log.info("no reports", extra={"error": str(error)})

    def describe(self) -> Iterator[Family]:
        """Give the names without values."""
        for figure in VERIFIER_FIGURES:
            yield figure.family()

    def collect(self) -> Iterator[Family]:
        """Give all values, each labelled with its replica."""
        reports = self._newest
        for figure in VERIFIER_FIGURES:
            family = figure.family()
            for report in reports:
                family.samples += [
                    sample._replace(labels={**sample.labels, "replica": report.replica})
                    for sample in figure.family(report.statistics).samples
                ]
            yield family
