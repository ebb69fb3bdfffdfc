"""A machine's part in the control plane: its way to the broker, and what each life of its program takes from it."""

from numpy.random import Generator

from paceline.mqtt.settings import BrokerSettings
from simulator.virtual.channel import Path
from simulator.virtual.mqtt.transport import VirtualTransport


class Station:
    """See the module.

    Args:
        path: to the broker.
        broker: where it is, and how a link behaves.
        generator: draws incarnations, and the delays of links.
    """

    def __init__(self, path: Path, *, broker: BrokerSettings, generator: Generator) -> None:
        self.path = path
        self.broker = broker
        self.incarnation = 0
        """Of the program that runs, or ran last."""
        self._generator = generator
        self._transport: VirtualTransport | None = None

    def begin(self) -> VirtualTransport:
        """Return what connects a program that starts now."""
        self.incarnation = int(self._generator.integers(1, 2**63))
        self._transport = VirtualTransport(self.path, self.broker)
        return self._transport

    @property
    def chance(self) -> Generator:
        """What draws the delays of its link."""
        return self._generator

    def die(self) -> None:
        """The program dies: its machine ends the connections."""
        self.path.edge_died()
        if self._transport is not None:
            self._transport.kill()
