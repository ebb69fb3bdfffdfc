"""Things that happen later in real time, each in a thread of its own."""

import threading
from collections.abc import Callable

from paceline.errors import ConfigError

END_S = 60.0
MOST = 100


class Timers:
    """What was asked for and has not happened yet."""

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []
        self._errors: list[Exception] = []

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Call something later.

        Raises:
            ConfigError: too much is waiting.
        """
        self._timers = [one for one in self._timers if one.is_alive()]
        if len(self._timers) >= MOST:
            raise ConfigError(f"after: got {MOST + 1} things to do later, expected at most {MOST}")

        def act() -> None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - told at the end of the test
                self._errors.append(error)

        timer = threading.Timer(delay_s, act)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def close(self) -> None:
        """Forget what has not begun, and wait for what has.

        Raises:
            ExceptionGroup: some of it raised.
        """
        for timer in self._timers:
            timer.cancel()
        for timer in self._timers:
            timer.join(END_S)
        if self._errors:
            raise ExceptionGroup("what was to happen later raised", self._errors)
