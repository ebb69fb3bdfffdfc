"""Whether token ids mean the same in a GGUF file as to the target. Needs neither llama.cpp nor PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError


def check_words(word: Callable[[int], str], *, count: int, path: Path, tokenizer: Tokenizer) -> int:
    """Check that ids mean the same to a draft as to the target; return how many both have.

    How text is cut into tokens does not matter: a draft sees ids only.

    Args:
        word: what the draft calls a token, byte-level spelling and all.
        count: ids of the draft.
        path: of the draft, for the error.
        tokenizer: the target's.

    Raises:
        IncompatibleError: an id stands for something else in the target's vocabulary.
    """
    both: int = min(count, tokenizer.vocabulary_size)
    for token, piece in _pieces(tokenizer.serialised):
        if token < both and word(token) != piece:
            raise IncompatibleError(
                f"draft: in {path} token {token} is {word(token)!r}, to the target {tokenizer.name} it is "
                f"{piece!r}; token ids would mean different words. Choose a GGUF file of the same model family, or say "
                f"text:{path} (which needs PyTorch) to go by what the tokens stand for"
            )
    return both


def _pieces(serialised: str) -> Sequence[tuple[int, str]]:
    """Return ids and what they are called, from the JSON of a `tokenizers` tokenizer."""
    data = json.loads(serialised)
    vocabulary = data["model"].get("vocab") or {}
    if isinstance(vocabulary, dict):
        named = {token: piece for piece, token in vocabulary.items()}
    else:  # Unigram: a list of pieces with their scores
        named = {token: entry[0] for token, entry in enumerate(vocabulary)}
    named.update((token["id"], token["content"]) for token in data.get("added_tokens", ()))
    return sorted(named.items())
