"""A thin typed wrapper around a transformers tokenizer: text and chats to ids, ids to text, who it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from paceline.errors import InvalidRequestError, ModelError
from paceline.tokens import TokenId

_TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
)
"""Tokens that end an answer, where the chat template writes them."""


class Tokenizer:
    """Made by `load_tokenizer`. Safe to use from several threads one after another, not at once."""

    def __init__(self, inner: Any, *, name: str, extra_stop_tokens: Sequence[int] = ()) -> None:
        """Wrap a fast tokenizer.

        Raises:
            ModelError: it is not a fast one, so that its content cannot be fingerprinted.
        """
        if not getattr(inner, "is_fast", False):
            raise ModelError(
                f"{name}: its tokenizer has no fast (tokenizers) version; convert it to tokenizer.json first"
            )
        self.name = name
        self._inner = inner
        self.fingerprint = tokenizer_fingerprint(self.serialised)
        """SHA-256 of the content; 32 bytes."""
        self.vocabulary_size = max(inner.get_vocab().values()) + 1
        """Ids are below this."""
        self.stop_tokens = self._find_stop_tokens(extra_stop_tokens)
        """Ids that end an answer, ascending."""
        self.bos_token = None if inner.bos_token_id is None else TokenId(inner.bos_token_id)

    @property
    def has_chat_template(self) -> bool:
        """Whether `encode_chat` works."""
        return self._inner.chat_template is not None

    def encode(self, text: str) -> tuple[TokenId, ...]:
        """Ids of a plain text, with a beginning-of-text token where the model expects one."""
        return tuple(self._inner.encode(text))

    def encode_plain(self, text: str) -> tuple[TokenId, ...]:
        """Ids of a piece of text, with nothing put before it."""
        return tuple(self._inner.encode(text, add_special_tokens=False))

    @property
    def serialised(self) -> str:
        """All of its content, as JSON of the `tokenizers` library."""
        text: str = self._inner.backend_tokenizer.to_str()
        return text

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[TokenId, ...]:
        """Ids of a conversation, ready for the assistant's answer.

        Args:
            messages: each with `role` and `content`.

        Raises:
            InvalidRequestError: the model has no chat template, or the template refuses the conversation.
        """
        if not self.has_chat_template:
            raise InvalidRequestError(
                f"messages: {self.name} has no chat template; send a plain prompt instead"
            )
        try:
            text = self._inner.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise InvalidRequestError(
                f"messages: the chat template of {self.name} refuses them: {error}"
            ) from error
        # The template has written the special tokens, beginning of text included.
        return tuple(self._inner.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[TokenId]) -> str:
        """The text of ids, special tokens left out. `Detokenizer` gives the same text piece by piece."""
        text: str = self._inner.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _find_stop_tokens(self, extra: Sequence[int]) -> tuple[TokenId, ...]:
        found = {*extra}
        if self._inner.eos_token_id is not None:
            found.add(self._inner.eos_token_id)
        template = str(self._inner.chat_template or "")
        vocabulary = self._inner.get_vocab()
        found.update(
            vocabulary[piece] for piece in _TURN_ENDS if piece in vocabulary and piece in template
        )
        return tuple(TokenId(token) for token in sorted(found))


def tokenizer_fingerprint(serialised: str) -> bytes:
    """SHA-256 over what the ids mean, from the JSON of a `tokenizers` tokenizer; 32 bytes.

    Vocabulary, merges and added tokens count. How text is split before (normaliser, pre-tokeniser) does not, nor do
    truncation, padding or templates: only ids cross the wire, and the edge alone turns text into ids. A GGUF file and
    the folder it was made from differ in just those.
    """
    data = json.loads(serialised)
    model = data["model"]
    vocabulary = model.get("vocab") or {}
    content = {
        "vocabulary": sorted(vocabulary.items(), key=lambda item: item[1])
        if isinstance(vocabulary, dict)
        else vocabulary,
        "merges": [
            merge.split(" ", 1) if isinstance(merge, str) else merge
            for merge in model.get("merges") or ()
        ],
        "added": sorted([token["id"], token["content"]] for token in data.get("added_tokens", ())),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
