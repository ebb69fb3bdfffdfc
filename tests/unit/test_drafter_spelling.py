"""What stands after --draft."""

import pytest
from click.testing import CliRunner

from edge.draft_spec import (
    BlockSpec,
    CombinationSpec,
    EarlyExit,
    HierarchySpec,
    LlamaSpec,
    LowBit,
    ModelSpec,
    Spec,
    TableSpec,
    TreeSpec,
    models_of,
    needs_model,
    needs_torch,
    parse,
)
from edge.generate import generate
from paceline.errors import ConfigError

LOOKUP, SUFFIX = TableSpec(name="lookup"), TableSpec(name="suffix")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("lookup", LOOKUP),
        ("suffix", SUFFIX),
        ("low-bit:4/64", LowBit(bits=4, group=64)),
        ("early-exit:20", EarlyExit(num_layers=20)),
        ("owner/model", ModelSpec(model="owner/model")),
        ("a folder/with+plus", ModelSpec(model="a folder/with+plus")),
        ("common:m.gguf", ModelSpec(model="m.gguf", how="common:")),
        ("text:owner/m", ModelSpec(model="owner/m", how="text:")),
        ("suffix+m", CombinationSpec(parts=(SUFFIX, ModelSpec(model="m")))),
        ("suffix+a+b", CombinationSpec(parts=(SUFFIX, ModelSpec(model="a+b")))),
        (
            "lookup+suffix+text:m",
            CombinationSpec(parts=(LOOKUP, SUFFIX, ModelSpec(model="m", how="text:"))),
        ),
        ("hierarchy:suffix+m", HierarchySpec(helpers=(SUFFIX,), large=ModelSpec(model="m"))),
        (
            "hierarchy:early-exit:4+low-bit:4/64",
            HierarchySpec(helpers=(EarlyExit(num_layers=4),), large=LowBit(bits=4, group=64)),
        ),
        ("block:a/b+c", BlockSpec(model="a/b+c")),
        ("tree:block:m", TreeSpec(model=BlockSpec(model="m"))),
        ("suffix+block:m", CombinationSpec(parts=(SUFFIX, BlockSpec(model="m")))),
        ("tree:owner/m", TreeSpec(model=ModelSpec(model="owner/m"))),
        ("suffix+tree:a+b", TreeSpec(model=ModelSpec(model="a+b"), with_suffix=True)),
        ("tree:low-bit:4/64", TreeSpec(model=LowBit(bits=4, group=64))),
        ("llama:a/b+c.gguf", LlamaSpec(file="a/b+c.gguf")),
        ("tree:llama:m.gguf", TreeSpec(model=LlamaSpec(file="m.gguf"))),
        ("suffix+llama:m.gguf", CombinationSpec(parts=(SUFFIX, LlamaSpec(file="m.gguf")))),
        (
            "hierarchy:text:m+owner/m",
            HierarchySpec(
                helpers=(ModelSpec(model="m", how="text:"),), large=ModelSpec(model="owner/m")
            ),
        ),
        (
            "hierarchy:suffix+early-exit:4+a+b",
            HierarchySpec(helpers=(SUFFIX, EarlyExit(num_layers=4)), large=ModelSpec(model="a+b")),
        ),
        (
            "hierarchy:lookup+a+b+early-exit:9+low-bit:4/64",
            HierarchySpec(
                helpers=(LOOKUP, ModelSpec(model="a+b"), EarlyExit(num_layers=9)),
                large=LowBit(bits=4, group=64),
            ),
        ),
    ],
)
def test_spelling(text: str, spec: Spec) -> None:
    assert parse(text) == spec


def test_what_loads_a_model_is_known_before() -> None:
    assert not needs_model(parse("suffix"))
    assert not needs_model(parse("lookup+suffix"))
    for text in ("m", "low-bit:4/64", "suffix+m", "hierarchy:lookup+m", "suffix+tree:m", "llama:m"):
        assert needs_model(parse(text))


def test_what_pytorch_computes_is_known_before() -> None:
    for text in ("lookup", "lookup+suffix", "llama:m", "suffix+llama:m", "tree:llama:m"):
        assert not needs_torch(parse(text))
    for text in ("m", "low-bit:4/64", "suffix+m", "hierarchy:lookup+m", "tree:m", "text:m"):
        assert needs_torch(parse(text))


def test_the_models_that_are_read_are_known_before() -> None:
    for text in ("lookup", "suffix+low-bit:4/64", "hierarchy:suffix+early-exit:3"):
        assert models_of(parse(text)) == ()
    assert models_of(parse("hierarchy:text:a+b")) == (
        ModelSpec(model="a", how="text:"),
        ModelSpec(model="b"),
    )
    assert models_of(parse("tree:m")) == (ModelSpec(model="m"),)
    assert models_of(parse("suffix+block:m")) == (ModelSpec(model="m", how="block:"),)
    assert models_of(parse("tree:block:m")) == (ModelSpec(model="m", how="block:"),)
    assert models_of(parse("lookup+suffix+m")) == (ModelSpec(model="m"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' names no drafter"),
        ("none", "'none' names no drafter"),
        ("low-bit:9/64", "expected low-bit:BITS/GROUP"),
        ("low-bit:4", "expected low-bit:BITS/GROUP"),
        ("early-exit:0", "expected early-exit:LAYERS"),
        ("text:", "'text:' names no drafter"),
        ("suffix+", "'' names no drafter; expected lookup, suffix, low-bit"),
        ("suffix+none", "'none' names no drafter"),
        ("suffix+hierarchy:lookup+m", "names no drafter"),
        ("tree:", "names no drafter"),
        ("tree:suffix", "suffix draws no tokens of the target's vocabulary"),
        ("tree:tree:m", "names no drafter"),
        ("llama:", "'llama:' names no drafter"),
        (
            "hierarchy:suffix+llama:m",
            "llama:m draws no tokens of the target's vocabulary by itself",
        ),
        ("suffix+tree:", "names no drafter"),
        ("suffix+tree:llama:m", "llama:m draws no tokens of the target's vocabulary"),
        ("lookup+tree:m", "names no drafter"),
        ("hierarchy:m", "expected hierarchy:SMALL[+]MODEL"),
        ("hierarchy:+m", "expected hierarchy:SMALL[+]MODEL"),
        ("hierarchy:suffix+", "expected hierarchy:SMALL[+]MODEL"),
        ("hierarchy:suffix++low-bit:4/64", "expected hierarchy:SMALL[+]MODEL"),
        ("hierarchy:lookup+suffix", "suffix draws no tokens of the target's vocabulary"),
        ("hierarchy:lookup+text:m", "text:m draws no tokens of the target's vocabulary"),
    ],
)
def test_what_means_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_a_wrong_word_is_answered_before_anything_is_loaded() -> None:
    result = CliRunner().invoke(generate, ["hello", "--draft", "low-bit:9/64"])
    assert isinstance(result.exception, ConfigError)
    assert "expected low-bit:BITS/GROUP" in str(result.exception)


def test_a_tree_grows_as_far_as_it_is_likely() -> None:
    result = CliRunner().invoke(
        generate, ["hello", "--draft", "tree:m", "--length-policy", "closed-form"]
    )
    assert isinstance(result.exception, ConfigError)
    assert "a tree ends where guesses are not worth their cost" in str(result.exception)
