"""The model thread's work, called directly: chunks, trees, errors of one session, where the time went."""

from typing import Any

import pytest
import torch
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.reference import reference_output

from cloud.orders import OpenOrder, StepOrder
from cloud.walk import ROOT, Tree
from cloud.worker import Worker, WorkerSettings
from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings
from paceline.errors import InvalidRequestError, OverloadedError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

PROMPT = tuple(TokenId(token) for token in (5, 17, 99, 200, 31, 8, 44))
GREEDY = SamplingSettings(temperature=0.0)


def expected(prompt: tuple[TokenId, ...] = PROMPT, max_tokens: int = 8) -> list[TokenId]:
    return reference_output(
        tiny_model(llama_config()),
        prompt,
        sampling=GREEDY,
        max_tokens=max_tokens,
        stop_tokens=(),
        vocabulary_size=VOCABULARY_SIZE,
    )


def open_order(key: int, text: tuple[TokenId, ...] = PROMPT, **changes: Any) -> OpenOrder:
    fields: dict[str, Any] = {
        "key": key,
        "text": text,
        "num_output": 0,
        "max_length": 40,
        "sampling": GREEDY,
        "num_logprobs": 0,
        "tenant": "",
    }
    return OpenOrder(**(fields | changes))


def worker_with(engine: Engine, *orders: OpenOrder, **settings: Any) -> Worker:
    worker = Worker(engine, settings=WorkerSettings(**settings))
    assert worker.arrange([], orders) == {order.key: None for order in orders}
    return worker


def prefilled(engine: Engine, *orders: OpenOrder) -> Worker:
    """A worker whose sessions have drawn their first token."""
    worker = worker_with(engine, *orders)
    steps = [StepOrder(key=order.key, num_prefill=len(order.text)) for order in orders]
    result = worker.step(steps)
    assert set(result.served) == {order.key for order in orders}
    return worker


def chain(tokens: list[TokenId]) -> Tree:
    return Tree(tokens=tuple(tokens), parents=tuple(range(ROOT, len(tokens) - 1)))


def test_a_prompt_in_chunks_yields_its_token_at_the_end() -> None:
    worker = worker_with(tiny_llama(), open_order(1))
    for done in (0, 3, 6):
        assert worker.views()[1].num_to_prefill == len(PROMPT) - done
        result = worker.step([StepOrder(key=1, num_prefill=min(3, len(PROMPT) - done))])
        assert (1 in result.served) == (done == 6)
    assert result.served[1].tokens == tuple(expected()[:1])
    assert worker.views()[1].num_to_prefill == 0


def test_drafts_are_walked_and_the_last_draw_is_the_next_root() -> None:
    text = expected()
    worker = prefilled(tiny_llama(), open_order(1))
    wrong = TokenId(text[3] ^ 1)
    result = worker.step([StepOrder(key=1, drafts=chain([text[1], text[2], wrong]))])
    assert result.served[1].tokens == tuple(text[1:4])
    result = worker.step([StepOrder(key=1)])
    assert result.served[1].tokens == tuple(text[4:5])
    result = worker.step([StepOrder(key=1, drafts=chain([text[5], text[6]]))])
    assert result.served[1].tokens == tuple(text[5:8])


def test_a_given_output_counts_for_penalties_and_a_prompt_does_not() -> None:
    sampling = SamplingSettings(temperature=0.0, presence_penalty=50.0)
    first, second = expected()[:2]
    # The prompt is not penalised: its most likely next token comes.
    worker = worker_with(tiny_llama(), open_order(1, (*PROMPT, first), sampling=sampling))
    result = worker.step([StepOrder(key=1, num_prefill=len(PROMPT) + 1)])
    assert result.served[1].tokens == (second,)
    # Output is: a token that was there before never comes again at this penalty.
    order = open_order(1, (*PROMPT, first, second), num_output=2, sampling=sampling, max_length=60)
    worker = worker_with(tiny_llama(), order)
    result = worker.step([StepOrder(key=1, num_prefill=len(PROMPT) + 2)])
    drawn = [first, second, *result.served[1].tokens]
    for _ in range(20):
        drawn += worker.step([StepOrder(key=1)]).served[1].tokens
    assert len(set(drawn)) == len(drawn)


def test_rows_that_make_the_model_fail_end_their_own_session_only() -> None:
    engine = tiny_llama()
    poison = TokenId(78)

    def refuse(_module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        if bool((arguments[0] == poison).any()):
            raise RuntimeError("kernel failed")

    engine._model.get_input_embeddings().register_forward_pre_hook(refuse)
    orders = [open_order(1), open_order(2, (*PROMPT, poison)), open_order(3)]
    worker = worker_with(engine, *orders)
    steps = [StepOrder(key=order.key, num_prefill=len(order.text)) for order in orders]
    result = worker.step(steps)
    assert set(result.failed) == {2}
    assert "kernel failed" in str(result.failed[2])
    assert {key: served.tokens for key, served in result.served.items()} == dict.fromkeys(
        (1, 3), tuple(expected()[:1])
    )


def test_nonsense_frees_the_rows_of_its_session() -> None:
    engine = tiny_llama()
    worker = prefilled(engine, open_order(1), open_order(2))
    with torch.no_grad():
        engine._model.get_input_embeddings().weight[78] = float("nan")
    poisoned = StepOrder(key=2, drafts=chain([expected()[1], TokenId(78)]))
    result = worker.step([StepOrder(key=1), poisoned])
    assert (set(result.served), set(result.failed)) == ({1}, {2})
    assert worker._seats[2].sequence.num_pending == 0


def test_noise_is_made_where_the_logits_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "device", torch.device("meta"))
    worker = worker_with(tiny_llama(), open_order(1, sampling=SamplingSettings(seed=3)))
    assert worker._seats[1].sampler._noise.get(7).device.type == "meta"


