"""The fleet as tables on a terminal; anywhere else as plain columns."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paceline.settings import color_wanted

UNKNOWN = "-"
PIPE_WIDTH = 160
"""Columns where no terminal says how wide it is."""

_STYLES = {"online": "green", "draining": "yellow", "silent": "yellow", "offline": "dim"}


def show_fleet(fleet: Mapping[str, Any]) -> None:
    """Write verifiers, edges and totals to stdout."""
    console = Console(
        file=sys.stdout,
        no_color=not color_wanted(),
        width=None if sys.stdout.isatty() else PIPE_WIDTH,
        highlight=False,
    )
    console.print(_verifiers(fleet["verifiers"]))
    console.print(_edges(fleet["edges"]))
    console.print(Text(_totals(fleet)))


def _verifiers(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(
        "Verifier",
        "State",
        "Address",
        "Model",
        numbers=("Sessions", "Step", "Queue", "Busy", "Tokens/s"),
    )
    for row in rows:
        table.add_row(
            *_texts(row["id"]),
            _state(row["state"]),
            *_texts(row["address"] or UNKNOWN, row["model"] or UNKNOWN),
            f"{row['num_sessions']}/{row['max_sessions']}",
            _ms(row["step_s"]),
            f"{row['queue_s'] * 1e3:.1f} ms",
            _percent(row["busy"]),
            _number(row["tokens_per_s"]),
        )
    return table


def _edges(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(
        "Edge",
        "State",
        "Verifier",
        numbers=("RTT", "Jitter", "Acceptance", "Draft", "Tokens/s", "Waste"),
    )
    for row in sorted(rows, key=lambda row: (row["state"] != "online", row["id"])):
        pinned = "" if row["pinned"] is None else "pinned "
        table.add_row(
            *_texts(row["id"]),
            _state(row["state"]),
            *_texts(row["verifier"] or UNKNOWN),
            _ms(row["rtt_s"]),
            _ms(row["jitter_s"]),
            _percent(row["acceptance_probability"]),
            f"{pinned}{row['draft_length']}",
            _number(row["tokens_per_s"]),
            _percent(row["waste"]),
        )
    return table


def _totals(fleet: Mapping[str, Any]) -> str:
    totals, own = fleet["totals"], fleet["orchestrator"]
    broker = "" if own["is_connected"] else ", broker lost"
    return (
        f"{totals['num_online']} of {totals['num_edges']} edges online, "
        f"{totals['num_verifiers_online']} of {totals['num_verifiers']} verifiers, "
        f"{_number(totals['tokens_per_s'])} tokens/s, acceptance {_percent(totals['acceptance_probability'])}, "
        f"waste {_percent(totals['waste'])}{broker}"
    )


def _table(*texts: str, numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _texts(*names: str) -> list[Text]:
    # Text, not markup: a peer's name must not colour our terminal, nor move its cursor.
    return [Text("".join(sign if sign.isprintable() else "?" for sign in name)) for name in names]


def _state(state: str) -> Text:
    return Text(state, style=_STYLES.get(state, ""))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds > 0.0 else UNKNOWN


def _percent(part: float | None) -> str:
    return UNKNOWN if part is None else f"{part * 100:.0f} %"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"
