"""The student, its loss and how it is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness.models import CONFIGS, llama_config, tiny_model

from edge.distillation.laws import draw, top_laws
from edge.distillation.loss import divergence
from edge.distillation.measure import Guesses, Tally, coupled_matches, ranks
from edge.distillation.schedule import LAST, rate_share
from edge.distillation.slots import Feed, Slots
from edge.distillation.student import StudentShape, default_layers, make_student, spread_layers
from paceline.engine import attention
from paceline.errors import ConfigError

VOCABULARY = 260


def laws(seed: int, *, rows: int = 64, width: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * 2


def plain_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.float()


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_slots_compute_what_the_model_computes(kind: str) -> None:
    config = CONFIGS[kind]()
    reference = tiny_model(config)
    slots = Slots(tiny_model(config, implementation=attention.NAME), num_slots=20, length=40)
    generator = torch.Generator().manual_seed(3)
    texts = {
        slot: torch.randint(4, VOCABULARY, (24,), generator=generator).tolist()
        for slot in (0, 3, 17)
    }
    expected = {slot: plain_logits(reference, text) for slot, text in texts.items()}
    # Whole, in two pieces, and token by token, all in the same steps.
    cuts = {0: [0, 24], 3: [0, 9, 24], 17: [0, *range(5, 25)]}
    step = 0
    while any(len(places) > step + 1 for places in cuts.values()):
        feeds = [
            Feed(slot=slot, start=places[step], tokens=texts[slot][places[step] : places[step + 1]])
            for slot, places in cuts.items()
            if len(places) > step + 1
        ]
        logits = slots.run(feeds)
        row = 0
        for feed in feeds:
            stop = feed.start + len(feed.tokens)
            got = logits[row : row + len(feed.tokens)]
            assert torch.allclose(got, expected[feed.slot][feed.start : stop], atol=1e-4)
            row += len(feed.tokens)
        step += 1


def test_a_slot_that_is_used_again_forgets_its_last_text() -> None:
    config = llama_config()
    slots = Slots(tiny_model(config, implementation=attention.NAME), num_slots=2, length=16)
    slots.run([Feed(slot=0, start=0, tokens=[9] * 16)])
    got = slots.run([Feed(slot=0, start=0, tokens=[5, 6, 7])])
    assert torch.allclose(got, plain_logits(tiny_model(config), [5, 6, 7]), atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gemma3", "gpt_neox", "gpt2"])
def test_a_student_with_all_layers_is_the_target(kind: str) -> None:
    target = tiny_model(CONFIGS[kind]())
    layers = tuple(range(target.config.get_text_config().num_hidden_layers))
    ids = list(range(0, VOCABULARY, 3))
    student = make_student(target, StudentShape(layers=layers), output_ids=ids)
    texts = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [40, 41, 42]]
    got = student(
        torch.tensor([*texts[0], *texts[1]]), torch.tensor([*range(9), *range(3)]), [9, 3]
    )
    expected = torch.cat([plain_logits(target, text)[:, ids] for text in texts])
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_student_has_the_layers_it_was_given_and_leaves_the_target_alone() -> None:
    target = tiny_model(llama_config(num_hidden_layers=5))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    student = make_student(target, StudentShape(layers=(0, 4)), output_ids=range(VOCABULARY))
    names = [name for name, _ in student.trained()]
    assert not any("embed" in name or name == "head" for name in names)
    own = student.model.state_dict()
    key = "model.layers.{}.mlp.up_proj.weight"
    assert torch.equal(own[key.format(1)], before[key.format(4)])
    with torch.no_grad():
        for _, value in student.trained():
            value.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    with pytest.raises(ConfigError, match=r"layers: got \(0, 5\)"):
        make_student(target, StudentShape(layers=(0, 5)), output_ids=[1])


def test_default_layers_are_the_first_and_the_last() -> None:
    assert default_layers(30, 4) == (0, 1, 28, 29)
    assert default_layers(30, 3) == (0, 1, 29)
    assert default_layers(30, 1) == (0,)
    assert default_layers(2, 4) == (0, 1)


def test_spread_layers_are_different_and_hold_both_ends() -> None:
    assert spread_layers(30, 8) == (0, 4, 8, 12, 17, 21, 25, 29)
    assert spread_layers(30, 1) == (0,)
    for count in range(2, 14):
        layers = spread_layers(12, count)
        assert len(set(layers)) == min(count, 12)
        assert (layers[0], layers[-1]) == (0, 11)


def test_divergence_is_the_whole_one_when_all_is_kept() -> None:
    target, student = laws(1), laws(2)
    probs, ids = torch.softmax(target, 1).sort(1, descending=True)
    got = divergence(student, ids, probs)
    log_student = torch.log_softmax(student, 1)
    expected = (torch.softmax(target, 1) * (torch.log_softmax(target, 1) - log_student)).sum(1)
    assert torch.allclose(got, expected, atol=1e-4)


def test_divergence_of_what_was_kept_is_a_lower_bound_and_zero_for_equals() -> None:
    target, student = laws(1), laws(2)
    probs, ids = torch.softmax(target, 1).topk(6, 1)
    log_student = torch.log_softmax(student, 1)
    whole = (torch.softmax(target, 1) * (torch.log_softmax(target, 1) - log_student)).sum(1)
    partial = divergence(student, ids, probs)
    assert bool((partial <= whole + 1e-5).all())
    assert bool((partial > 0).all())
    assert torch.allclose(divergence(target, ids, probs), torch.zeros(64), atol=1e-4)


def plain_divergence(logits: torch.Tensor, ids: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """The formula as it stands in the module, for autograd."""
    log_probs = torch.log_softmax(logits, 1).gather(1, ids)
    rest = (1 - probs.sum(1)).clamp(min=0)
    student_rest = 1 - (log_probs.exp() * (probs > 0)).sum(1)
    entropy = torch.special.entr(probs).sum(1) + torch.special.entr(rest)
    result: torch.Tensor = -entropy - (probs * log_probs).sum(1) - rest * student_rest.log()
    return result


def test_the_gradient_is_the_one_that_autograd_finds() -> None:
    # More rows than a block, outputs that the target keeps and that it does not.
    target, student = laws(1, rows=150), laws(2, rows=150)
    probs, ids = torch.softmax(target, 1).topk(7, 1)
    probs[:, 3] = 0
    weights = torch.rand(150, generator=torch.Generator().manual_seed(3))
    gradients = []
    for formula in (divergence, plain_divergence):
        logits = student.clone().requires_grad_()
        values = formula(logits, ids, probs)
        (gradient,) = torch.autograd.grad((values * weights).sum(), logits)
        gradients.append(gradient)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)
    assert float(gradients[0].abs().max()) > 0.01


def test_tokens_that_the_student_cannot_say_are_the_remainder() -> None:
    target = laws(1)
    probs, ids = torch.softmax(target, 1).topk(6, 1)
    probs[:, 2] = 0
    ids[:, 2] = 0
    student = laws(2).requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(student, ids, probs).sum(), student)
    assert bool(gradient.isfinite().all())


def test_coupled_matches_are_what_draws_with_the_same_noise_have_in_common() -> None:
    target, student = laws(1, rows=1, width=8), laws(2, rows=1, width=8)
    probs, ids = torch.softmax(target, 1).sort(1, descending=True)
    expected = float(coupled_matches(student, ids, probs)[0])
    generator = torch.Generator().manual_seed(7)
    count = 40_000
    noise = torch.empty(count, 8).exponential_(generator=generator)
    same = (noise / torch.softmax(target, 1)).argmin(1) == (
        noise / torch.softmax(student, 1)
    ).argmin(1)
    # Five standard deviations of the count: false alarm below 1e-6, and the seed is fixed.
    assert abs(float(same.float().mean()) - expected) < 5 * (0.25 / count) ** 0.5


def test_ranks_are_of_the_targets_ids() -> None:
    ids = torch.tensor([3, 10, 20, 200])
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]] * 3)
    assert ranks(logits, ids, torch.tensor([10, 3, 77])).tolist() == [0, 3, 8]


def test_guesses_add_up() -> None:
    tally = Tally()
    tally.add("math", Guesses(num_positions=4, hits=(2, 1, 0, 0, 0, 0, 0, 0), matches=1.5))
    tally.add("code", Guesses(num_positions=6, hits=(3, 0, 0, 1, 0, 0, 0, 0), matches=2.5))
    total = tally.rows()["all"]
    assert total.acceptance == 0.5
    assert total.coverage[:4] == (0.5, 0.6, 0.6, 0.7)
    assert total.coupled == 0.4
    assert list(tally.rows()) == ["code", "math", "all"]


def test_draws_follow_the_law_and_the_noise() -> None:
    logits = laws(4, rows=1, width=12)
    cold = draw(logits.repeat(2, 1), temperatures=[0.0, 0.0], noise=[0.1, 0.9])
    assert cold == [int(logits.argmax())] * 2
    count = 4000
    noise = [(i + 0.5) / count for i in range(count)]
    drawn = draw(logits.repeat(count, 1), temperatures=[0.7] * count, noise=noise)
    share = torch.bincount(torch.tensor(drawn), minlength=12) / count
    assert torch.allclose(share, torch.softmax(logits[0] / 0.7, 0), atol=1 / count + 1e-4)
    ids, logprobs = top_laws(logits, k=3)
    assert torch.allclose(logprobs[0], torch.log_softmax(logits[0], 0)[ids[0]])


def test_the_rate_rises_and_falls() -> None:
    shares = [rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(1 / 3)
    assert max(shares) == pytest.approx(1.0)
    assert shares[3:] == sorted(shares[3:], reverse=True)
    assert shares[-1] == pytest.approx(LAST, abs=0.01)
