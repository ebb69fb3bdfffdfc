"""Any message, for property tests."""

from hypothesis import strategies as st

from paceline.messages import (
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    Drain,
    EdgeMessage,
    Failure,
    FinishReason,
    Limits,
    ModelIdentity,
    Open,
    Opened,
    Proposal,
    Resume,
    TokenLogprobs,
)
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, SessionId, TokenId

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
SIZES = st.integers(1, 2**32 - 1)
TOKENS = st.lists(U32.map(TokenId), max_size=40).map(tuple)
POSITIONS = U32.map(Position)
FINGERPRINTS = st.binary(min_size=32, max_size=32)
SESSION_IDS = st.binary(min_size=16, max_size=16).map(SessionId)
LABELS = st.text(st.characters(codec="utf-8"), max_size=60)


def floats(low: float, high: float, **options: bool) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32, **options)


@st.composite
def samplings(draw: st.DrawFn) -> SamplingSettings:
    biased = sorted(draw(st.sets(U32, max_size=5)))
    return SamplingSettings(
        temperature=draw(floats(0, 100)),
        top_k=draw(st.integers(0, 2**31 - 1)),
        top_p=draw(floats(0, 1, exclude_min=True)),
        min_p=draw(floats(0, 1, exclude_max=True)),
        repetition_penalty=draw(floats(0, 100, exclude_min=True)),
        presence_penalty=draw(floats(-100, 100)),
        frequency_penalty=draw(floats(-100, 100)),
        logit_bias=tuple((TokenId(token), draw(floats(-1000, 1000))) for token in biased),
        seed=draw(U64),
    )


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    tokens = draw(TOKENS)
    parents = draw(st.lists(U32, max_size=len(tokens)).map(tuple))
    return Proposal(
        base_position=draw(POSITIONS), tokens=tokens, parents=parents, idle=draw(st.booleans())
    )


OPENS = st.builds(
    Open,
    tokenizer_fingerprint=FINGERPRINTS,
    weights_fingerprint=st.just(b"") | FINGERPRINTS,
    prompt=TOKENS.filter(len),
    output=TOKENS,
    sampling=samplings(),
    max_tokens=SIZES,
    stop_tokens=TOKENS,
    num_logprobs=st.integers(0, 20),
    patience_ms=U32,
    protocol_version=U32,
)
EDGE_MESSAGES: st.SearchStrategy[EdgeMessage] = st.one_of(
    OPENS,
    st.builds(Resume, session_id=SESSION_IDS, length=POSITIONS, attempt=U32),
    proposals(),
    st.builds(Close, reason=st.sampled_from(CloseReason)),
)
LIMITS = st.builds(
    Limits,
    window=st.integers(64, 2**32 - 1),
    max_lead=SIZES,
    context_length=SIZES,
    max_tokens=SIZES,
    lease_ms=U32,
)
IDENTITIES = st.builds(
    ModelIdentity,
    name=LABELS,
    weights_fingerprint=st.just(b"") | FINGERPRINTS,
    dtype=LABELS,
    quantisation=LABELS,
    tokenizer_fingerprint=FINGERPRINTS,
    vocabulary_size=SIZES,
    context_length=SIZES,
)


@st.composite
def entries(draw: st.DrawFn) -> TokenLogprobs:
    top = draw(st.lists(U32.map(TokenId), max_size=20).map(tuple))
    values = tuple(draw(floats(-100, 0)) for _ in top)
    return TokenLogprobs(logprob=draw(floats(-100, 0)), top_tokens=top, top_logprobs=values)


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    tokens = draw(TOKENS)
    flags = tuple(draw(st.booleans()) for _ in tokens)
    with_logprobs = draw(st.booleans())
    counts = {
        name: draw(U32)
        for name in ("num_judged", "num_accepted", "num_late", "num_stale", "num_rows", "num_steps")
    }
    times = {name: draw(U64) for name in ("queue_ns", "verify_ns", "row_price_ns")}
    return Commit(
        position=draw(POSITIONS),
        tokens=tokens,
        accepted=flags if any(flags) else (),
        logprobs=tuple(draw(entries()) for _ in tokens) if with_logprobs else (),
        finish=draw(st.none() | st.sampled_from(FinishReason)),
        **counts,
        **times,
    )


CLOUD_MESSAGES: st.SearchStrategy[CloudMessage] = st.one_of(
    st.builds(
        Opened,
        session_id=SESSION_IDS,
        limits=LIMITS,
        target=IDENTITIES,
        length=POSITIONS,
        step_ns=U64,
        address=LABELS,
    ),
    commits(),
    st.builds(Drain, deadline_ms=U32),
    st.builds(
        Failure,
        reason=st.from_regex(r"[A-Z_]{1,64}", fullmatch=True),
        message=LABELS,
        retryable=st.booleans(),
        retry_after_ms=U32,
        length=U32,
    ),
)
