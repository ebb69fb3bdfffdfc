"""A simulated broker: MQTT 3.1.1 over the simulated links, as far as the control plane uses it.

It lives several times: it can be killed, which forgets everything, and started again at its address. Not simulated are
users, access rules and TLS.
"""

import asyncio
from dataclasses import dataclass, field

import grpc

from paceline.errors import RemoteProtocolError
from paceline.mqtt.lanes import Letter
from paceline.settings import Address
from simulator.virtual.call import Call
from simulator.virtual.channel import Path
from simulator.virtual.events import Tell, Value
from simulator.virtual.mqtt.house import BrokerSettings, Guest, House
from simulator.virtual.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
    decode,
    encode,
)

METHOD = "mqtt"
"""Of calls that are connections to a broker."""

PATIENCE_S = 22.5
"""A client that has gone silent is given up after 1.5 keepalives of 15 s (section 3.1.2.10)."""

NO_ROOM = 3


@dataclass(slots=True, kw_only=True, eq=False)
class _Life:
    """One incarnation."""

    house: House
    group: asyncio.TaskGroup
    calls: dict[Guest, Call] = field(default_factory=dict)
    draining: set[Guest] = field(default_factory=set)
    """Who has a task that sends as soon as there is room."""


class SimulatedBroker:
    """See the module; implements `simulator.virtual.channel.Server`.

    Args:
        address: where it listens.
        settings: its bounds.
        tell: told what happens, if anybody wants to know.
    """

    def __init__(self, *, address: Address, settings: BrokerSettings, tell: Tell | None) -> None:
        self.address = address
        self.settings = settings
        self.paths: list[Path] = []
        """From its clients."""
        self.is_listening = False
        self.num_lives = 0
        self.num_shed = self.most_waiting = 0
        """Of the lives that are over; see `House`."""
        self._tell = tell
        self._life: _Life | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def house(self) -> House | None:
        """What it knows; None while it does not run."""
        return self._life.house if self._life else None

    # --- what may happen to it

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the program, unless it runs."""
        if self._task is None:
            self._task = group.create_task(self._live())

    def kill(self) -> None:
        """End the program like SIGKILL: what it retained is forgotten, wills are not published."""
        life, task = self._life, self._task
        if task is None:
            return
        self._note("killed")
        if life is not None:
            self.num_shed += life.house.num_shed
            self.most_waiting = max(self.most_waiting, life.house.most_waiting)
        self._life = self._task = None
        self.is_listening = False
        for path in self.paths:
            path.verifier_died()
        task.cancel()

    def publish(self, letter: Letter) -> None:
        """Take a message as if one of its clients had sent it; nothing while it does not run."""
        if self._life is not None:
            self._spread(self._life, letter, qos=1)

    # --- Server

    def serve(self, call: Call, method: str) -> None:
        """See `Server`."""
        assert method == METHOD
        assert self._life is not None
        call.handler = self._life.group.create_task(self._handle(call, self._life))

    async def _live(self) -> None:
        self.num_lives += 1
        async with asyncio.TaskGroup() as group:
            self._life = _Life(house=House(self.settings), group=group)
            self.is_listening = True
            self._note("started", life=self.num_lives)
            await asyncio.Event().wait()

    async def _handle(self, call: Call, life: _Life) -> None:
        """Serve one connection to its end."""
        guest: Guest | None = None
        try:
            guest = await self._let_in(call, life)
            if guest is not None:
                await self._converse(guest, call, life)
        except RemoteProtocolError:
            pass  # whoever speaks something else is cut off
        finally:
            if guest is not None:
                self._part(life, guest, is_lost=True)
            call.finished(grpc.StatusCode.UNAVAILABLE, "the broker has closed the connection")

    async def _let_in(self, call: Call, life: _Life) -> Guest | None:
        packet = await self._read(call)
        if not isinstance(packet, Connect):
            return None
        before = life.house.guests.get(packet.identifier)
        if before is not None:
            # Whoever comes under the same name takes the place; the will of the one before is published first.
            handler = life.calls[before].handler
            self._part(life, before, is_lost=True)
            if handler is not None:
                handler.cancel()
        if life.house.is_full:
            self._send(call, Connack(code=NO_ROOM))
            return None
        guest = life.house.enter(packet.identifier, will=packet.will)
        life.calls[guest] = call
        self._send(call, Connack())
        return guest

    async def _converse(self, guest: Guest, call: Call, life: _Life) -> None:
        """Do what the client says until it leaves or is lost."""
        while (packet := await self._read(call)) is not None:
            match packet:
                case Publish():
                    letter = Letter(name=packet.name, payload=packet.payload, retain=packet.retain)
                    self._spread(life, letter, qos=packet.qos)
                    if packet.qos:
                        self._send(call, Puback(number=packet.number))
                case Puback():
                    guest.unacknowledged.discard(packet.number)
                    self._flush(life, guest)
                case Subscribe():
                    life.house.subscribe(guest, packet.filters)
                    codes = tuple(min(qos, 1) for _, qos in packet.filters)
                    self._send(call, Suback(number=packet.number, codes=codes))
                    self._flush(life, guest)
                case Disconnect():
                    self._part(life, guest, is_lost=False)
                    return
                case _:
                    raise RemoteProtocolError(f"packet: a client sends no {type(packet).__name__}")

    # --- what it does for them

    def _part(self, life: _Life, guest: Guest, *, is_lost: bool) -> None:
        """Forget a client, and publish its will if it was lost; once."""
        if life is not self._life or life.calls.pop(guest, None) is None:
            return
        life.house.leave(guest)
        if is_lost and guest.will is not None:
            self._spread(life, guest.will, qos=1)

    def _spread(self, life: _Life, letter: Letter, *, qos: int) -> None:
        for guest in life.house.publish(letter, qos=qos):
            self._flush(life, guest)

    def _flush(self, life: _Life, guest: Guest) -> None:
        """Send what may be sent now; if the connection is full, let a task do it when there is room."""
        call = life.calls.get(guest)
        if call is None or guest in life.draining:
            return
        while call.at_edge.has_room(1):
            packet = life.house.next(guest)
            if packet is None:
                return
            self._send(call, packet)
        life.draining.add(guest)
        life.group.create_task(self._drain(life, guest, call))

    async def _drain(self, life: _Life, guest: Guest, call: Call) -> None:
        while not call.gone and not call.at_edge.has_room(1):
            await call.at_edge.changed()
        life.draining.discard(guest)
        if not call.gone:
            self._flush(life, guest)

    async def _read(self, call: Call) -> Packet | None:
        """Return the next packet; None when the client has closed the connection.

        Raises:
            RemoteProtocolError: what came is no packet, or too large.
        """
        inbox = call.at_verifier
        while not inbox.payloads:
            if call.half_closed:
                return None
            await inbox.changed()
        payload = inbox.take()
        if len(payload) > self.settings.max_packet_bytes:
            raise RemoteProtocolError(f"packet: got {len(payload)} bytes")
        return decode(payload)

    def _send(self, call: Call, packet: Packet) -> None:
        if not call.gone:
            call.send_down(encode(packet), told(packet) if call.log is not None else None)

    def _note(self, kind: str, **fields: float) -> None:
        if self._tell is not None:
            self._tell(kind, **fields)


def told(packet: Packet) -> dict[str, Value]:
    """Return what an event tells of a packet."""
    known: dict[str, Value] = {"message": type(packet).__name__.lower()}
    if isinstance(packet, Publish):
        known |= {"topic": packet.name, "retain": packet.retain}
    return known
