"""The option of every program that can be scraped."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from paceline.settings import ADDRESS

F = TypeVar("F", bound=Callable[..., Any])


def metrics_option(function: F) -> F:
    """Add `--metrics-listen HOST:PORT`; the parameter is `metrics_listen`, an Address or None.

    It needs no --insecure beyond this machine, as exporters do: whoever can connect sees loads and model names, never
    text, tokens or who asked.
    """
    return click.option(
        "--metrics-listen",
        type=ADDRESS,
        help="Where Prometheus may scrape /metrics; port 0 takes any free one. Anybody who can connect reads it.  "
        "[default: nowhere]",
    )(function)
