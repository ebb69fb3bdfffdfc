"""A target without a model: the next token is a function of the text, so that any slip changes everything after it."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from paceline.engine.tokenizer import Tokenizer
from paceline.messages import ModelIdentity
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

END_TOKEN = TokenId(0)


GREEDY = SamplingSettings(temperature=0.0)


class Target(Protocol):
    """What a world's verifiers serve: a `ToyTarget`, or a `RealTarget` that computes."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that its edges use."""
        ...

    def run(
        self, text: Sequence[TokenId], count: int, *, sampling: SamplingSettings = GREEDY
    ) -> tuple[TokenId, ...]:
        """Return the plain decoding after `text`, which every session must equal: `count` tokens, or up to the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class ToyTarget:
    """Draws by hashing the last tokens and the length of the text; knows no temperature.

    Args:
        vocabulary_size: ids are below it; at least 3.
        seed: of its draws; another seed is another model.
        context_length: most tokens of prompt and output.
        memory: how many of the last tokens count.
        stop_chance: chance of END_TOKEN at each position.
    """

    vocabulary_size: int = 512
    seed: int = 0
    context_length: int = 4096
    memory: int = 8
    stop_chance: float = 0.0

    def draw(self, text: Sequence[TokenId], path: Sequence[TokenId] = ()) -> TokenId:
        """Return the token after `text` and then `path`; the same for the same tokens, always and everywhere."""
        last = text[-self.memory :]
        if path:
            last = (*last, *path)[-self.memory :]
        drawn = hashed(self.seed, len(text) + len(path), last)
        if drawn < self.stop_chance * 2**32:
            return END_TOKEN
        return TokenId(1 + drawn % (self.vocabulary_size - 1))

    def run(
        self, text: Sequence[TokenId], count: int, *, sampling: SamplingSettings = GREEDY
    ) -> tuple[TokenId, ...]:
        """See `Target`."""
        del sampling
        grown = list(text)
        end = min(len(text) + count, self.context_length)
        while len(grown) < end and (len(grown) == len(text) or grown[-1] != END_TOKEN):
            grown.append(self.draw(grown))
        return tuple(grown[len(text) :])

    @cached_property
    def identity(self) -> ModelIdentity:
        """See `Target`."""
        return ModelIdentity(
            name="toy",
            weights_fingerprint=struct.pack("<4Q", 1, self.seed, self.vocabulary_size, self.memory),
            dtype="float32",
            quantisation="",
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            vocabulary_size=self.vocabulary_size,
            context_length=self.context_length,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """See `Target`."""
        return toy_tokenizer(self.vocabulary_size)


def hashed(seed: int, number: int, tokens: Sequence[int]) -> int:
    """Return 32 bits that look random."""
    return zlib.crc32(struct.pack(f"<Qq{len(tokens)}I", seed, number, *tokens)) * 0x9E3779B1 % 2**32


class _Alphabet:
    """As much of a tokenizer of transformers as `Tokenizer` asks for: every token is one character."""

    is_fast = True
    eos_token_id = END_TOKEN
    bos_token_id = None
    chat_template = None

    def __init__(self, size: int) -> None:
        self._size = size
        self.backend_tokenizer = self

    def to_str(self) -> str:
        """Return it as the JSON of a tokenizer."""
        return f'{{"model": {{"vocab": {{"toy": {self._size}}}}}}}'

    def get_vocab(self) -> dict[str, int]:
        """Return all tokens."""
        return {_character(token): token for token in range(self._size)}

    def encode(self, text: str, **_: object) -> list[int]:
        """Return the ids of a text."""
        return [1 + ord(character) % (self._size - 1) for character in text]

    def decode(self, tokens: Sequence[int], **_: object) -> str:
        """Return the text of ids."""
        return "".join(_character(token) for token in tokens if token != END_TOKEN)


_TOKENIZERS: dict[int, Tokenizer] = {}


def toy_tokenizer(vocabulary_size: int) -> Tokenizer:
    """Return the tokenizer of toy targets of this size: one character for each token."""
    if vocabulary_size not in _TOKENIZERS:
        _TOKENIZERS[vocabulary_size] = Tokenizer(_Alphabet(vocabulary_size), name="toy")
    return _TOKENIZERS[vocabulary_size]


def _character(token: int) -> str:
    code = 0x4E00 + token
    # Beyond are halves of characters, and the sign of a text cut within one.
    return chr(code if code < 0xD800 else code - 0xD800 + 0x20000)
