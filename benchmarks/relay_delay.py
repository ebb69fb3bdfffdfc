"""How exact the emulated link's delay is: what a one-way trip takes beyond the delay asked for.

    python benchmarks/relay_delay.py [--trips 300] [--pings 1000]

Runs `paceline link` as a process, as the demo does. Sender and receiver share this process and its clock, so that
one way can be timed; the trip through the relay's two loopback sockets at no delay is in the first row.

Then, for profiles: round trips of pings on a fixed schedule, and what the pure model, given the seed, when the link
began, and when each ping was sent, says of the same ones; and quantiles of both and of the model in the long run.
"""

import argparse
import json
import platform
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from simulator.network import Network
from simulator.notation import parse_network

DELAYS_MS = (0, 10, 50, 200)
MESSAGE = b"x" * 64
PAUSE_S = 0.002

COMPARED = ("wan", "lte", "starlink", "bad-wifi")
SEED = 7
PING_EVERY_S = 0.02
LONG_RUN_PINGS = 100_000
QUANTILES = (0.05, 0.5, 0.95, 0.99)


@contextmanager
def linked(*options: str) -> Iterator[tuple[socket.socket, socket.socket, float]]:
    """Connect through `paceline link`; give both ends and the link's beginning, of the monotonic clock."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        relay = subprocess.Popen(
            [sys.executable, "-m", "paceline.command", "link", "--json", "--to", to, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert relay.stdout is not None
            ready = json.loads(relay.stdout.readline())
            with socket.create_connection(("127.0.0.1", ready["port"])) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                carried, _ = server.accept()
                carried.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with carried:
                    yield client, carried, ready["origin_s"]
        finally:
            relay.terminate()
            relay.communicate(timeout=10)


def trip_errors_ms(delay_ms: int, *, num_trips: int) -> list[float]:
    with linked("--rtt", f"{2 * delay_ms}ms") as (sender, receiver, _):
        return timed_trips(sender, receiver, num_trips=num_trips, delay_ms=delay_ms)


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


def pings_s(
    client: socket.socket, echo: socket.socket, *, num_pings: int
) -> list[tuple[float, float]]:
    """Send pings on a fixed schedule, echo them, and return when each was sent and came back."""
    sent_s: list[float] = []
    back_s: list[float] = []
    first_s = time.monotonic()
    pending = b""
    while len(back_s) < num_pings:
        due_s = first_s + len(sent_s) * PING_EVERY_S
        is_all_sent = len(sent_s) == num_pings
        wait_s = 10.0 if is_all_sent else max(0.0, due_s - time.monotonic())
        can_read, _, _ = select.select([client, echo], [], [], wait_s)
        if echo in can_read:
            echo.sendall(echo.recv(65536))
        if client in can_read:
            pending += client.recv(65536)
            now_s = time.monotonic()
            while len(pending) >= len(MESSAGE):
                pending = pending[len(MESSAGE) :]
                back_s.append(now_s)
        if not is_all_sent and time.monotonic() >= due_s:
            sent_s.append(time.monotonic())
            client.sendall(MESSAGE)
    return list(zip(sent_s, back_s, strict=True))


def predicted_s(profile: str, sent_s: list[float], *, opened_s: float) -> list[float]:
    """Return what the model says of pings sent at times since the link began."""
    connection = Network(parse_network(profile), seed=SEED).connect()
    connection.opens_at(opened_s)
    there_s = [connection.up.leaves_at(now_s, len(MESSAGE)) for now_s in sent_s]
    back_s = [connection.down.leaves_at(now_s, len(MESSAGE)) for now_s in there_s]
    return [back - sent for back, sent in zip(back_s, sent_s, strict=True)]


def quantiles_ms(trips_s: list[float]) -> str:
    ordered = sorted(trips_s)
    return " / ".join(f"{ordered[int(q * (len(ordered) - 1))] * 1e3:.1f}" for q in QUANTILES)


def compare_profile(profile: str, *, num_pings: int) -> None:
    opened_s = time.monotonic()
    with linked("--profile", profile, "--seed", str(SEED)) as (client, echo, origin_s):
        times_s = pings_s(client, echo, num_pings=num_pings)
    sent_s = [sent - origin_s for sent, _ in times_s]
    measured = [back - sent for sent, back in times_s]
    predicted = predicted_s(profile, sent_s, opened_s=max(0.0, opened_s - origin_s))
    long_run = predicted_s(profile, [PING_EVERY_S * n for n in range(LONG_RUN_PINGS)], opened_s=0.0)
    errors_ms = sorted(abs(m - p) * 1e3 for m, p in zip(measured, predicted, strict=True))
    p99_ms = errors_ms[int(0.99 * (len(errors_ms) - 1))]
    median_ms = statistics.median(errors_ms)
    print(
        f"| {profile} | {quantiles_ms(measured)} | {quantiles_ms(predicted)} | {quantiles_ms(long_run)} "
        f"| {median_ms:.2f} ms | {p99_ms:.2f} ms |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=300)
    parser.add_argument("--pings", type=int, default=1000)
    arguments = parser.parse_args()
    num_trips = arguments.trips
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
    print(
        f"{arguments.pings} pings, {PING_EVERY_S * 1e3:g} ms apart; round trips in ms, p5 / p50 / p95 / p99"
    )
    print("| profile | measured | model, same pings | model, long run | median error | p99 error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for profile in COMPARED:
        compare_profile(profile, num_pings=arguments.pings)


if __name__ == "__main__":
    main()
