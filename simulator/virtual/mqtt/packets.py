"""The packets of MQTT 3.1.1 that the control plane uses, as values and as bytes (OASIS standard, sections 2 and 3). Pure."""

import struct
from dataclasses import dataclass

from paceline.errors import RemoteProtocolError
from paceline.mqtt.lanes import Letter

MAX_PACKET_BYTES = 256 * 2**20
"""What four bytes of length can say."""

_LEVEL = 4
_CLEAN, _WILL, _WILL_QOS, _WILL_RETAIN = 0x02, 0x04, 0x08, 0x20
_U16 = struct.Struct("!H")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """The client's first."""

    identifier: str
    will: Letter | None
    """With a quality of service of 1."""
    keepalive_s: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """The broker's first."""

    code: int = 0
    """0 lets in; 3: there is no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """What the client wants to hear."""

    number: int
    filters: tuple[tuple[str, int], ...]
    """Each with the highest quality of service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suback:
    """The broker's answer."""

    number: int
    codes: tuple[int, ...]
    """Quality of service that was granted, filter by filter; 0x80 refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A message, either way."""

    name: str
    payload: bytes
    qos: int
    retain: bool
    number: int = 0
    """Of packets with a quality of service of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Puback:
    """The answer to it."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The client's last: its will is void."""


Packet = Connect | Connack | Subscribe | Suback | Publish | Puback | Disconnect


def encode(packet: Packet) -> bytes:
    """Return a packet as bytes."""
    match packet:
        case Publish():
            head = 0x30 | packet.qos << 1 | packet.retain
            number = _U16.pack(packet.number) if packet.qos else b""
            return _framed(head, _text(packet.name) + number + packet.payload)
        case Puback():
            return _framed(0x40, _U16.pack(packet.number))
        case Connect():
            return _framed(0x10, _connect(packet))
        case Connack():
            return _framed(0x20, bytes((0, packet.code)))
        case Subscribe():
            filters = b"".join(_text(name) + bytes((qos,)) for name, qos in packet.filters)
            return _framed(0x82, _U16.pack(packet.number) + filters)
        case Suback():
            return _framed(0x90, _U16.pack(packet.number) + bytes(packet.codes))
        case Disconnect():
            return _framed(0xE0, b"")


def decode(data: bytes) -> Packet:
    """Return the packet that the bytes are.

    Raises:
        RemoteProtocolError: they are none, or not one exactly.
    """
    try:
        return _decoded(_Reader(data))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"packet: {len(data)} bytes are no MQTT packet") from error


def _decoded(reader: "_Reader") -> Packet:
    head = reader.byte()
    reader.check_length()
    match head >> 4:
        case 3:
            qos = head >> 1 & 3
            name = reader.text()
            number = reader.number() if qos else 0
            return Publish(
                name=name, payload=reader.rest(), qos=qos, retain=bool(head & 1), number=number
            )
        case 4:
            packet: Packet = Puback(number=reader.number())
        case 1:
            packet = _read_connect(reader)
        case 2:
            reader.byte()
            packet = Connack(code=reader.byte())
        case 8:
            number, filters = reader.number(), []
            while reader.has_more:
                filters.append((reader.text(), reader.byte()))
            packet = Subscribe(number=number, filters=tuple(filters))
        case 9:
            packet = Suback(number=reader.number(), codes=tuple(reader.rest()))
        case 14:
            packet = Disconnect()
        case other:
            raise RemoteProtocolError(
                f"packet: got type {other}, which the control plane never uses"
            )
    if reader.has_more:
        raise RemoteProtocolError("packet: bytes are left over behind it")
    return packet


def _connect(packet: Connect) -> bytes:
    flags, will = _CLEAN, b""
    if packet.will is not None:
        letter = packet.will
        flags |= _WILL | _WILL_QOS | (_WILL_RETAIN if letter.retain else 0)
        will = _text(letter.name) + _U16.pack(len(letter.payload)) + letter.payload
    head = _text("MQTT") + bytes((_LEVEL, flags)) + _U16.pack(packet.keepalive_s)
    return head + _text(packet.identifier) + will


def _read_connect(reader: "_Reader") -> Connect:
    if reader.text() != "MQTT" or reader.byte() != _LEVEL:
        raise RemoteProtocolError("packet: got another protocol, expected MQTT 3.1.1")
    flags, keepalive_s, identifier = reader.byte(), reader.number(), reader.text()
    will = None
    if flags & _WILL:
        name = reader.text()
        payload = reader.take(reader.number())
        will = Letter(name=name, payload=payload, retain=bool(flags & _WILL_RETAIN))
    return Connect(identifier=identifier, will=will, keepalive_s=keepalive_s)


def _text(text: str) -> bytes:
    raw = text.encode()
    return _U16.pack(len(raw)) + raw


def _framed(head: int, body: bytes) -> bytes:
    rest, length = len(body), bytearray()
    assert rest < MAX_PACKET_BYTES
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes((head,)) + length + body


class _Reader:
    """Takes one field after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        (value,) = _U16.unpack_from(self._data, self._at)
        self._at += 2
        return int(value)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise IndexError(size)
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        return self.take(self.number()).decode()

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def check_length(self) -> None:
        """Read the length of what follows; it must be what is there."""
        length = shift = 0
        while True:
            digit = self.byte()
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        if length != len(self._data) - self._at:
            raise RemoteProtocolError(
                f"packet: got {len(self._data) - self._at} bytes, expected the {length} it claims"
            )
