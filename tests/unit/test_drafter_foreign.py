"""Drafts across vocabularies: bytes that both tokenizers agree on, text that only grows, the target's own noise."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from harness.models import llama_config, smollm2_path, tiny_engine, tiny_model, tiny_tokenizer
from harness.reference import reference_output
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import PreTrainedTokenizerFast

from edge.drafters.foreign import ForeignDrafter
from edge.drafters.model import ModelDrafter
from edge.drafters.spoken import SpokenDrafter
from edge.drafters.translation import TAIL, Translation
from edge.drafters.words import UNFINISHED, Words, complete
from paceline.drafter import tokens_of
from paceline.engine.attention import NAME
from paceline.engine.engine import Engine
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError
from paceline.messages import ModelIdentity
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=1.0, seed=4)
PENALISED = SamplingSettings(temperature=0.8, repetition_penalty=1.3, seed=5)
LESSON = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "When in the course of human events it becomes necessary to write more text, one does.",
    "Ça va où? Über den Wolken, naïve façade: 1234 tokens + {code} == None\n\n    return x",
]
PROMPT = "The fox and the dog"


def _wrapped(inner: FastTokenizer, name: str) -> Tokenizer:
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", bos_token="<start>")
    return Tokenizer(fast, name=name)


@cache
def byte_level() -> Words:
    """Trained, with merges; splits words as GPT-2 does."""
    inner = FastTokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<start>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(LESSON, trainer)
    return Words(_wrapped(inner, "byte-level"))


@cache
def sentence_piece(*, prefix: bool = False) -> Words:
    """As Gemma's (spaces become a letter, words are not split, bytes where letters lack), or as Llama 2's with prefix."""
    inner = FastTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    changes: list[Any] = [normalizers.Replace(" ", "\u2581")]
    if prefix:
        changes.insert(0, normalizers.Prepend("\u2581"))
    inner.normalizer = normalizers.Sequence(changes)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    fallbacks = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<start>", "<end>", *fallbacks],
        show_progress=False,
    )
    inner.train_from_iterator(LESSON[:2], trainer)
    # The bytes are plain tokens: the trainer knows no way to have them but as special ones.
    content = FastTokenizer.from_str(_with_plain_bytes(inner.to_str()))
    content.add_special_tokens([AddedToken(name, special=True) for name in ("<start>", "<end>")])
    return Words(_wrapped(content, f"sentence-piece-{prefix}"))


def _with_plain_bytes(serialised: str) -> str:
    content = json.loads(serialised)
    content["added_tokens"] = [
        item for item in content["added_tokens"] if not item["content"].startswith("<0x")
    ]
    return json.dumps(content)


@cache
def shuffled() -> Words:
    """The tiny tokenizer's words with other ids: id i has become 259 - i."""
    pieces = tiny_tokenizer().get_vocab()
    inner = FastTokenizer(models.BPE(vocab={p: 259 - i for p, i in pieces.items()}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
    inner.add_special_tokens([AddedToken(name, special=True) for name in specials])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")
    return Words(Tokenizer(fast, name="shuffled"))


@cache
def tiny() -> Words:
    return Words(Tokenizer(tiny_tokenizer(), name="tiny"))


ALL = [byte_level, sentence_piece, lambda: sentence_piece(prefix=True), tiny, shuffled]
TEXTS = st.text(alphabet="the dog\n.,1\u00fc\u2014\U0001f600\u6587", max_size=60)


@pytest.mark.parametrize("words", ALL)
@given(text=TEXTS)
@settings(max_examples=40)
def test_a_texts_ids_stand_for_its_bytes(words: Any, text: str) -> None:
    tokens = words().encode(text)
    assert tokens is not None
    assert words().text(tokens) == text.encode()


@given(text=TEXTS, more=st.binary(max_size=6))
def test_text_is_taken_as_far_as_it_is_text(text: str, more: bytes) -> None:
    data = text.encode() + more
    found, rest = complete(data)
    assert found.encode() + rest == data
    assert found.startswith(text)
    unfinished = "\U0001f600".encode()[:UNFINISHED]
    assert complete(text.encode() + unfinished) == (text, unfinished)


def test_words_without_bytes_are_refused() -> None:
    inner = FastTokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
    with pytest.raises(IncompatibleError, match="kind WordLevel"):
        Words(_wrapped(inner, "words"))


@pytest.mark.parametrize("goal", ALL)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 80), max_size=8))
@settings(max_examples=40)
def test_a_text_that_grows_and_turns_back_means_the_same_in_both(
    goal: Any, text: str, cuts: list[int]
) -> None:
    source = byte_level()
    tokens = source.tokenizer.encode_plain(3 * text)
    translation = Translation(source, goal())
    for cut in (*cuts, len(tokens)):
        part = tokens[:cut]
        found = translation.of(part)
        _, rest = complete(source.text(part))
        assert (found is None) == bool(rest)
        if found is not None:
            assert goal().text(found) == source.text(part)


