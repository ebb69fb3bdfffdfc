"""The Python client: streams the target's text from a verifier, with drafts of its own. See docs/client.md."""

from paceline.client.client import DEFAULT_MAX_TOKENS, Client, random_seed
from paceline.client.generation import Generation
from paceline.client.grpc_link import describe
from paceline.client.link import VerifierInfo
from paceline.client.outcome import (
    ClientObserver,
    EndReason,
    GenerationResult,
    Piece,
    Statistics,
)
from paceline.client.settings import ConnectionSettings, DraftingSettings, RetryPolicy

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "Client",
    "ClientObserver",
    "ConnectionSettings",
    "DraftingSettings",
    "EndReason",
    "Generation",
    "GenerationResult",
    "Piece",
    "RetryPolicy",
    "Statistics",
    "VerifierInfo",
    "describe",
    "random_seed",
]
