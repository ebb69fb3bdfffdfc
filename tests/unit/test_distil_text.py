"""What the target is asked to write: scripts, frames, exclusion, licensed text."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from harness.models import tiny_tokenizer

from edge.distillation import scripts
from edge.distillation.conversation import Role, begin
from edge.distillation.exclusion import NUM_WORDS, Exclusion, read_texts
from edge.distillation.frame import ChatFrame, is_looping
from edge.distillation.licensed import LICENCES, PYTHON_LICENCE, find_documents
from edge.distillation.scripts import Materials, Script, Turn, script
from edge.distillation.sentences import LANGUAGES, sentences
from edge.distillation.sums import word_problem
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError
from paceline.tokens import TokenId

MATERIALS = Materials(
    passages=tuple(f"Passage {i} is about {i * i}. " * 30 for i in range(50)),
    documents=tuple("".join(f"{i} + {j}\n" for j in range(500)) for i in range(50)),
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer(), name="tiny")


def planned(count: int, **changes: object) -> list[Script]:
    arguments = {"seed": 5, "materials": MATERIALS, "can_chat": True} | changes
    return [script(number, **arguments) for number in range(count)]  # type: ignore[arg-type]


def test_a_script_depends_on_seed_and_number_alone() -> None:
    assert planned(40) == planned(40)
    assert planned(40) != planned(40, seed=6)
    assert script(17, seed=5, materials=MATERIALS, can_chat=True) == planned(18)[17]


def test_categories_come_in_their_shares() -> None:
    count = 1500
    seen = Counter(item.category for item in planned(count))
    for category, share in scripts.CATEGORIES.items():
        # Five standard deviations: a false alarm once in a million runs, if the seed were drawn anew.
        spread = 5 * (count * share * (1 - share)) ** 0.5
        assert abs(seen[category] - count * share) < spread, category


def test_nothing_is_quoted_before_it_was_written() -> None:
    seen = Counter(
        item.category for item in planned(300, materials=Materials(passages=(), documents=()))
    )
    assert not {"summary", "rag", "continuation", "reading"} & set(seen)
    assert seen["passage"] > 40


def test_prompts_are_hardly_ever_the_same_twice() -> None:
    prompts = [turn.prompt for item in planned(600) for turn in item.turns[:1] if turn.prompt]
    assert len(set(prompts)) > 0.97 * len(prompts)
    assert not any("{topic" in text or "{passage" in text for text in prompts)


def test_users_prompts_are_answered_too() -> None:
    materials = Materials(passages=(), documents=(), prompts=("How are you?",))
    given = [item for item in planned(300, materials=materials) if item.category == "given"]
    assert 60 < len(given) < 140
    assert {item.turns[0].prompt for item in given} == {"How are you?"}


def test_without_a_chat_template_all_text_is_plain() -> None:
    assert all(item.is_plain and len(item.turns) == 1 for item in planned(60, can_chat=False))


def test_sentences_mean_the_same_in_every_language() -> None:
    rng = np.random.default_rng(1)
    texts = sentences(rng, count=3)
    assert len(texts) == len(LANGUAGES)
    assert {text.count(".") for text in texts} == {3}


def test_word_problems_have_no_holes() -> None:
    rng = np.random.default_rng(2)
    problems = [word_problem(rng) for _ in range(200)]
    assert not any("{" in text or "}" in text for text in problems)
    assert len(set(problems)) > 190


def test_thirteen_words_in_a_row_exclude_a_text() -> None:
    words = [f"word{i}" for i in range(30)]
    exclusion = Exclusion([" ".join(words)])
    assert len(exclusion) == 30 - NUM_WORDS + 1
    assert exclusion.matches("Before, " + "; ".join(words[4:17]).upper() + "!")
    assert not exclusion.matches(" ".join(words[4:16]) + " else " + " ".join(words[17:29]))
    assert not Exclusion().matches(" ".join(words))


def test_excluded_files_are_read_by_their_names(tmp_path: Path) -> None:
    lines, tree, plain = tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path / "c.txt"
    lines.write_text('{"turns": ["one", "two"], "id": 3}\n\n{"text": "three"}\n')
    tree.write_text(json.dumps([["four"], {"x": {"y": "five"}}]))
    plain.write_text("{six")
    assert read_texts([lines, tree, plain]) == ("one", "two", "three", "four", "five", "{six")
    lines.write_text("{broken")
    with pytest.raises(ConfigError, match=r"file .*a\.jsonl: cannot be read"):
        read_texts([lines])


@pytest.mark.slow
def test_licensed_text_says_its_licence() -> None:
    documents = find_documents()
    assert len(documents) > 100
    assert {document.licence for document in documents} <= LICENCES | {PYTHON_LICENCE}
    assert not any("/test/" in document.name for document in documents)
    assert len(documents[0].origin["sha256"]) == 64


def test_the_frame_is_what_the_template_writes(tokenizer: Tokenizer) -> None:
    frame = ChatFrame(tokenizer)
    before, after = frame.blank_prompt(system=None)
    said = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    hello = tuple(tokenizer.encode("Hello"))
    assert before + hello + after == said
    following = frame.following("Why?")
    assert following is not None
    assert following[0] in frame.stop_tokens
    conversation = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day"},
        {"role": "user", "content": "Why?"},
    ]
    assert said + tuple(tokenizer.encode("Good day")) + following == tokenizer.encode_chat(
        conversation
    )


def test_a_loop_is_seen_only_when_it_is_one() -> None:
    loop = [TokenId(token) for token in [5, 6, 7] * 30]
    assert is_looping(loop)
    assert not is_looping(loop[:60])
    assert not is_looping([*loop[:80], TokenId(9)])
    assert not is_looping([TokenId(token) for token in range(100)])


def test_a_conversation_that_the_target_begins_itself(tokenizer: Tokenizer) -> None:
    frame = ChatFrame(tokenizer)
    item = begin(
        Script(
            number=0,
            category="self",
            seed=(1,),
            system=None,
            turns=(
                Turn(prompt=None, max_tokens=9, temperature=0.0),
                Turn(prompt="More", max_tokens=3, temperature=0.0),
            ),
        ),
        frame=frame,
        tokenizer=tokenizer,
        max_length=200,
    )
    assert item is not None
    stop = tokenizer.stop_tokens[0]
    said = [*tokenizer.encode("Hi"), stop, *tokenizer.encode("Yes"), stop, *tokenizer.encode("abc")]
    for token in said:
        rows = len(item.pending)
        item.note_laws(np.zeros((rows, 2), np.int64), np.zeros((rows, 2), np.float32))
        item.note_draw(token)
    assert item.is_done
    expected = tokenizer.encode_chat(
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes"},
            {"role": "user", "content": "More"},
        ]
    )
    assert tuple(item.tokens) == expected + tuple(tokenizer.encode("abc"))
    assert [role for role in item.roles if role is Role.PROMPT] == [Role.PROMPT] * 3
    assert item.roles.count(Role.ANSWER) == 3 + 1 + 3
    assert len(item.laws()[0]) == len(item.tokens) - 1


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    long = Script(
        number=0,
        category="question",
        seed=(1,),
        system=None,
        turns=(Turn(prompt="a" * 300, max_tokens=9, temperature=0.0),),
    )
    assert begin(long, frame=ChatFrame(tokenizer), tokenizer=tokenizer, max_length=200) is None