def test_a_long_text_is_translated_once() -> None:
    source, goal = byte_level(), sentence_piece()
    tokens = source.tokenizer.encode_plain(" ".join(LESSON * 6))
    translation = Translation(source, goal)
    found = translation.of(tokens)
    assert found == (*goal.beginning(), *(goal.encode(" ".join(LESSON * 6)) or ()))
    assert len(tokens) - 2 * TAIL < len(translation._settled.source) <= len(tokens) - TAIL
    # Turned back behind what was settled: it starts again.
    assert goal.text(translation.of(tokens[:20]) or ()) == source.text(tokens[:20])


def test_special_tokens_go_by_name_or_not_at_all() -> None:
    source, goal = byte_level(), sentence_piece()
    end = {name: token for token, name in source.specials.items()}["<end>"]
    other = {name: token for token, name in goal.specials.items()}["<end>"]
    tokens = (*source.tokenizer.encode_plain("the dog"), end, *source.tokenizer.encode_plain("fox"))
    found = Translation(source, goal).of(tokens)
    assert found is not None
    assert found.count(other) == 1
    assert goal.text(found) == b"the dogfox"
    nameless = Translation(source, tiny()).of(tokens)
    assert nameless is not None
    assert tiny().text(nameless) == b"the dogfox"
    assert not set(nameless) & set(tiny().specials)


def _engine(words: Words, *, seed: int = 0) -> Engine:
    size = words.tokenizer.vocabulary_size
    return tiny_engine(llama_config(vocab_size=size, max_position_embeddings=1024), seed=seed)


def _writer(words: Words) -> Engine:
    """A random model of bytes writes no text: this one has only those tokens that are."""
    engine = _engine(words, seed=2)
    engine.limit_output(
        torch.tensor([token for token, data in words.bytes.items() if data.isascii()])
    )
    return engine


def _twin() -> Engine:
    """The tiny target with its ids turned round: it says the same in other ids."""
    model = tiny_model(llama_config(), implementation=NAME)
    with torch.no_grad():
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            matrix.weight.copy_(matrix.weight.flip(0).clone())
    identity = ModelIdentity(
        name="twin",
        weights_fingerprint=bytes(32),
        dtype="float32",
        quantisation="",
        tokenizer_fingerprint=bytes(32),
        vocabulary_size=260,
        context_length=512,
    )
    return Engine(model, identity=identity)


def _expected(prompt: Sequence[TokenId], sampling: SamplingSettings, count: int) -> list[TokenId]:
    return reference_output(
        tiny_model(llama_config()),
        prompt,
        sampling=sampling,
        max_tokens=count,
        stop_tokens=(),
        vocabulary_size=260,
    )


@pytest.mark.parametrize("sampling", [GREEDY, NOISY, PENALISED])
def test_the_same_model_under_other_ids_draws_the_targets_tokens(
    sampling: SamplingSettings,
) -> None:
    # All its tokens are common, so its restricted law is its whole law, and coupled draws never miss. Special
    # tokens but the stop token are not drawn across, and bytes that are no text end the draft until a commit.
    drafter = ForeignDrafter(
        ModelDrafter(_twin(), vocabulary_size=260), own=shuffled(), target=tiny()
    )
    assert len(drafter.shared) == 256
    assert drafter.name == "common:twin"
    prompt = tiny().tokenizer.encode(PROMPT)
    expected = tuple(_expected(prompt, sampling, 40))
    draft = drafter.open(prompt_length=len(prompt), max_tokens=40, sampling=sampling)
    draft.prepare(prompt)
    right = wrong = 0
    for index in range(len(expected)):
        text = (*prompt, *expected[:index])
        found = draft.extend(text, 1)
        _, rest = complete(tiny().text(text))
        is_text = len(rest) <= UNFINISHED
        if is_text:
            assert bool(found) == (not rest)
        if found and is_text and expected[index] not in (0, 1, 3):
            right += found[0] == expected[index]
            wrong += found[0] != expected[index]
    assert right > 0
    assert wrong == 0
    draft.close()


