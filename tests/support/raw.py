"""A raw-socket SMTP client for tests, and the steering of connections to one worker; every wait has a deadline."""

import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.storage.sqlite_trace import SqliteTrace
from tests.support.gateway import PASSWORD, Gateway
from tests.support.process import DeadlineError, temporary_folder, wait_until

DEADLINE_S = 10.0
_ID = re.compile(r" \[([0-9A-HJKMNP-TV-Z]{16})\]$")


@dataclass(frozen=True, slots=True)
class RawReply:
    """One whole reply; lines are without their code."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def id(self) -> str:
        """The decision id at its end; a failure when there is none."""
        match = _ID.search(self.lines[-1])
        assert match is not None, f"no [ID] at the end of {self}"
        return match[1]


class RawClient:
    """One connection. `before` goes out before anything else (a PROXY header); tls: implicit TLS."""

    def __init__(
        self, port: int, *, source: str = "127.0.0.1", before: bytes = b"", tls: bool = False, greet: bool = True
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S, source_address=(source, 0))
        self._input = b""
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if before:
                self.send(before)
            if tls:
                self.wrap()
            self.greeting = self.reply() if greet else RawReply(0, ("",))
        except BaseException:
            self.socket.close()
            raise

    def send(self, octets: bytes) -> None:
        self.socket.settimeout(DEADLINE_S)
        self.socket.sendall(octets)

    def try_send(self, octets: bytes) -> None:
        """Send to a peer that may have closed: a reset is no failure."""
        try:
            self.send(octets)
        except (ConnectionError, ssl.SSLError):
            return

    def line(self, text: str | bytes) -> RawReply:
        """Send one command and return its reply."""
        octets = text if isinstance(text, bytes) else text.encode()
        self.send(octets + b"\r\n")
        return self.reply()

    def reply(self, timeout: float = DEADLINE_S) -> RawReply:
        deadline = time.monotonic() + timeout
        lines: list[str] = []
        while True:
            line = self._read_line(deadline)
            assert re.match(rb"[2-5][0-9][0-9][ -]", line), f"no reply line: {line!r}"
            lines.append(line[4:].decode("ascii"))
            if line[3:4] == b" ":
                return RawReply(int(line[:3]), tuple(lines))

    def replies(self, count: int) -> list[RawReply]:
        return [self.reply() for _ in range(count)]

    def codes(self, count: int) -> list[int]:
        return [answer.code for answer in self.replies(count)]

    def rest(self, timeout: float = DEADLINE_S) -> bytes:
        """All octets until the server closes; a failure when it does not in time."""
        deadline = time.monotonic() + timeout
        while True:
            octets = self._receive(deadline)
            if not octets:
                found, self._input = self._input, b""
                return found
            self._input += octets

    def is_silent(self, seconds: float) -> bool:
        """Does the server say nothing, and not close, for that long?"""
        if self._input:
            return False
        try:
            octets = self._receive(time.monotonic() + seconds)
        except DeadlineError:
            return True
        self._input += octets
        return False

    def _read_line(self, deadline: float) -> bytes:
        while b"\r\n" not in self._input:
            octets = self._receive(deadline)
            if not octets:
                raise EOFError(f"the server closed; before that it said {self._input!r}")
            self._input += octets
        line, _, self._input = self._input.partition(b"\r\n")
        return line

    def _receive(self, deadline: float) -> bytes:
        self.socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            return self.socket.recv(65536)
        except TimeoutError:
            raise DeadlineError(f"no octet from the server in time; so far {self._input!r}") from None
        except (ConnectionError, ssl.SSLError):
            return b""

    def ehlo(self, name: str = "client.test") -> RawReply:
        answer = self.line(f"EHLO {name}")
        assert answer.code == 250, answer
        return answer

    def extensions(self) -> dict[str, str]:
        """What EHLO offers: keyword to its arguments."""
        return {line.partition(" ")[0]: line.partition(" ")[2] for line in self.ehlo().lines[1:]}

    def wrap(self) -> None:
        """The TLS handshake, without a look at the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket.settimeout(DEADLINE_S)
        self.socket = context.wrap_socket(self.socket)

    def starttls(self) -> None:
        answer = self.line("STARTTLS")
        assert answer.code == 220, answer
        self.wrap()

    def login(self, user: str = "alice@example.org", password: str = PASSWORD) -> RawReply:
        return self.line(b"AUTH PLAIN " + plain(user, password))

    def envelope(self, *recipients: str, sender: str = "sender@elsewhere.test") -> None:
        """MAIL and RCPT of a transaction, all of which must be accepted."""
        commands = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{to}>" for to in recipients or ("alice@example.org",))]
        for command in commands:
            answer = self.line(command)
            assert answer.code == 250, f"{command}: {answer}"

    def begin_data(self, *recipients: str, sender: str = "sender@elsewhere.test") -> None:
        self.envelope(*recipients, sender=sender)
        answer = self.line("DATA")
        assert answer.code == 354, answer

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def plain(user: str, password: str = PASSWORD) -> bytes:
    """The response of SASL PLAIN in base64."""
    return b64encode(f"\0{user}\0{password}".encode())


