"""Edge-cloud speculative decoding: a small model at the edge drafts, a large one in the cloud verifies."""

__version__ = "0.1.0"
