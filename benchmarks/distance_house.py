"""The programs of benchmarks/distance.py, each on its core: started when they are first needed, asked, and timed."""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from distance_cells import Cell, Link, System, drafting
from harness.processes import Child, running
from validation import CLOUD_CORE, COMMAND, EDGE_CORE, LOAD_S, Tenants, link_to, pin

from paceline.engine.loading import DType
from paceline.prompts import PromptLine
from paceline.settings import parse_address
from paceline.tokens import TokenId

HERE = Path(__file__).parent
ANSWER_S = 600.0
"""Longest wait for anything, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What computes."""

    target: str
    dtype: DType
    cloud: tuple[str, ...] = ()
    """Further options of every `paceline cloud`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, for all systems the same."""

    line: PromptLine
    prompt: tuple[TokenId, ...]
    max_tokens: int
    texts: tuple[tuple[TokenId, ...], ...]
    """What recorded drafts know of the answer."""
    number: int
    """How often this was asked before."""


class Line:
    """A connection that speaks JSON, a line at a time."""

    def __init__(self, address: str) -> None:
        place = parse_address(address)
        self._socket = socket.create_connection((place.host, place.port), timeout=ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self._socket.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Return the next message."""
        line = self._file.readline()
        if not line:
            raise SystemExit("the edge has gone; its own output says why")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message, return the reply."""
        self.say(message)
        return self.hear()


class House:
    """Everything that runs, until the stack is left.

    Args:
        stack: ends it all.
        models: of verifier and edges.
        folder: for the file of tenants.
        count: most generations and rehearsals.
    """

    def __init__(self, stack: ExitStack, *, models: Models, folder: Path, count: int) -> None:
        self._stack = stack
        self._models = models
        self._tenants = Tenants(folder / "tokens.txt", count=count)
        self._tokens: dict[str, str] = {}
        self._programs: dict[str, list[psutil.Process]] = {}
        self._clouds: dict[tuple[str, ...], str] = {}
        self._edges: dict[int, str] = {}
        self._ways: dict[tuple[str, str], tuple[str, float]] = {}
        self._lines: dict[str, Line] = {}
        pin(os.getpid(), EDGE_CORE)
        self._programs["user"] = [psutil.Process()]

    def measure(self, cell: Cell, question: Question) -> dict[str, Any]:
        """Answer once; return what a line says of it."""
        cloud = self.cloud(cell.system)
        edge = self._edge(CLOUD_CORE if cell.system.is_colocated else EDGE_CORE)
        far = edge if cell.system.is_colocated else cloud
        way, origin_s = self.way(far, cell.link)
        verifier = cloud if cell.system.is_colocated else way
        user = self._line(way if cell.system.is_colocated else edge)
        user.ask({"do": "greet"})  # this connection is there before anything is asked, too
        self._prepare(edge, self._job(cell, question, verifier=verifier))
        with self._processor_time() as shares:
            heard = self._heard(user, stream=cell.system.is_colocated)
        done, statistics = heard["done"], heard["done"]["statistics"]
        begun_s, arrived = heard["begun_s"], heard["arrived_s"]
        return {
            "prompt_tokens": len(question.prompt),
            "output": done["output"],
            "committed": statistics["committed"],
            # To the user's side of the link: there the edge is, or the edge's user.
            "duration_s": round(arrived[-1], 5) if arrived else statistics["duration_s"],
            "first_s": round(arrived[0], 5) if arrived else statistics["time_to_first_token_s"],
            "at_s": round(begun_s - origin_s, 4),
            "cpu_s": shares,
            "load": round(os.getloadavg()[0], 2),
            "drafting": _plain(asdict(drafting(cell.system, cell.draft, cell.link))),
        } | {key: value for key, value in done.items() if key != "output"}

    def rehearse(self, cell: Cell, question: Question, *, most: int) -> list[tuple[TokenId, ...]]:
        """Return the texts that the target may write."""
        edge, verifier = self._edge(EDGE_CORE), self.cloud(cell.system)
        self._prepare(edge, self._job(cell, question, verifier=verifier))
        done = self._line(edge).ask({"do": "rehearse", "most": most})["done"]
        return [tuple(text) for text in done["texts"]]

    def fresh_token(self) -> str:
        """Return the token of a tenant that nobody was yet."""
        return self._tenants.next()

    # --- asking

    def _job(self, cell: Cell, question: Question, *, verifier: str) -> dict[str, Any]:
        return {
            "verifier": verifier,
            "token": self._token(cell, question),
            "system": cell.system.name,
            "draft": cell.draft.name,
            "rtt_s": cell.link.rtt_s,
            "category": question.line.category,
            "prompt": question.prompt,
            "max_tokens": question.max_tokens,
            "temperature": cell.temperature,
            "seed": cell.seed,
            "texts": question.texts,
        }

    def _token(self, cell: Cell, question: Question) -> str:
        """Return the token of a tenant that has not asked this yet: nothing of it is in the verifier's cache.

        Over a link and in a repetition a system with its draft is one tenant, as a user's edge is: a verifier remembers what drafts
        of a tenant were worth.
        """
        tenant = "|".join((cell.key.replace(cell.prompt, ""), str(question.number)))
        if tenant not in self._tokens:
            self._tokens[tenant] = self._tenants.next()
        return self._tokens[tenant]

    def _prepare(self, edge: str, job: dict[str, Any]) -> None:
        self._line(edge).ask({"do": "prepare", "job": job})

    def _heard(self, user: Line, *, stream: bool) -> dict[str, Any]:
        """Ask for the answer; return it with the times at which its pieces came."""
        begun_s = time.monotonic()
        user.say({"do": "answer", "stream": stream})
        arrived: list[float] = []
        while "done" not in (message := user.hear()):
            if message["tokens"]:
                arrived.append(time.monotonic() - begun_s)
        return {"done": message["done"], "arrived_s": arrived, "begun_s": begun_s}

    # --- programs

    def cloud(self, system: System) -> str:
        """Return where the verifier of a system listens."""
        options = (*self._models.cloud, *system.cloud)
        if options not in self._clouds:
            child = self._stack.enter_context(
                running(
                    COMMAND, "cloud", "--target", self._models.target, "--dtype", self._models.dtype, "--threads", "1",
                    "--listen", "127.0.0.1:0", "--token-file", str(self._tenants.path), *options,
                    ready=r"ready on (\S+)", timeout_s=LOAD_S,
                )
            )  # fmt: skip
            self._clouds[options] = self._settled(child, "cloud", core=CLOUD_CORE)
        return self._clouds[options]

    def _edge(self, core: int) -> str:
        if core not in self._edges:
            child = self._stack.enter_context(
                running(
                    "distance_edge", "--target", self._models.target, "--dtype", self._models.dtype,
                    ready=r"ready on (\S+)", timeout_s=LOAD_S,
                    environment={"PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))},
                )
            )  # fmt: skip
            name = "edge" if core == EDGE_CORE else "co-located edge"
            self._edges[core] = self._settled(child, name, core=core)
        return self._edges[core]

    def _settled(self, child: Child, name: str, *, core: int) -> str:
        """Pin a program and return where it listens."""
        pin(child.pid, core)
        self._programs.setdefault(name, []).append(psutil.Process(child.pid))
        assert child.ready
        return child.ready[1]

    def way(self, to: str, link: Link) -> tuple[str, float]:
        """Return where a relay to an address listens, and when its weather began."""
        if (to, link.name) not in self._ways:
            before = set(psutil.Process().children())
            way = self._stack.enter_context(link_to(to, link.network))
            fresh = set(psutil.Process().children()) - before
            self._programs.setdefault("relay", []).extend(fresh)
            self._ways[to, link.name] = (way.address, way.origin_s)
        return self._ways[to, link.name]

    def _line(self, address: str) -> Line:
        if address not in self._lines:
            self._lines[address] = Line(address)
        return self._lines[address]

    @contextmanager
    def _processor_time(self) -> Iterator[dict[str, float]]:
        """Give a table, filled when left, of the seconds of processor time that every program took."""
        before = {name: _spent_s(programs) for name, programs in self._programs.items()}
        table: dict[str, float] = {}
        yield table
        for name, programs in self._programs.items():
            table[name] = round(_spent_s(programs) - before[name], 3)


def _spent_s(programs: Sequence[psutil.Process]) -> float:
    times = [program.cpu_times() for program in programs]
    return float(sum(one.user + one.system for one in times))


def _plain(value: Any) -> Any:
    """Return settings as JSON has them, without what is None."""
    return {key: one for key, one in value.items() if one is not None}
