"""Networks in users' own tests: the pytest plugin, and what its fixtures are made of; docs/testing.md tells how to use it.

    from simulator.testing import VirtualWorld, network

    def test_the_text_survives(pair: VirtualWorld) -> None: ...

Names are imported when they are asked for (PEP 562): pytest loads the plugin in every run of whoever has Paceline installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.testing.answer import Answer as Answer
    from simulator.testing.answer import AskingFailedError as AskingFailedError
    from simulator.testing.real import RealWorld as RealWorld
    from simulator.testing.relayed import RelayedLink as RelayedLink
    from simulator.testing.relayed import RelayedLinks as RelayedLinks
    from simulator.testing.scene import network as network
    from simulator.testing.timed_drafter import TimedDrafter as TimedDrafter
    from simulator.testing.virtual import VirtualWorld as VirtualWorld

_HOMES = {
    "Answer": "answer",
    "AskingFailedError": "answer",
    "RealWorld": "real",
    "RelayedLink": "relayed",
    "RelayedLinks": "relayed",
    "TimedDrafter": "timed_drafter",
    "VirtualWorld": "virtual",
    "network": "scene",
}


def __getattr__(name: str) -> Any:
    """Return a public name from its module."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
