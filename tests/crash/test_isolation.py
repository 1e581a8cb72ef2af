"""One that is down holds up nobody else: a black-hole host, a worker killed over and over, a stopped worker."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.crash.load import RawClient, make_message, queued
from tests.support.gateway import Gateway
from tests.support.peers import SmtpSink, sink_missing
from tests.support.process import LOOPBACK, wait_until

HOLE = "127.0.0.66"  # the same port as the good sink, another address
MESSAGES = 1000
PROBING_S = 5.5  # for so long mail goes to a mailbox and to the good host; the black hole's mail comes round in it
PROMPT_S = 1.0


@contextmanager
def _full_backlog(port: int) -> Iterator[None]:
    """A listener that is never accepted from and has no room left: the kernel drops each SYN."""
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.socket()))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOLE, port))
        listening.listen(0)
        for _ in range(8):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect((HOLE, port))

        def is_full() -> bool:
            try:
                with closing(socket.create_connection((HOLE, port), timeout=0.3)):
                    return False
            except TimeoutError:
                return True

        wait_until(is_full, 10, "a full backlog")
        yield


@contextmanager
def _no_greeting(port: int) -> Iterator[None]:
    """A listener whose connections are made (by the kernel) and never get a word."""
    with closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOLE, port))
        listening.listen(4096)
        yield


def _fill(gateway: Gateway, recipients: list[str]) -> None:
    """One small message to each recipient, over two pipelined sessions."""
    faults: list[str] = []

    def run(part: list[str]) -> None:
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            for number, recipient in enumerate(part):
                client.send(f"MAIL FROM:<sender@elsewhere.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
                codes = [client.reply()[:3] for _ in range(3)]
                client.send(make_message(f"fill-{number}") + b".\r\n")
                codes.append(client.reply()[:3])
                if codes != ["250", "250", "354", "250"]:
                    faults.append(f"{recipient}: {codes}")
                    return

    threads = [threading.Thread(target=run, args=(recipients[number::2],)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


@pytest.mark.peers
@pytest.mark.skipif(sink_missing() is not None, reason=str(sink_missing()))
@pytest.mark.parametrize("domains", [1, 200], ids=["one domain", "200 domains of one host"])
@pytest.mark.parametrize("hole", [_full_backlog, _no_greeting], ids=["never accepts", "never greets"])
def test_a_thousand_messages_to_a_black_hole_delay_no_other_mail(
    make_gateway: Callable[..., Gateway], tmp_path: Path, hole: Callable[[int], Iterator[None]], domains: int
) -> None:
    names = [f"hole{number}.test" for number in range(domains)]
    records = [
        *(f"{name} MX 10 mx.hole.test." for name in names),
        f"mx.hole.test A {HOLE}",
        "good.test MX 10 mx.good.test.",
        f"mx.good.test A {LOOPBACK}",
    ]
    with (
        SmtpSink(tmp_path) as sink,
        NameServer(records) as dns,
        hole(sink.port),
    ):
        settings = {
            "dns": {"servers": [dns.address]},
            "delivery": {"port": sink.port},
            "limits": {"messages": 100_000, "commands": 100_000},
        }
        gateway = make_gateway(settings=settings).start()
        try:
            _fill(gateway, [f"user{number}@{names[number % domains]}" for number in range(MESSAGES)])
            late: list[str] = []
            number, until = 0, time.monotonic() + PROBING_S
            while time.monotonic() < until:
                gateway.send("alice@example.org", make_message(f"local-{number}"))
                begun = time.monotonic()
                gateway.wait_mails("alice@example.org", number + 1)
                local_s = time.monotonic() - begun
                gateway.send("someone@good.test", make_message(f"good-{number}"))
                begun = time.monotonic()
                sink.wait_messages(number + 1, 20)
                remote_s = time.monotonic() - begun
                late += [
                    f"{kind} {number}: {seconds:.2f} s"
                    for kind, seconds in (("local", local_s), ("remote", remote_s))
                    if seconds > PROMPT_S
                ]
                number += 1
            assert late == []
            assert number > 5
            assert queued(gateway) == MESSAGES
        finally:
            gateway.kill()  # a drain would wait for the black hole


class _Greetings:
    """Clients that connect without end and note how long each greeting took; lost: connections closed without one."""

    def __init__(self, port: int, threads: int = 3) -> None:
        self.waits: list[float] = []
        self.lost = 0
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            begun = time.monotonic()
            try:
                with RawClient(self._port, timeout=10, greet=False) as client:
                    is_greeted = client.reply().startswith("220")
            except TimeoutError:
                self.waits.append(10.0)
                continue
            except OSError:
                is_greeted = False
            if is_greeted:
                self.waits.append(time.monotonic() - begun)
            else:
                self.lost += 1

    def __enter__(self) -> "_Greetings":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)


def test_a_worker_that_is_killed_again_and_again_delays_no_greeting(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway() as gateway:
        wait_until(lambda: {"smtp-0", "smtp-1"} <= set(gateway.role_pids()), 10, "both workers")
        kept = gateway.role_pids()["smtp-1"]
        killed = 0
        with _Greetings(gateway.ports["smtp"]) as greetings:
            deadline = time.monotonic() + 3.0
            while time.monotonic() < deadline:
                pid = gateway.role_pids().get("smtp-0")
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
        assert killed >= 3
        assert len(greetings.waits) > 100
        assert max(greetings.waits) < PROMPT_S
        # A connection dies with the worker that had accepted it, and only then.
        assert greetings.lost <= killed * 3
        assert gateway.role_pids()["smtp-1"] == kept


def test_a_stopped_worker_delays_no_greeting(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway() as gateway:
        wait_until(lambda: {"smtp-0", "smtp-1"} <= set(gateway.role_pids()), 10, "both workers")
        for role in ("smtp-0", "smtp-1"):
            pid = gateway.role_pids()[role]
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda pid=pid: _state(pid) == "T", 5, f"{role} to be stopped")
                with _Greetings(gateway.ports["smtp"]) as greetings:
                    wait_until(lambda found=greetings: len(found.waits) > 100, 20, "a hundred greetings")
            finally:
                os.kill(pid, signal.SIGCONT)
            assert greetings.lost == 0
            assert max(greetings.waits) < PROMPT_S
        assert gateway.send("alice@example.org", make_message("after")) == {}
        gateway.wait_mails("alice@example.org", 1)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