def test_memory_comes_back() -> None:
    engine = tiny_llama()
    worker = prefilled(engine, open_order(1), open_order(2))
    assert worker.memory.reserved > 0
    assert worker.keys == {1, 2}
    worker.arrange([1], [])
    assert worker.keys == {2}
    worker.close()
    assert worker.keys == set()
    assert worker.memory.reserved == engine.memory.reserved == 0
    worker.arrange([1, 2, 3], [])  # what was refused or freed before is no error


def test_what_cannot_be_opened_says_why() -> None:
    engine = tiny_llama(settings=EngineSettings(memory_bytes=100_000))
    worker = Worker(engine, settings=WorkerSettings())
    biased = SamplingSettings(logit_bias=((TokenId(5000), 1.0),))
    answers = worker.arrange([], [open_order(1, max_length=500), open_order(2, sampling=biased)])
    assert isinstance(answers[1], OverloadedError)
    assert isinstance(answers[2], InvalidRequestError)
    assert worker.keys == set()
    assert engine.memory.reserved == 0


def test_noise_is_prepared_while_idle_and_never_for_greedy() -> None:
    sampled = SamplingSettings(seed=3)
    worker = prefilled(tiny_llama(), open_order(1), open_order(2, sampling=sampled))
    rounds = 0
    while worker.prepare_noise():
        rounds += 1
        assert rounds <= 64, "it never ends"
    assert rounds == 32
    assert worker._seats[2].sampler.num_bytes == 32 * 4 * VOCABULARY_SIZE


def test_noise_of_all_sessions_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.worker.MAX_NOISE_BYTES", 5 * 4 * VOCABULARY_SIZE)
    orders = [open_order(key, sampling=SamplingSettings(seed=key)) for key in (1, 2)]
    worker = worker_with(tiny_llama(), *orders)
    assert [worker.prepare_noise() for _ in range(7)] == [True] * 5 + [False] * 2
    held = [worker._seats[key].sampler.num_bytes // (4 * VOCABULARY_SIZE) for key in (1, 2)]
    assert held == [3, 2], "what is needed first comes first, for everybody"


def test_the_split_of_steps_adds_up() -> None:
    worker = prefilled(tiny_llama(), open_order(1), open_order(2))
    worker.step([StepOrder(key=1, drafts=chain([TokenId(1), TokenId(2)])), StepOrder(key=2)])
    times = worker.times
    assert (times.num_steps, times.num_rows) == (2, 2 * len(PROMPT) + 4)
    assert times.num_prefill_rows == 2 * len(PROMPT)
    parts = (
        times.forward_ns,
        times.sampling_ns,
        times.walk_ns,
        times.commit_ns,
        times.padding_ns,
    )
    assert all(part > 0 for part in parts)
    assert sum(parts) == times.total_ns
    assert worker.engine_split.num_rows == times.num_rows


def test_a_step_can_be_made_to_last() -> None:
    worker = worker_with(tiny_llama(), open_order(1), min_step_s=0.03)
    result = worker.step([StepOrder(key=1, num_prefill=1)])
    assert result.step_ns >= 30_000_000


def test_a_waiting_session_names_its_leader_and_can_take_over() -> None:
    engine = tiny_llama()
    longer = (*PROMPT, TokenId(3), TokenId(4))
    worker = worker_with(
        engine, open_order(1, longer, tenant="a"), open_order(2, (*longer, TokenId(9)), tenant="a")
    )
    assert worker.views()[1].waits_for is None
    assert worker.views()[2].waits_for == 1
    worker.step([], take_over=[2])
    views = worker.views()
    assert views[2].waits_for is None
    assert views[2].num_to_prefill == len(longer) + 1
    assert views[1].waits_for == 2, "whoever computed it before waits now"
    worker.step([StepOrder(key=2, num_prefill=len(longer) + 1)])
    assert worker.views()[1].waits_for is None


@pytest.mark.parametrize("sessions", [1, 3])
def test_log_probabilities_only_where_asked_for(sessions: int) -> None:
    orders = [open_order(key, num_logprobs=2 * (key == 0)) for key in range(sessions)]
    worker = worker_with(tiny_llama(), *orders)
    result = worker.step([StepOrder(key=key, num_prefill=len(PROMPT)) for key in range(sessions)])
    assert [len(result.served[key].logprobs) for key in range(sessions)] == [1] + [0] * (
        sessions - 1
    )
    assert len(result.served[0].logprobs[0].top_tokens) == 2
