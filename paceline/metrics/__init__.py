"""Prometheus figures: how a program tells its own, and how they are served.

    registry = new_registry("cloud")                      # paceline.metrics.figures
    registry.register(Figures(read, _FIGURES))            # sums and levels, read when somebody scrapes
    async with serving_metrics(registry, listen) as address: ...   # paceline.metrics.serving

and `metrics_option` of `paceline.metrics.options`, which imports neither prometheus-client nor aiohttp: --help is quick.

Names begin with `paceline:`. Where vLLM has a figure, ours has its name and meaning; docs/observability.md lists all of
them and says where they differ. No label is ever a session, an edge or a peer, so that their number stays bounded.
"""
