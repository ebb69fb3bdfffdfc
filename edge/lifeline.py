"""Runs `paceline ...` only for as long as whoever started it lives: python -m edge.lifeline ARGUMENTS.

Standard input must be a pipe that the parent holds open. The system closes it when the parent ends, however it ends, so
no process is left behind even if the parent was killed. A pipe says this on every system; the alternative, Linux's
parent-death signal, comes when the parent's thread ends, and threads end earlier.
"""

import os
import signal
import sys
import threading

GRACE_S = 5.0
"""Time to end in order before the process is ended at once, in seconds."""


def main() -> None:
    """Watch the pipe and run the command."""
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()
    # Imported late, so that the pipe is watched while modules load.
    from paceline.command import main as run_command  # noqa: PLC0415

    run_command(sys.argv[1:])


def _watch() -> None:
    # Not sys.stdin: its lock, held by a daemon thread, stops the interpreter from ending.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
