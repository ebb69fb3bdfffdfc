"""Asks verifiers what they are, as an edge would."""

import ssl
from dataclasses import replace

from paceline.client.grpc_link import GrpcConnector
from paceline.client.settings import ConnectionSettings
from paceline.errors import PacelineError, TransportError
from paceline.settings import Address
from simulator.doctor.verdicts.verifier import Described

NUM_ASKS = 10
"""Round trips to measure, after the first one, which makes the connection."""


def expects_tls(address: Address, settings: ConnectionSettings) -> bool:
    """Return whether an edge with these settings would speak TLS to it (`paceline.client.channel`)."""
    return settings.has_certificates or not (settings.insecure or address.is_loopback)


def tls_context(settings: ConnectionSettings) -> ssl.SSLContext:
    """Return what an edge with these settings trusts and shows.

    Raises:
        OSError: a file cannot be read, or is not what it should be (ssl.SSLError).
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    context.set_alpn_protocols(["h2"])  # gRPC servers take nothing else
    return context


async def ask_verifier(
    address: Address, settings: ConnectionSettings, *, deadline_s: float
) -> Described:
    """Return what a verifier says of itself, and how long it took to say it again and again.

    Args:
        address: where it listens.
        settings: how an edge connects.
        deadline_s: longest wait for a connection, and for each answer, in seconds.

    Raises:
        ConfigError: a certificate cannot be read.
    """
    connector = GrpcConnector(replace(settings, connect_s=deadline_s))
    try:
        info = await connector.describe(address)
        samples_s = [(await connector.describe(address)).rtt_s for _ in range(NUM_ASKS)]
    except PacelineError as error:
        return Described(
            reason=error.reason, error=str(error), is_transport=isinstance(error, TransportError)
        )
    finally:
        await connector.close()
    return Described(
        target=info.target.name,
        dtype=info.target.dtype,
        tokenizer_fingerprint=info.target.tokenizer_fingerprint,
        weights_fingerprint=info.target.weights_fingerprint,
        context_length=info.target.context_length,
        samples_s=tuple(samples_s),
    )
