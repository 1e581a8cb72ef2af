"""What receiving costs: CPU a 10 kB message beside stock aiosmtpd, one 30 MB message, and idle memory.

    .venv/bin/python -m bench.receive_cost [--rounds 3] [--messages 2000] [--sessions 10]

Linux; smtp-sink for the large message. All traffic is on the loopback interface.
"""

import argparse
import asyncio
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session

from bench.common import (
    MESSAGE_SIZE,
    MIB,
    Load,
    Sink,
    build,
    gateway_settings,
    median,
    peaks,
    process_cpu,
    reset_peaks,
    run_load,
    show,
    tree_memory,
    work_folder,
)
from gateway.core.reply import Reply
from gateway.core.transaction import Recipient
from gateway.core.transaction import Session as SmtpClientSession
from gateway.net.listener import Acceptor, bind
from gateway.smtp.grammar import RcptArguments
from gateway.smtp.handler import ServerSettings
from gateway.smtp.replies import OK
from gateway.smtp.server import SmtpServer
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.peers import sink_missing
from tests.support.process import Daemon, free_port, missing

LARGE = 30 * MIB
PROBE_PAUSE_S = 0.002
SETTLE_S = 1.0


class Discard:
    """The least that aiosmtpd can be asked to do with a message."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 OK"


def serve_stock(port: int) -> None:
    """Stock aiosmtpd on stock asyncio, in this process, until it is killed."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Discard(), hostname="stock.test", loop=loop), "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


class Agree:
    """`smtp.handler.Handler` that agrees to everything and throws messages away, as Discard does for aiosmtpd."""

    async def connected(self, session: object, early_talk: object) -> None: ...
    async def helo(self, session: object) -> None: ...
    async def mail(self, session: object, arguments: object) -> None: ...
    async def rcpt(self, session: object, envelope: object, arguments: RcptArguments) -> Recipient:
        assert arguments.forward_path is not None
        return Recipient(arguments.forward_path)

    def reset(self) -> None: ...
    def closed(self, session: object) -> None: ...
    def content(self) -> "Agree":
        return self

    async def write(self, octets: bytes) -> None: ...
    def discard(self) -> None: ...
    async def message(self, *arguments: object) -> Reply:
        return OK


def serve_rooms(port: int) -> None:
    """The SMTP rooms alone, without policy, storage, limits or records, in this process, until it is killed."""
    session = SmtpClientSession("bench", "smtp", "127.0.0.1", 0, is_trusted=True)

    def on_connection(connection: socket.socket, peer: tuple[str, int]) -> None:
        def protocol() -> SmtpServer:
            return SmtpServer(Agree(), session, ServerSettings("rooms.test"))  # type: ignore[arg-type]

        loop = asyncio.get_running_loop()
        tasks.add(loop.create_task(loop.connect_accepted_socket(protocol, connection)))
        while len(tasks) > 1000:
            tasks.pop()

    tasks: set[asyncio.Task[object]] = set()

    async def serve() -> None:
        Acceptor(bind(f"127.0.0.1:{port}"), on_connection)
        await asyncio.Event().wait()

    uvloop.run(serve())


# --- a 10 kB message ----------------------------------------------------------------------------------------------


def small_messages(folder: Path, load: Path, rounds: int, messages: int, sessions: int) -> dict[str, float]:
    """CPU in ms a message: of the SMTP workers (one more role answers /readyz), of the rooms alone, of aiosmtpd."""
    with ExitStack() as stack:
        settings = gateway_settings(gateway={"workers": 2})
        gateway = stack.enter_context(Gateway(folder / "small", settings=settings, roles="smtp,admin"))
        others = []
        for name, option in (("rooms", "--serve-rooms"), ("aiosmtpd", "--serve-stock")):
            port = free_port()
            argv = [sys.executable, "-m", "bench.receive_cost", option, str(port)]
            daemon = Daemon(argv, cwd=REPOSITORY, log=folder / f"{name}.log", ready_port=("127.0.0.1", port))
            others.append((name, port, [stack.enter_context(daemon).pid]))
        workers = [pid for name, pid in gateway.role_pids().items() if name.startswith("smtp-")]
        sides = [("smarthost", gateway.ports["smtp"], workers), *others]
        found: dict[str, list[float]] = {name: [] for name, _, _ in sides}
        for number in range(rounds + 1):  # round 0 warms up
            for name, to_port, pids in sides if number % 2 else sides[::-1]:
                count = messages if number else 200
                before = [process_cpu([pid]) for pid in pids]
                result = run_load(load, to_port, count, sessions, b=MESSAGE_SIZE, t="user%d@remote.test")
                time.sleep(SETTLE_S)
                each = [process_cpu([pid]) - was for pid, was in zip(pids, before, strict=True)]
                cost = sum(each) / count * 1000
                if number:
                    found[name].append(cost)
                    _show_small(name, number, result, cost, each)
        return {name: median(costs) for name, costs in found.items()}


def _show_small(name: str, number: int, result: Load, cost: float, each: list[float]) -> None:
    show(
        {"system": name, "round": number, "cpu_ms_a_message": cost, "accept": result.rate, "p50_ms": result.p50_ms}
        | {"cpu_s_by_process": [round(seconds, 2) for seconds in each]}
        | {"errors": result.errors, "first_error": result.first_error}
    )


