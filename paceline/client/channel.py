"""How gRPC connections are made: TLS, keepalive, limits."""

from pathlib import Path

import grpc

from paceline.client.settings import ConnectionSettings
from paceline.errors import ConfigError
from paceline.settings import Address

MAX_MESSAGE_BYTES = 4 * 2**20
"""Largest message either side may send: a prompt of a million tokens fits."""

PING_TIMEOUT_MS = 10_000
"""A ping that is not answered for so long means that the connection is dead."""


def read_credentials(settings: ConnectionSettings) -> grpc.ChannelCredentials:
    """Return what TLS connections are made with.

    Raises:
        ConfigError: a certificate cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=_read("ca_file", settings.ca_file),
        private_key=_read("key_file", settings.key_file),
        certificate_chain=_read("cert_file", settings.cert_file),
    )


def open_channel(
    address: Address, settings: ConnectionSettings, credentials: grpc.ChannelCredentials
) -> grpc.aio.Channel:
    """Return a new channel that does not connect by itself, with TLS unless the settings say otherwise."""
    options = channel_options(settings)
    is_plain = settings.insecure or address.is_loopback
    if is_plain and not settings.has_certificates:
        return grpc.aio.insecure_channel(str(address), options=options)
    return grpc.aio.secure_channel(str(address), credentials, options=options)


def channel_options(settings: ConnectionSettings) -> list[tuple[str, int]]:
    """Return the options of every channel."""
    keepalive_ms = round(settings.keepalive_s * 1000)
    return [
        # Pings keep a NAT from forgetting the flow, and notice soon when it did. Also between streams: the next
        # generation must not find a connection that is dead without knowing it.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        # gRPC 1.85 counts the time of a ping by this one, and waits 60 s if it is not set.
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Our own connection, which fails when we see it fail: no sharing, no retries behind our back.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        # A proxy from the environment must not swallow what the user addressed by name.
        ("grpc.enable_http_proxy", 0),
    ]


def _read(name: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from error
