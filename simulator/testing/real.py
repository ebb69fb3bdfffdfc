"""Real programs over emulated links, driven by a test: `paceline cloud`, `paceline edge`, and a relay between each two."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from simulator.testing.answer import DEFAULT_TOKENS
from simulator.testing.diary import Diary
from simulator.testing.parts import Parts
from simulator.testing.process import Process, ProcessSettings
from simulator.testing.real_edge import RealEdge
from simulator.testing.relayed import RelayedLink, RelayedLinks
from simulator.testing.steps import refuse_running_loop
from simulator.testing.thread import LoopThread
from simulator.testing.timers import Timers
from simulator.testing.tiny_model import write_tiny_model
from simulator.testing.written import WrittenNetwork, seconds
from simulator.virtual.events import Event

TINY = "tiny"
TINY_STEP = "20ms"
"""What a step of the tiny model takes at least: as long as a toy's in virtual time, so that drafts have something to save."""


class RealVerifier:
    """A verifier, `paceline cloud`.

    Args:
        process: the program.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def address(self) -> str:
        """HOST:PORT where it listens; the edges know the links before it instead."""
        return self._process.address

    def kill(self) -> None:
        """End the program with SIGKILL."""
        self._process.kill()

    def start(self) -> None:
        """Start it again at its address; return when it is ready. It knows nothing any more."""
        self._process.start()


class RealWorld:
    """Edges and verifiers, and the links between them.

    Args:
        network: of every link, at first.
        seed: of the links' weather.
        parts: the programs.

    Raises:
        ConfigError: the parts are those of virtual time.
    """

    is_virtual = False

    def __init__(self, *, network: WrittenNetwork, seed: int, parts: Parts) -> None:
        self.seed = seed
        self.network = network
        self._num_edges, self._num_verifiers = parts.real_counts()
        self._target, self._draft = parts.real_target(), parts.real_draft()
        self._min_step = () if self._target else ("--min-step", TINY_STEP)
        self._draft_length = parts.draft_length
        self._diary = Diary()
        self._thread = LoopThread()
        self._timers = Timers()
        self._stack = ExitStack()
        self._processes: list[Process] = []
        self._plain: RealEdge | None = None
        self.edges: tuple[RealEdge, ...] = ()
        self.verifiers: tuple[RealVerifier, ...] = ()
        self.links: Mapping[tuple[int, int], RelayedLink] = {}

    def open(self) -> None:
        """Start every program; return when all are ready.

        Raises:
            ProgramError: one could not start; says what it said.
        """
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="paceline-testing-")))
        self._target = self._target or str(write_tiny_model(folder / TINY))
        self._thread.start()
        self._stack.callback(self._thread.stop)
        self._stack.callback(self._kill_all)
        self._stack.callback(self._timers.close)
        verifiers = [
            self._process(f"verifier{index}", self._verifier_arguments(), folder=folder)
            for index in range(self._num_verifiers)
        ]
        Process.start_all(verifiers)
        self.verifiers = tuple(RealVerifier(one) for one in verifiers)
        links = RelayedLinks(
            network=self.network, seed=self.seed, diary=self._diary, thread=self._thread
        )
        self.links = {
            (i, j): links(verifier.address)
            for i in range(self._num_edges)
            for j, verifier in enumerate(self.verifiers)
        }
        edges = [
            self._process(f"edge{index}", self._edge_arguments(index), folder=folder)
            for index in range(self._num_edges)
        ]
        Process.start_all(edges)
        self.edges = tuple(self._edge(one, index=index) for index, one in enumerate(edges))

    def close(self) -> None:
        """End everything.

        Raises:
            ExceptionGroup: functions given to `after` raised.
        """
        self._stack.close()

    # --- what a test asks

    @property
    def edge(self) -> RealEdge:
        """The first edge."""
        return self.edges[0]

    @property
    def verifier(self) -> RealVerifier:
        """The first verifier."""
        return self.verifiers[0]

    @property
    def link(self) -> RelayedLink:
        """Between the first edge and the first verifier."""
        return self.links[0, 0]

    @property
    def events(self) -> tuple[Event, ...]:
        """What the test did and got, the oldest first."""
        return self._diary.events

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return self._diary.now_s

    def wait(self, duration: float | str) -> None:
        """Let time pass, "2s" for example; numbers are seconds."""
        refuse_running_loop()
        threading.Event().wait(seconds(duration))

    def after(self, delay: float | str, action: Callable[[], object]) -> None:
        """Call something later in a thread of its own, `world.link.cut` for example."""
        self._timers.after(seconds(delay), action)

    def target_text(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> str:
        """Return what the target says by itself: one more edge asks a verifier, without drafts and without a link."""
        if self._plain is None:
            clouds = [one.address for one in self.verifiers]
            process = self._process(
                "plain edge",
                ("edge", *self._model_arguments(), "--draft", "none", *_each("--cloud", clouds)),
                folder=self._processes[0].settings.folder,
            )
            process.start()
            self._plain = self._edge(process, index=self._num_edges)
        return self._plain.ask(prompt, max_tokens=max_tokens).text

    def last_words(self) -> list[str]:
        """Return what the programs wrote to stderr lately."""
        return [f"{one.settings.name}: {line}" for one in self._processes for line in one.errors]

    def _kill_all(self) -> None:
        """End the programs at once: nothing of theirs outlives the test, and goodbyes take seconds."""
        for process in self._processes:
            process.kill()

    def _process(self, name: str, arguments: tuple[str, ...], *, folder: Path) -> Process:
        settings = ProcessSettings(name=name, arguments=arguments, folder=folder)
        process = Process(settings, thread=self._thread, diary=self._diary)
        self._processes.append(process)
        return process

    def _edge(self, process: Process, *, index: int) -> RealEdge:
        return RealEdge(
            process, index=index, seed=self.seed, thread=self._thread, diary=self._diary
        )

    def _verifier_arguments(self) -> tuple[str, ...]:
        return ("cloud", *self._model_arguments(), "--drain", "0", *self._min_step)

    def _edge_arguments(self, index: int) -> tuple[str, ...]:
        clouds = [self.links[index, j].address for j in range(self._num_verifiers)]
        length = () if self._draft_length is None else ("--draft-length", str(self._draft_length))
        return (
            *("edge", *self._model_arguments(), "--draft", self._draft, *length),
            *_each("--cloud", clouds),
        )

    def _model_arguments(self) -> tuple[str, ...]:
        assert self._target is not None
        # All programs compute at the same time; tiny tensors gain nothing from a second thread.
        threads = max(1, (os.cpu_count() or 1) // (self._num_edges + self._num_verifiers))
        return ("--target", self._target, "--threads", str(threads))


def _each(option: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return an option once for each value."""
    return tuple(word for value in values for word in (option, value))
