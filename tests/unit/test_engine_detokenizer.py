"""Pieces of text as ids arrive; joined they are the text of all ids."""

import pytest
from harness.models import tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast

from paceline.engine.detokenizer import Detokenizer
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

BYTES = Tokenizer(tiny_tokenizer(), name="tiny")


def pieces(tokenizer: Tokenizer, tokens: list[TokenId]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.feed([token]) for token in tokens), detokenizer.finish()]


def test_a_character_comes_when_its_last_byte_has_come() -> None:
    tokens = list(BYTES.encode("a\u20acb"))
    assert pieces(BYTES, tokens) == ["a", "", "", "\u20ac", "b", ""]


def test_an_unfinished_character_comes_at_the_end() -> None:
    tokens = list(BYTES.encode("a\u20ac"))[:-1]
    assert pieces(BYTES, tokens) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


@given(st.text(max_size=40))
def test_text_comes_back_whole(text: str) -> None:
    assert "".join(pieces(BYTES, list(BYTES.encode(text)))) == text


@given(st.lists(st.integers(0, 259), max_size=60))
def test_any_ids_give_the_text_of_all(ids: list[int]) -> None:
    tokens = [TokenId(item) for item in ids]
    assert "".join(pieces(BYTES, tokens)) == BYTES.decode(tokens)


def metaspace_tokenizer() -> Tokenizer:
    """As SentencePiece models decode: the first token loses its leading space."""
    words = ["<s>", "\u2581the", "\u2581", "ory", "\u2581cat", "s"]
    inner = FastTokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([AddedToken("<s>", special=True)])
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=inner), name="metaspace")


@given(st.lists(st.integers(0, 5), max_size=30))
def test_spaces_that_a_decoder_drops_at_the_start_stay_inside_a_text(ids: list[int]) -> None:
    tokenizer = metaspace_tokenizer()
    tokens = [TokenId(item) for item in ids]
    assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)


@pytest.mark.slow
@pytest.mark.real
def test_any_ids_of_smollm2_give_the_text_of_all() -> None:
    tokenizer = load_tokenizer(resolve("smollm2-135m"))

    @given(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=60))
    def check(ids: list[int]) -> None:
        tokens = [TokenId(item) for item in ids]
        assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens)

    check()
