"""What the ids of a tokenizer mean as bytes, and text that grows from bytes to ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError
from paceline.tokens import TokenId

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""

UNFINISHED = 3
"""Most bytes of a character of which some are missing."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_UNKNOWN_KINDS = ("WordPiece", "WordLevel")
"""Models whose pieces do not say where spaces were."""


class Words:
    """A tokenizer, seen as bytes.

    Args:
        tokenizer: byte-level (GPT-2 and its kin) or SentencePiece.

    Raises:
        IncompatibleError: it is of another kind.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        content = json.loads(tokenizer.serialised)
        if content["model"]["type"] in _UNKNOWN_KINDS:
            raise IncompatibleError(
                f"draft: the tokenizer {tokenizer.name} is of kind {content['model']['type']}, whose tokens do not say "
                "which text they stand for; expected a byte-level or SentencePiece one"
            )
        self.tokenizer = tokenizer
        added = {TokenId(item["id"]): item for item in content.get("added_tokens", ())}
        self.specials = {token: item["content"] for token, item in added.items() if item["special"]}
        """Ids that stand for no text, and their names."""
        self.bytes = {
            token: piece
            for token, piece in _pieces(content).items()
            if token not in self.specials and piece
        }
        """What each other id stands for."""
        self.bytes |= {
            token: item["content"].encode()
            for token, item in added.items()
            if not item["special"] and item["content"]
        }
        self.ids = {piece: token for token, piece in sorted(self.bytes.items(), reverse=True)}
        """The id of some bytes, the lowest if there are several."""

    def text(self, tokens: Iterable[TokenId]) -> bytes:
        """Return the bytes of tokens, special ones left out."""
        return b"".join(self.bytes.get(token, b"") for token in tokens)

    def encode(self, text: str) -> tuple[TokenId, ...] | None:
        """Return ids whose bytes are just this text, or None if the tokenizer cannot say it so."""
        tokens = self.tokenizer.encode_plain(text)
        data, made = text.encode(), self.text(tokens)
        if made == b" " + data and tokens:
            # SentencePiece puts a space before every text; in the middle of one there is none.
            first = self.bytes[tokens[0]][1:]
            if first and first not in self.ids:
                return None
            tokens = (*([self.ids[first]] if first else []), *tokens[1:])
            made = self.text(tokens)
        return tokens if made == data else None

    def beginning(self) -> tuple[TokenId, ...]:
        """Return what stands before every text."""
        bos = self.tokenizer.bos_token
        return (bos,) if bos is not None and self.tokenizer.encode("")[:1] == (bos,) else ()

    def shared(self, other: Words) -> dict[TokenId, TokenId]:
        """Return our tokens that the other tokenizer has too, with the ids that it gives to the same bytes."""
        return {token: other.ids[piece] for piece, token in self.ids.items() if piece in other.ids}


def complete(data: bytes) -> tuple[str, bytes]:
    """Return the text at the beginning of some bytes, and what comes after.

    That is an unfinished character of up to UNFINISHED bytes, or from its first byte on something that is no text.
    """
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        return data[: error.start].decode(), data[error.start :]


def _pieces(content: dict[str, Any]) -> dict[TokenId, bytes]:
    vocabulary = content["model"]["vocab"]
    if not isinstance(vocabulary, dict):  # Unigram: pieces with scores, in order of ids
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    if "ByteLevel" in _kinds(content.get("decoder")):
        alphabet = _byte_alphabet()
        return {
            TokenId(token): bytes(alphabet[char] for char in piece)
            for piece, token in vocabulary.items()
            if all(char in alphabet for char in piece)
        }
    return {TokenId(token): _sentence_piece(piece) for piece, token in vocabulary.items()}


def _kinds(decoder: Any) -> set[str]:
    """Return the kinds of a decoder and its parts."""
    if decoder is None:
        return set()
    parts: Sequence[Any] = decoder.get("decoders", ())
    return {str(decoder["type"])}.union(*(_kinds(part) for part in parts))


def _sentence_piece(piece: str) -> bytes:
    match = _BYTE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else piece.replace(_SPACE, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Return the characters with which byte-level tokenizers write bytes (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }
