"""Prometheus figures: how a program tells its own, and how they are served.

    registry = new_registry("cloud")
    registry.register(Figures(read, _FIGURES))       # sums and levels, read when somebody scrapes
    async with serving_metrics(registry, listen) as address: ...

Names begin with `paceline:`. Where vLLM has a figure, ours has its name and meaning; docs/observability.md lists all of
them and says where they differ. No label is ever a session, an edge or a peer, so that their number stays bounded.
"""

from paceline.metrics.figures import Figure, Figures, new_registry
from paceline.metrics.options import metrics_option
from paceline.metrics.serving import METRICS_PATH, exposition, serving_metrics

__all__ = [
    "METRICS_PATH",
    "Figure",
    "Figures",
    "exposition",
    "metrics_option",
    "new_registry",
    "serving_metrics",
]