@pytest.mark.parametrize("pair", [(byte_level, sentence_piece), (sentence_piece, byte_level)])
def test_common_tokens_alone_are_guessed(pair: Any) -> None:
    own, target = pair[0](), pair[1]()
    drafter = ForeignDrafter(
        ModelDrafter(_engine(own), vocabulary_size=own.tokenizer.vocabulary_size),
        own=own,
        target=target,
    )
    assert 50 < len(drafter.shared) < len(target.bytes)
    for token, to in drafter.shared.items():
        assert own.bytes[token] == target.bytes[to]
    prompt = target.tokenizer.encode(PROMPT)
    draft = drafter.open(prompt_length=len(prompt), max_tokens=30, sampling=NOISY)
    allowed = {*drafter.shared.values(), *target.tokenizer.stop_tokens}
    found = draft.guess(prompt, 10)
    assert found
    assert {guess.token for guess in found} <= allowed
    # One by one it says the same.
    text: tuple[TokenId, ...] = prompt
    for guess in found:
        assert draft.guess(text, 1) == (guess,)
        text = (*text, guess.token)
    draft.close()


@pytest.mark.parametrize(
    "pair", [(byte_level, sentence_piece), (sentence_piece, byte_level), (byte_level, tiny)]
)
def test_guesses_by_text_are_what_the_model_writes(pair: Any) -> None:
    own, target = pair[0](), pair[1]()
    model = ModelDrafter(_writer(own), vocabulary_size=own.tokenizer.vocabulary_size)
    drafter = SpokenDrafter(model, own=own, target=target)
    prompt = target.tokenizer.encode(PROMPT)
    draft = drafter.open(prompt_length=len(prompt), max_tokens=60, sampling=NOISY)
    draft.prepare(prompt)
    text: tuple[TokenId, ...] = prompt
    for limit in (1, 3, 2, 5):
        found = draft.guess(text, limit)
        assert len(found) <= limit
        assert all(0.0 < guess.chance <= 1.0 for guess in found)
        text = (*text, *tokens_of(found))
    said = target.text(text[len(prompt) :])
    # The model's own greedy text, in its own ids.
    ids = Translation(target, own).of(prompt)
    assert ids is not None
    alone = model.open(prompt_length=1, max_tokens=200, sampling=GREEDY)
    written = own.text(alone.extend(ids, 60))
    assert said
    assert written.startswith(said)
    draft.close()
    alone.close()


def test_what_the_target_says_otherwise_is_followed() -> None:
    own, target = byte_level(), sentence_piece()
    model = ModelDrafter(_writer(own), vocabulary_size=own.tokenizer.vocabulary_size)
    drafter = SpokenDrafter(model, own=own, target=target)
    prompt = target.tokenizer.encode(PROMPT)
    used = drafter.open(prompt_length=len(prompt), max_tokens=60, sampling=GREEDY)
    used.guess(prompt, 4)
    for word in (" the lazy", " fox", " does \u6587 not"):
        text = (*prompt, *(target.encode(word) or ()))
        fresh = drafter.open(prompt_length=len(prompt), max_tokens=60, sampling=GREEDY)
        assert used.extend(text, 4) == fresh.extend(text, 4)
        fresh.close()
    used.close()


@pytest.mark.real
@pytest.mark.slow
def test_smollm2s_words_and_others() -> None:
    smollm2 = Words(load_tokenizer(resolve(str(smollm2_path()))))
    text = "\n".join(LESSON) + " 文字 \U0001f600  two  spaces\ttab"
    for goal in (byte_level(), sentence_piece()):
        shared = smollm2.shared(goal)
        assert len(shared) > 100
        tokens = smollm2.encode(text)
        assert tokens is not None
        found = Translation(smollm2, goal).of(tokens)
        assert found is not None
        assert goal.text(found) == text.encode()
