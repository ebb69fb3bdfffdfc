"""Looks at ports, names, connections and what a server shows of itself."""

import asyncio
import contextlib
import os
import socket
import ssl

from paceline.clock import MonotonicClock
from paceline.settings import Address
from simulator.doctor.probes.certificates import error_code, read_fields
from simulator.doctor.verdicts.certificates import NO_TLS, CertificateFinding
from simulator.doctor.verdicts.network import PortFinding, Reached

MAX_HOSTS = 8


def look_at_port(address: Address, *, was_asked_for: bool) -> PortFinding:
    """Return whether a program could listen there."""
    error = ""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as refused:
        error = (refused.strerror or str(refused)).lower()
    return PortFinding(address=str(address), error=error, was_asked_for=was_asked_for)


async def reach(address: Address, *, deadline_s: float) -> Reached:
    """Look the name up and connect; each may take `deadline_s` seconds."""
    loop, clock, here = asyncio.get_running_loop(), MonotonicClock(), str(address)
    try:
        async with asyncio.timeout(deadline_s):
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return Reached(address=here, error=f"no name server answered within {deadline_s:g} s")
    except UnicodeError:
        return Reached(address=here, error=f"{address.host}: this is no host name")
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        return Reached(address=here, error=f"{address.host}: {said}")
    hosts = tuple(dict.fromkeys(str(where[0]) for *_, where in found))[:MAX_HOSTS]
    started_s = clock.now_s()
    try:
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        error_text = f"no connection within {deadline_s:g} s"
        return Reached(address=here, hosts=hosts, error=error_text)
    except OSError as error:
        return Reached(address=here, hosts=hosts, error=_why(error))
    connect_s = clock.now_s() - started_s
    await _end(writer)
    return Reached(address=here, hosts=hosts, connect_s=connect_s)


async def look_at_server(
    address: Address, context: ssl.SSLContext, *, deadline_s: float
) -> CertificateFinding:
    """Return the certificate that a server shows, verified for the name it was called by."""
    try:
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=address.host
            )
    except TimeoutError:
        return CertificateFinding(error=f"no handshake within {deadline_s:g} s")
    except ssl.SSLCertVerificationError as error:
        return CertificateFinding(error=error.verify_message, code=error_code(error))
    except (ssl.SSLError, OSError) as error:
        return CertificateFinding(error=f"no TLS there: {_why(error)}", code=NO_TLS)
    fields = writer.get_extra_info("peercert")
    await _end(writer)
    return CertificateFinding(certificate=read_fields(fields))


async def shows_tls(address: Address, *, deadline_s: float) -> bool:
    """Return whether somebody answers TLS there, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(deadline_s):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except (OSError, TimeoutError):
        return False
    await _end(writer)
    return True


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    # asyncio has sentences of its own, with the address in them; the number says it in the system's words.
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