def message(marker: str, body: bytes = b"A line.\r\n") -> bytes:
    return f"From: sender@elsewhere.test\r\nTo: alice@example.org\r\nSubject: {marker}\r\n\r\n".encode() + body


def send_whole(gateway: Gateway, marker: str, *, source: str = "127.0.0.1", user: str = "alice@example.org") -> None:
    """A faultless message, waited for until it is stored."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo()
        client.begin_data(user)
        client.send(message(marker) + b".\r\n")
        answer = client.reply()
        assert answer.code == 250, answer
    wait_stored(gateway, marker, user)


def stored(gateway: Gateway, marker: str, user: str = "alice@example.org") -> list[bytes]:
    """The stored messages that have the marker anywhere."""
    return [mail for mail in gateway.mails(user) if marker.encode() in mail]


def wait_stored(gateway: Gateway, marker: str, user: str = "alice@example.org") -> bytes:
    """The stored message of this subject, waited for."""
    subject = f"Subject: {marker}\r\n"
    return wait_until(lambda: stored(gateway, subject, user), 15.0, f"a stored message with {marker}")[0]


def spool_files(gateway: Gateway) -> list[Path]:
    return list((gateway.data / "spool" / "tmp").iterdir())


def queued(gateway: Gateway, marker: str) -> int:
    """How many messages in the queue have the marker in their header."""
    with closing(sqlite3.connect(f"file:{gateway.data / 'queue.db'}?mode=ro", uri=True)) as queue:
        query = "SELECT count(*) FROM message WHERE instr(CAST(header AS TEXT), ?)"
        return int(queue.execute(query, [marker]).fetchone()[0])


def traced(gateway: Gateway, answer: RawReply) -> dict[str, object]:
    """The transaction that a refusal belongs to, by what `smarthost trace ID` looks it up with."""

    def find() -> dict[str, object] | None:
        trace = SqliteTrace(gateway.data / "trace.db")
        try:
            found = [event.data for event in trace.find(answer.id) if answer.id in json.dumps(event.data)]
        finally:
            trace.close()
        return found[0] if found else None

    return wait_until(find, 5.0, f"the trace of {answer}")  # type: ignore[return-value]


def trace_command(gateway: Gateway, answer: RawReply) -> str:
    """What `smarthost trace ID` prints of a refusal."""
    traced(gateway, answer)
    printed = gateway.cli("trace", answer.id).expect().stdout
    assert answer.id in printed
    return printed


@contextmanager
def temporary_gateway(**options: object) -> Iterator[Gateway]:
    """A running gateway for a fixture of module scope."""
    with temporary_folder() as folder, Gateway(folder / "gateway", **options) as gateway:  # type: ignore[arg-type]
        yield gateway


@contextmanager
def only_worker(gateway: Gateway, name: str) -> Iterator[None]:
    """While this holds, new connections reach the worker `name` only: the others are stopped, with no lock in hand."""
    others = [pid for role, pid in gateway.role_pids().items() if role.startswith("smtp-") and role != name]
    with ExitStack() as stack:
        for pid in others:
            stack.callback(os.kill, pid, signal.SIGCONT)
            wait_until(lambda pid=pid: _stop_without_lock(pid), 5.0, f"{pid} to stop")  # type: ignore[misc]
        yield


def _stop_without_lock(pid: int) -> bool:
    """A process stopped with a record lock in hand would hold up the others: it is let go on."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _state(pid) == "T", 5.0, f"{pid} to stop")
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    if not any(words[3] == "WRITE" and words[4] == str(pid) for words in locks if "->" not in words):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


WORKERS = ("smtp-0", "smtp-1")
