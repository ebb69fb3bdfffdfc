"""An edge of a virtual world, and somebody who asks it from a test."""

import asyncio
from collections.abc import Callable

from paceline.engine.tokenizer import Tokenizer
from paceline.errors import PacelineError
from simulator.testing.answer import DEFAULT_TOKENS, Answer, AskingFailedError, asking_seed
from simulator.testing.steps import Steps
from simulator.virtual.edge import Asked, Request, SimulatedEdge
from simulator.virtual.world import WorldSettings

PATIENCE_S = 3600.0
"""Virtual time that an answer may take."""


class VirtualEdge:
    """An edge. It answers one thing after the other."""

    def __init__(
        self,
        simulated: SimulatedEdge,
        *,
        index: int,
        settings: WorldSettings,
        steps: Steps,
        group: asyncio.TaskGroup,
    ) -> None:
        self.simulated = simulated
        self._index = index
        self._settings = settings
        self._steps = steps
        self._group = group
        self._num_asked = 0

    def ask(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> Answer:
        """Return the answer, drawn at temperature 0.

        Raises:
            AskingFailedError: the edge gave up.
        """
        return self.submit(prompt, max_tokens=max_tokens).answer()

    def submit(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> "VirtualAsking":
        """Ask, and do not wait for the answer."""
        world, number = self._settings, self._num_asked
        request = Request(
            prompt=world.target.tokenizer.encode(prompt),
            max_tokens=max_tokens,
            seed=asking_seed(world.seed, self._index, number),
        )
        self._steps.do(lambda: self.simulated.ask(request))
        self._num_asked += 1
        return VirtualAsking(
            self.simulated,
            number=number,
            request=request,
            tokenizer=world.target.tokenizer,
            steps=self._steps,
        )

    def kill(self) -> None:
        """End the program like SIGKILL."""
        self._steps.do(self.simulated.kill)

    def start(self) -> None:
        """Start it again: it asks what was not answered yet."""
        self._steps.do(lambda: self.simulated.start(self._group))


class VirtualAsking:
    """Something that was asked."""

    def __init__(
        self,
        edge: SimulatedEdge,
        *,
        number: int,
        request: Request,
        tokenizer: Tokenizer,
        steps: Steps,
    ) -> None:
        self._edge = edge
        self._number = number
        self._request = request
        self._tokenizer = tokenizer
        self._steps = steps

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer so far."""
        asked = self._asked
        return 0 if asked is None else len(asked.pieces)

    def wait_for_tokens(self, count: int) -> None:
        """Let time pass until the answer has so many tokens.

        Raises:
            AskingFailedError: it ended before.
        """
        self._run_until(lambda: self.num_tokens >= count or self._is_over)
        if self.num_tokens < count:
            self.answer()
            raise AskingFailedError(
                f"the answer ended after {self.num_tokens} tokens, expected {count} before"
            )

    def answer(self) -> Answer:
        """Let time pass until the answer is complete, and return it.

        Raises:
            AskingFailedError: the edge gave up.
        """
        self._run_until(lambda: self._is_over)
        asked = self._asked
        assert asked is not None
        if asked.reason is None:
            raise AskingFailedError(f"{self._edge.name}: {_said(asked.error)}") from asked.error
        assert asked.statistics is not None
        return Answer(
            text=self._tokenizer.decode(asked.pieces),
            num_tokens=len(asked.pieces),
            finish_reason=asked.reason,
            statistics=asked.statistics,
        )

    def _run_until(self, is_true: Callable[[], bool]) -> None:
        self._steps.run(self._edge.wait_until(is_true), within_s=PATIENCE_S)

    @property
    def _asked(self) -> Asked | None:
        """The latest try."""
        tries = (one for one in reversed(self._edge.asked) if one.request is self._request)
        return next(tries, None)

    @property
    def _is_over(self) -> bool:
        return self._edge.num_answered > self._number


def _said(error: PacelineError | None) -> str:
    return str(error) if error is not None else "it ended without an answer"
