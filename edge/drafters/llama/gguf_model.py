"""The weights of a GGUF file, and what its token ids stand for."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from edge.drafters.llama.library import library
from edge.drafters.llama.spelling import check_words
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, ModelError
from paceline.tokens import TokenId

ALL_LAYERS = -1
"""As many layers on an accelerator as there are, where llama.cpp was built for one."""


class GgufModel:
    """A model that llama.cpp has loaded. Used from the drafting thread only.

    Args:
        path: the file.
        on_accelerator: whether its layers go to one, where llama.cpp was built for it.

    Raises:
        ConfigError: the library or the file is not there.
        ModelError: the file cannot be loaded, or is of a kind that cannot draft.
    """

    def __init__(self, path: Path, *, on_accelerator: bool = False) -> None:
        if not path.is_file():
            raise ConfigError(
                f"draft: there is no file {path}; llama: takes a GGUF file on this machine"
            )
        self._api = library()
        self.path = path
        parameters = self._api.llama_model_default_params()
        # Weights laid out anew for special instructions. On x86 that means AMX, which takes seconds to lay out, is for many rows
        # at once, and ends the process on some virtual machines (a fault in ggml_backend_amx_mul_mat); on ARM it pays.
        parameters.use_extra_bufts = platform.machine().lower() not in ("x86_64", "amd64")
        parameters.n_gpu_layers = ALL_LAYERS if on_accelerator else 0
        self._handle: Any = self._api.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._handle:
            raise ModelError(
                f"draft: llama.cpp cannot load {path}; the log says why. Is it a whole GGUF file of a model that this version "
                "knows?"
            )
        self._refuse_what_cannot_draft()
        self._vocabulary = self._api.llama_model_get_vocab(self._handle)

    @property
    def handle(self) -> Any:
        """The library's own pointer."""
        return self._handle

    @property
    def vocabulary_size(self) -> int:
        """Logits of a row."""
        return int(self._api.llama_vocab_n_tokens(self._vocabulary))

    @property
    def context_length(self) -> int:
        """Most tokens of a text that it was trained for."""
        return int(self._api.llama_model_n_ctx_train(self._handle))

    def piece(self, token: TokenId) -> str:
        """Return what the file calls a token, byte-level spelling and all."""
        text: bytes = self._api.llama_vocab_get_text(self._vocabulary, token)
        return text.decode(errors="replace")

    def close(self) -> None:
        """Free the weights; whatever was made of them must be closed before."""
        if self._handle:
            self._api.llama_model_free(self._handle)
            self._handle = None

    def _refuse_what_cannot_draft(self) -> None:
        api, handle = self._api, self._handle
        if api.llama_model_has_encoder(handle) or not api.llama_model_has_decoder(handle):
            reason = "it has an encoder; a draft goes on from a text"
        elif api.llama_model_is_recurrent(handle) or api.llama_model_is_hybrid(handle):
            reason = "it is recurrent, so it cannot take a wrong guess back"
        else:
            return
        self.close()
        raise ModelError(
            f"draft: {self.path} cannot draft: {reason}; choose a decoder with attention"
        )


def check_vocabulary(model: GgufModel, tokenizer: Tokenizer) -> int:
    """See `check_words`.

    Args:
        model: the draft.
        tokenizer: the target's.

    Raises:
        IncompatibleError: an id stands for something else in the target's vocabulary.
    """
    return check_words(
        lambda token: model.piece(TokenId(token)),
        count=model.vocabulary_size,
        path=model.path,
        tokenizer=tokenizer,
    )
