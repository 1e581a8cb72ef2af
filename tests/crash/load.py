"""Clients for crash tests: under load a message has an id and is sent until it gets its 250."""

import re
import smtplib
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from tests.support.gateway import Gateway
from tests.support.process import LOOPBACK

MESSAGES_A_SESSION = 40
LARGE = 100_000  # octets: over the 64 KiB that live in a row
_ID = re.compile(rb"^X-Id: (\S+)\r?$", re.MULTILINE)


def make_message(ident: str, size: int = 0) -> bytes:
    """A CRLF message that is a function of its id and size, so that a changed one is seen."""
    head = f"X-Id: {ident}\r\nFrom: sender@elsewhere.test\r\nTo: someone@example.org\r\nSubject: {ident}\r\n\r\n"
    line = f"{ident} ".encode().ljust(70, b"x") + b"\r\n"
    return head.encode() + line * max(1, size // len(line))


def id_of(octets: bytes) -> str:
    found = _ID.search(octets)
    assert found is not None, octets[:500]
    return found[1].decode()


class Load:
    """Client threads that send without end to the recipients in turn; every tenth message is large."""

    def __init__(self, port: int, recipients: Sequence[str], *, threads: int = 4, pause: float = 0.01) -> None:
        self.accepted: dict[str, str] = {}  # id to recipient
        self.attempts: Counter[str] = Counter()  # sendings whose fate may be unknown
        self.sizes: dict[str, int] = {}
        self.faults: list[str] = []  # permanent refusals and anything unforeseen
        self._port = port
        self._recipients = list(recipients)
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"load-{number}") for number in range(threads)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let each thread finish its message: with a 250, or given up as not accepted."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(30.0)
                assert not thread.is_alive(), f"{thread.name} hangs"

    def _run(self, number: int) -> None:
        client: smtplib.SMTP | None = None
        count = 0
        try:
            while not self._stop.wait(self._pause):
                ident = f"t{number}-{count}"
                recipient = self._recipients[(count + number) % len(self._recipients)]
                self.sizes[ident] = LARGE if count % 10 == 9 else 0
                count += 1
                client = self._send_until_accepted(client, ident, recipient)
                if client is not None and count % MESSAGES_A_SESSION == 0:
                    client.close()
                    client = None
        except Exception as error:
            self.faults.append(repr(error))
        finally:
            if client is not None:
                client.close()

    def _send_until_accepted(self, client: smtplib.SMTP | None, ident: str, recipient: str) -> smtplib.SMTP | None:
        message = make_message(ident, self.sizes[ident])
        while not self._stop.is_set():
            try:
                if client is None:
                    client = smtplib.SMTP(LOOPBACK, self._port, "client.test", timeout=20)
                self.attempts[ident] += 1
                client.sendmail("sender@elsewhere.test", [recipient], message)
            except (OSError, smtplib.SMTPException) as error:
                self._note(ident, error)
                if client is not None:
                    client.close()
                client = None
                self._stop.wait(0.05)
                continue
            self.accepted[ident] = recipient
            return client
        return client

    def _note(self, ident: str, error: Exception) -> None:
        """A permanent reply is a fault; a lost connection or a temporary reply is what a crash may do."""
        codes = [getattr(error, "smtp_code", 0)]
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            codes = [code for code, _ in error.recipients.values()]
        if any(int(code) >= 500 for code in codes):
            self.faults.append(f"{ident}: {error!r}")


def stored(gateway: Gateway, user: str) -> list[bytes]:
    """What the user's index names, read from its files: what POP3 would show. Fails when a file is missing."""
    local, _, domain = user.partition("@")
    folder = gateway.data / "mail" / domain / local
    with closing(sqlite3.connect(f"file:{folder / 'index.db'}?mode=ro", uri=True)) as connection:
        names = [name for (name,) in connection.execute("SELECT file FROM msg ORDER BY uid")]
    return [(folder / "Maildir" / "cur" / name).read_bytes() for name in names]


def spool_files(gateway: Gateway) -> list[Path]:
    return [path for path in (gateway.data / "spool").rglob("*") if path.is_file()]


def queued(gateway: Gateway) -> int:
    """Rows in the queue now, read beside the gateway."""
    with closing(sqlite3.connect(f"file:{gateway.data / 'queue.db'}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM recipient").fetchone()[0])


class RawClient:
    """A plain SMTP client for what smtplib does not do: pausing anywhere, waiting for each reply."""

    def __init__(self, port: int, *, timeout: float = 15.0, greet: bool = True) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=timeout)
        self._buffer = b""
        try:
            if greet:
                assert self.reply().startswith("220"), "no greeting"
                self.command("EHLO client.test", "250")
        except BaseException:
            self.close()
            raise

    def reply(self) -> str:
        """The next whole reply; empty at the end of the connection."""
        while True:
            lines = self._buffer.split(b"\r\n")
            for number, line in enumerate(lines[:-1]):
                if line[3:4] != b"-":
                    self._buffer = b"\r\n".join(lines[number + 1 :])
                    return b"\n".join(lines[: number + 1]).decode()
            octets = self.socket.recv(65536)
            if not octets:
                return ""
            self._buffer += octets

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def command(self, line: str, expected: str = "") -> str:
        self.send(line.encode() + b"\r\n")
        answer = self.reply()
        assert answer.startswith(expected), f"{line}: {answer!r}"
        return answer

    def begin(self, recipient: str, sender: str = "sender@elsewhere.test") -> None:
        """Up to the 354."""
        self.command(f"MAIL FROM:<{sender}>", "250")
        self.command(f"RCPT TO:<{recipient}>", "250")
        self.command("DATA", "354")

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