# --- a 30 MB message ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Probe:
    """Another session, which says EHLO again and again and notes how long each answer took."""

    port: int
    waits: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30.0)

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20.0) as connection:
            connection.recv(4096)
            while not self._stop.wait(PROBE_PAUSE_S):
                started = time.perf_counter()
                connection.sendall(b"EHLO probe.test\r\n")
                answer = b""
                while not answer.rpartition(b"\r\n250 ")[1]:
                    octets = connection.recv(4096)
                    if not octets:
                        raise ConnectionError(f"the probe was cut off: {answer!r}")
                    answer += octets
                self.waits.append((time.perf_counter() - started) * 1000)


def large_message(folder: Path, load: Path, rounds: int) -> dict[str, float]:
    """One worker, so that the probe's session is in the process that receives. CPU and memory of all roles."""
    with ExitStack() as stack:
        sink = stack.enter_context(Sink("127.0.0.1", free_port()))
        settings = gateway_settings(
            gateway={"workers": 1}, **{"routes.default": {"host": f"smtp:127.0.0.1:{sink.port}"}}
        )
        gateway = stack.enter_context(Gateway(folder / "large", settings=settings))
        roles = gateway.role_pids()
        run_load(load, gateway.ports["smtp"], 20, 2, b=MESSAGE_SIZE)
        sink.wait(20, 30.0)
        found: list[dict[str, float]] = []
        for number in range(1, rounds + 1):
            quiet_before = process_cpu(roles.values())
            with Probe(gateway.ports["smtp"]) as quiet:
                time.sleep(SETTLE_S)
            an_ehlo = (process_cpu(roles.values()) - quiet_before) / len(quiet.waits)
            at_start = reset_peaks(roles.values())
            before = {name: process_cpu([pid]) for name, pid in roles.items()}
            with Probe(gateway.ports["smtp"]) as probe:
                result = run_load(load, gateway.ports["smtp"], 1, 1, b=LARGE)
                sink.wait(20 + number, 60.0)
            probing = an_ehlo * len(probe.waits)
            cpu = {name: process_cpu([pid]) - before[name] for name, pid in roles.items()}
            highest = peaks(roles.values())
            extra = {name: (highest[pid] - at_start[pid]) / MIB for name, pid in roles.items()}
            found.append(
                {
                    "cpu_s": sum(cpu.values()) - probing,
                    "extra_mib": sum(extra.values()),
                    "longest_ehlo_ms": max(probe.waits),
                    "longest_ehlo_quiet_ms": max(quiet.waits),
                }
            )
            show(
                {"round": number, **found[-1], "seconds": result.seconds, "errors": result.errors}
                | {f"cpu_s_{name}": seconds for name, seconds in cpu.items() if seconds >= 0.001}
                | {f"extra_mib_{name}": mib for name, mib in extra.items() if mib >= 0.1}
                | {"ehlos": len(probe.waits), "cpu_s_of_ehlos": probing}
            )
        worst = {f"worst_{name}": max(record[name] for record in found) for name in found[0]}
        return {name: median(record[name] for record in found) for name in found[0]} | worst


def idle_memory(folder: Path) -> float:
    with Gateway(folder / "idle", settings=gateway_settings(gateway={"workers": 2})) as gateway:
        time.sleep(2 * SETTLE_S)
        return tree_memory(gateway.pid)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.receive_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--messages", type=int, default=2000, choices=range(10, 50_001), metavar="10..50000")
    parser.add_argument("--sessions", type=int, default=10, choices=range(1, 257), metavar="1..256")
    parser.add_argument("--serve-stock", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve-rooms", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve_stock:
        serve_stock(options.serve_stock)
        return 0
    if options.serve_rooms:
        serve_rooms(options.serve_rooms)
        return 0
    reason = missing("cc") or sink_missing()
    if reason is not None:
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything started is stopped and removed
    with work_folder() as folder:
        load = build("load", folder)
        idle = idle_memory(folder)
        small = small_messages(folder, load, options.rounds, options.messages, options.sessions)
        large = large_message(folder, load, options.rounds)
    print("\n| | median of the rounds | worst |\n|---|---|---|")
    print(f"| 10 kB, new connection: CPU of the SMTP rooms alone, ms a message | {small['rooms']:.2f} | |")
    print(f"| the same of stock aiosmtpd on asyncio, which also throws it away | {small['aiosmtpd']:.2f} | |")
    print(f"| the same of the SMTP workers, judged, recorded and stored durably | {small['smarthost']:.2f} | |")
    for key, title in (
        ("cpu_s", "30 MB in and out: CPU of all roles, s"),
        ("extra_mib", "30 MB in and out: extra memory of all roles, MiB"),
        ("longest_ehlo_ms", "30 MB: longest wait of another session's EHLO, ms"),
        ("longest_ehlo_quiet_ms", "the same with no message about, ms"),
    ):
        print(f"| {title} | {large[key]:.2f} | {large[f'worst_{key}']:.2f} |")
    print(f"| idle, all roles, two workers: proportional memory, MiB | {idle:.0f} | |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
