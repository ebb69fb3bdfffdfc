"""Fitting a student's layers to the target's, without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness.models import CONFIGS, llama_config, tiny_model

from edge.distillation.fitting import FitSettings, fit_student
from edge.distillation.packing import Batch
from edge.distillation.student import Student, StudentShape, make_student

VOCABULARY = 260
EXACT = FitSettings(bfloat16=False)


def batches(count: int, *, seed: int = 0) -> list[Batch]:
    """Texts of 40 tokens, two in each batch, the second a padding of no worth."""
    rng = np.random.default_rng(seed)
    size = 48
    worth = np.ones(size, np.float32)
    worth[40:] = 0
    return [
        Batch(
            tokens=rng.integers(4, VOCABULARY, size),
            positions=np.concatenate((np.arange(40), np.arange(8))),
            lengths=(40, 8),
            weights=worth,
            roles=np.zeros(size, np.uint8),
            indices=np.zeros((size, 1), np.int64),
            probs=np.zeros((size, 1), np.float32),
            top_tokens=np.zeros(size, np.int64),
            texts=(),
        )
        for _ in range(count)
    ]


def student_of(target: Any, layers: tuple[int, ...]) -> Student:
    return make_student(target, StudentShape(layers=layers), output_ids=range(VOCABULARY))


def gap(target: Any, student: Student) -> float:
    """Mean square between their logits on other text."""
    batch = batches(1, seed=9)[0]
    with torch.inference_mode():
        own = student(torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions), [40, 8])
        target.set_attn_implementation("eager")
        meant = target(torch.from_numpy(batch.tokens[None, :40])).logits[0]
    return float((own[:40] - meant).square().mean())


@pytest.mark.slow
def test_a_fitted_student_is_nearer_to_its_target() -> None:
    target = tiny_model(llama_config(num_hidden_layers=4))
    student = student_of(target, (0, 2))
    before = gap(target, student)
    fits = fit_student(student, target, layers=(0, 2), batches=batches(40), settings=EXACT)
    assert [fit.layer for fit in fits] == [0, 2]
    assert all(fit.after < 0.9 * fit.before for fit in fits)
    assert gap(target, student) < 0.8 * before


def test_a_student_with_all_layers_has_nothing_to_be_fitted() -> None:
    target = tiny_model(llama_config(num_hidden_layers=2))
    student = student_of(target, (0, 1))
    own = {name: value.detach().clone() for name, value in student.trained()}
    fits = fit_student(student, target, layers=(0, 1), batches=batches(4), settings=EXACT)
    # The states to be met are kept in bfloat16.
    assert all(fit.before < 1e-5 for fit in fits)
    assert all(torch.allclose(value, own[name], atol=0.02) for name, value in student.trained())


@pytest.mark.slow
def test_a_layer_makes_up_for_the_rounding_of_those_before() -> None:
    target = tiny_model(llama_config(num_hidden_layers=2, intermediate_size=64))
    settings = FitSettings(bfloat16=False, bits=3)
    student = student_of(target, (0, 1))
    exact = {name: value.detach().clone() for name, value in student.trained()}
    fits = fit_student(student, target, layers=(0, 1), batches=batches(40), settings=settings)
    assert all(0 < fit.after < fit.before for fit in fits)
    kept = [name for name, value in student.trained() if torch.equal(value, exact[name])]
    # Only the last matrices changed, and none stayed rounded.
    changed = sorted(set(exact) - set(kept))
    assert changed == [f"model.model.layers.{n}.mlp.down_proj.weight" for n in (0, 1)]


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "gpt_neox"])
def test_what_cannot_be_fitted_stays_as_it_is(kind: str) -> None:
    # Gemma has a norm behind its last matrix, the others call it something else.
    target = tiny_model(CONFIGS[kind]())
    student = student_of(target, (0,))
    own = {name: value.detach().clone() for name, value in student.trained()}
    assert fit_student(student, target, layers=(0,), batches=batches(1), settings=EXACT) == ()
    assert all(torch.equal(value, own[name]) for name, value in student.trained())
