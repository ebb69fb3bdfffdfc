"""How exact the emulated link's delay is: what a one-way trip takes beyond the delay asked for.

    python benchmarks/relay_delay.py [--trips 300]

Runs `paceline link` as a process, as the demo does. Sender and receiver share this process and its clock, so that
one way can be timed; the trip through the relay's two loopback sockets at no delay is in the first row.
"""

import argparse
import json
import platform
import re
import select
import socket
import statistics
import subprocess
import sys
import time

DELAYS_MS = (0, 10, 50, 200)
MESSAGE = b"x" * 64
PAUSE_S = 0.002


def trip_errors_ms(delay_ms: int, *, num_trips: int) -> list[float]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ["link", "--to", to, "--rtt", f"{2 * delay_ms}ms"]
        relay = subprocess.Popen(
            [sys.executable, "-m", "paceline.command", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert relay.stdout is not None
            ready = re.search(r":(\d+)$", relay.stdout.readline().strip())
            assert ready is not None
            with socket.create_connection(("127.0.0.1", int(ready[1]))) as sender:
                sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                receiver, _ = server.accept()
                with receiver:
                    return timed_trips(sender, receiver, num_trips=num_trips, delay_ms=delay_ms)
        finally:
            relay.terminate()
            relay.communicate(timeout=10)


def timed_trips(
    sender: socket.socket, receiver: socket.socket, *, num_trips: int, delay_ms: int
) -> list[float]:
    """Send some messages before the first arrives, as a pipelined program does; the first is a warm-up."""
    sent_s: list[float] = []
    errors_ms: list[float] = []
    while len(errors_ms) < num_trips + 1:
        can_read, _, _ = select.select([receiver], [], [], PAUSE_S)
        if can_read:
            receiver.recv(len(MESSAGE), socket.MSG_WAITALL)
            errors_ms.append((time.perf_counter() - sent_s[len(errors_ms)]) * 1e3 - delay_ms)
        elif len(sent_s) < num_trips + 1:
            sent_s.append(time.perf_counter())
            sender.sendall(MESSAGE)
    return errors_ms[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=300)
    num_trips = parser.parse_args().trips
    print(f"{platform.platform()}, Python {platform.python_version()}, {num_trips} trips each")
    print("| one way asked | median error | p99 error | smallest |")
    print("| --- | --- | --- | --- |")
    for delay_ms in DELAYS_MS:
        errors_ms = sorted(trip_errors_ms(delay_ms, num_trips=num_trips))
        p99 = errors_ms[int(0.99 * (len(errors_ms) - 1))]
        median = statistics.median(errors_ms)
        print(f"| {delay_ms} ms | {median:.3f} ms | {p99:.3f} ms | {errors_ms[0]:.3f} ms |")
        print(
            json.dumps({"delay_ms": delay_ms, "median_ms": median, "p99_ms": p99}), file=sys.stderr
        )


if __name__ == "__main__":
    main()
