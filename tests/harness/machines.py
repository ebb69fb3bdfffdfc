"""Two machines: network namespaces with a cable between them where that is allowed, else two addresses of this one."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.deployment import command
from harness.processes import Child

ADDRESS = "192.0.2.10"
"""Of machine A in the documentation, and in its namespace."""
FALLBACK = "127.0.0.2"
BOUND_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A place to run commands as they are printed in the documentation."""

    folder: Path
    """Where they start from."""
    address: str
    """What stands for ADDRESS."""
    prefix: tuple[str, ...] = ()
    """Puts a command into the machine's network."""
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, commands: str) -> str:
        """Run commands to their end; returns what they wrote to standard output."""
        done = subprocess.run(
            self._shell(commands),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, commands: str) -> Iterator[Child]:
        """Run commands of which the last serves; it is ended when left."""
        # The shell becomes the program, so that ending the one ends the other.
        commands = re.sub(r"^(paceline|mosquitto) ", r"exec \1 ", commands, flags=re.MULTILINE)
        child = command(self._shell(commands), environment=self._environment(), folder=self.folder)
        with child as running:
            yield running

    def _shell(self, commands: str) -> list[str]:
        return [*self.prefix, "sh", "-euc", commands.replace(ADDRESS, self.address)]

    def _environment(self) -> dict[str, str]:
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        own = {"PATH": programs, "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        return own | dict(self.variables)


@contextmanager
def two_machines(
    folder: Path, *, variables: Mapping[str, str], ports: tuple[int, ...]
) -> Iterator[tuple[Machine, Machine] | None]:
    """Give machines A and B; none if there are neither namespaces nor free ports.

    Args:
        folder: for their files.
        variables: of every command's environment.
        ports: where programs will listen, on all addresses.
    """
    for name in ("a", "b"):
        (folder / name).mkdir()
    names = tuple(f"paceline-{os.getpid()}-{name}" for name in ("a", "b"))
    try:
        if _connect(*names):
            a, b = (
                Machine(
                    folder=folder / name[-1],
                    address=ADDRESS,
                    prefix=("ip", "netns", "exec", name),
                    variables=variables,
                )
                for name in names
            )
            yield a, b
        elif all(_is_free(port) for port in ports):
            a, b = (
                Machine(folder=folder / name, address=FALLBACK, variables=variables)
                for name in ("a", "b")
            )
            yield a, b
        else:
            yield None
    finally:
        for name in names:
            _ip("netns", "del", name)


def _connect(a: str, b: str) -> bool:
    """Make two namespaces and a cable between them; return whether the system allowed it."""
    if shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return False
    steps = [
        ("netns", "add", a),
        ("netns", "add", b),
        ("link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b),
        ("-n", a, "addr", "add", f"{ADDRESS}/24", "dev", "cable"),
        ("-n", b, "addr", "add", "192.0.2.20/24", "dev", "cable"),
        *(
            ("-n", name, "link", "set", device, "up")
            for name in (a, b)
            for device in ("lo", "cable")
        ),
    ]
    return all(_ip(*step) for step in steps)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _ip(*arguments: str) -> bool:
    try:
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
