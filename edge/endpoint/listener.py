"""Takes the endpoint's address before anything slow starts, and keeps it until the server is there."""

import socket

from paceline.errors import ConfigError
from paceline.settings import Address


def bound(address: Address) -> socket.socket:
    """Return a socket bound to the address; connecting is refused until somebody listens on it.

    Raises:
        ConfigError: the port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--listen: got {address}: {error.strerror or error}") from error
    # As servers do, so that a restart need not wait for the last connections to be forgotten.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--listen: cannot listen on {address}: {error.strerror}; choose another port, or 0 for any"
        ) from error
    return listener
