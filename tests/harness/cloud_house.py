"""A registry and its workload under a clock that tests turn, with the test as the model thread."""

from typing import Any

from cloud.admission import SessionSettings
from cloud.entry import Entry
from cloud.orders import CacheView, Served, StepResult
from cloud.scheduler import Plan, RaceDrafting, SessionRows
from cloud.sessions import Registry
from cloud.stream import Stream
from cloud.tenants import Peer
from cloud.workload import Workload
from paceline.errors import ModelError
from paceline.messages import ModelIdentity, Open
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

TARGET = ModelIdentity(
    name="tiny",
    weights_fingerprint=bytes(32),
    dtype="float32",
    quantisation="",
    tokenizer_fingerprint=bytes(32),
    vocabulary_size=100,
    context_length=64,
)
ALICE, BOB = Peer(tenant="alice", namespace="alice"), Peer(tenant="bob", namespace="bob")
T = TokenId


class Hands:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def now_s(self) -> float:
        return self.at_s


class House:
    """A registry, its workload, and a worker that is played by the test."""

    def __init__(self, *, race_drafts: RaceDrafting = RaceDrafting.OFF, **settings: Any) -> None:
        self.clock = Hands()
        fields: dict[str, Any] = {"max_lead": 8, "lease_s": 10.0, "silence_s": 5.0}
        self.registry = Registry(
            SessionSettings(**(fields | settings)), target=TARGET, clock=self.clock
        )
        self.workload = Workload(
            self.registry, max_draft_rows=16, clock=self.clock, race_drafts=race_drafts
        )
        self.worker: set[int] = set()
        self.next_stream = 1

    def stream(self, peer: Peer = ALICE) -> Stream:
        self.next_stream += 1
        return Stream(number=self.next_stream, peer=peer)

    def open(self, peer: Peer = ALICE, **changes: Any) -> tuple[Entry, Stream]:
        stream = self.stream(peer)
        fields: dict[str, Any] = {
            "tokenizer_fingerprint": bytes(32),
            "prompt": (T(1), T(2), T(3)),
            "sampling": SamplingSettings(),
            "max_tokens": 20,
        }
        return self.registry.open(Open(**(fields | changes)), stream), stream

    def arrange(self) -> None:
        """Make and free caches."""
        closes, opens = self.workload.take_cache_orders()
        self.worker -= set(closes)
        for order in opens:
            self.worker.add(order.key)
            self.workload.cache_opened(order.key, None)
        views = {key: CacheView(num_to_prefill=0, waits_for=None) for key in self.worker}
        self.workload.cache_views(views)

    def step(
        self,
        entry: Entry,
        *tokens: int,
        failed: ModelError | None = None,
        row_price_s: float = 0.0,
        num_drafts: int = 0,
    ) -> None:
        """A step of one session."""
        served = (
            {}
            if failed
            else {entry.key: Served(tokens=tuple(T(token) for token in tokens), logprobs=())}
        )
        result = StepResult(
            served=served,
            failed={entry.key: failed} if failed else {},
            step_ns=1000,
            num_rows=1,
        )
        rows = SessionRows(key=entry.key, num_drafts=num_drafts)
        plan = Plan(rows=(rows,), row_price_s=row_price_s)
        self.workload.stepped(result, plan, started_s=self.clock.at_s)

    def later(self, seconds: float) -> None:
        self.clock.at_s += seconds
        self.registry.expire()

    def is_empty(self) -> bool:
        self.arrange()
        self.registry.check_integrity(self.worker)
        return self.registry.is_empty and not self.worker
