"""A gateway among remote mail hosts: one name server, one port, a loopback address for each host."""

import email
import email.policy
import itertools
import json
import smtplib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

from gateway.defaults import write_certificate
from gateway.demo.nameserver import NameServer

from .gateway import Gateway
from .process import free_port, temporary_folder, wait_until
from .tlssink import TlsSink

USERS = tuple(f"user{number}@example.org" for number in range(80))


class Remote:
    """`sink()` makes a host with a domain of its own; `user()` a local address that nobody else has used."""

    def __init__(self, folder: Path, dns: NameServer) -> None:
        self.folder, self.dns, self.port = folder, dns, free_port()
        self._numbers = itertools.count(1)
        self._users = iter(USERS)
        self.certificate, self.key = make_certificate(folder / "remote-tls", "mx.remote.test")
        self.settings: dict[str, dict[str, object]] = {
            "dns": {"servers": [dns.address]},
            "delivery": {"port": self.port},
        }

    def user(self) -> str:
        return next(self._users)

    def place(self) -> tuple[str, str]:
        """A new domain and the address that its only MX has."""
        number = next(self._numbers)
        domain, address = f"d{number}.test", f"127.0.1.{number}"
        self.dns.add(f"{domain} MX 10 mx.{domain}.", f"mx.{domain} A {address}")
        return domain, address

    def sink(self, address: str, **options: object) -> TlsSink:
        return TlsSink(host=address, port=self.port, certificate=self.certificate, key=self.key, **options)  # type: ignore[arg-type]


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a name, and its key; all may read the certificate."""
    write_certificate(folder, name)
    folder.chmod(0o755)
    (folder / "cert.pem").chmod(0o644)
    return folder / "cert.pem", folder / "key.pem"


@contextmanager
def remote_world() -> Iterator[Remote]:
    """In a folder of its own, open to the gateway's user."""
    with temporary_folder() as folder, NameServer() as dns:
        yield Remote(folder, dns)


def send(
    gateway: Gateway,
    sender: str,
    recipients: Mapping[str, Sequence[str]] | Sequence[str],
    message: bytes,
    options: Sequence[str] = (),
) -> str:
    """Hand over a message with ESMTP parameters, all recipients taken; returns the queue id."""
    wanted = recipients if isinstance(recipients, Mapping) else dict.fromkeys(recipients, ())
    client = gateway.smtp()
    try:
        code, text = client.mail(sender, list(options))
        assert code == 250, text
        for recipient, parameters in wanted.items():
            code, text = client.rcpt(recipient, list(parameters))
            assert code == 250, text
        code, text = client.data(message)
        assert code == 250, text
        return text.decode().split()[-1]
    finally:
        client.close()


def try_rcpt(gateway: Gateway, recipient: str) -> tuple[int, bytes]:
    client: smtplib.SMTP = gateway.smtp()
    try:
        client.mail("someone@elsewhere.test")
        return client.rcpt(recipient)
    finally:
        client.close()


def rows(gateway: Gateway, *filters: str) -> list[dict[str, object]]:
    """What `queue list` shows with these filters."""
    found: list[dict[str, object]] = json.loads(gateway.cli("queue", "list", "--json", *filters).expect().stdout)
    return found


def _look(gateway: Gateway, sql: str, *values: object) -> list[tuple[object, ...]]:
    """Read the queue's database: a command line for each look costs half a second on a busy machine."""
    connection = sqlite3.connect(f"file:{gateway.data / 'queue.db'}?mode=ro", uri=True, timeout=10.0)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def wait_row(gateway: Gateway, recipient: str, timeout: float = 15.0) -> dict[str, object]:
    """The row of a recipient that was tried at least once and waits."""
    sql = "SELECT last_reply, attempts FROM recipient WHERE forward_path = ? AND state = 0 AND attempts > 0"
    found = wait_until(
        lambda: _look(gateway, sql, recipient), timeout, f"{recipient} to wait for another attempt", interval=0.05
    )
    return {"last_reply": found[0][0], "attempts": found[0][1]}


def wait_gone(gateway: Gateway, queue_id: str, timeout: float = 15.0) -> None:
    """Until nothing is left of a message in the queue."""
    sql = "SELECT 1 FROM message WHERE queue_id = ?"
    wait_until(lambda: not _look(gateway, sql, queue_id), timeout, f"{queue_id} to leave the queue", interval=0.05)


class Report:
    """A delivery status notification as the email package reads it."""

    def __init__(self, stored: bytes) -> None:
        self.whole = email.message_from_bytes(stored, policy=email.policy.default)
        assert self.whole.get_content_type() == "multipart/report", stored[:500]
        assert self.whole.get_param("report-type") == "delivery-status"
        assert not self.whole.defects
        text, status, self.returned = self.whole.iter_parts()
        assert text.get_content_type() == "text/plain"
        self.text = text.get_content()
        assert status.get_content_type() == "message/delivery-status"
        blocks = status.get_payload()
        assert isinstance(blocks, list)
        self.about: Message = blocks[0]
        self.recipients: dict[str, Message] = {
            str(block["Final-Recipient"]).partition(";")[2].strip(): block for block in blocks[1:] if block.keys()
        }

    @property
    def action(self) -> str:
        (action,) = {str(block["Action"]) for block in self.recipients.values()}
        return action


def wait_reports(gateway: Gateway, user: str, count: int, timeout: float = 20.0) -> list[Report]:
    """The notifications in a user's mailbox."""
    return [Report(stored) for stored in gateway.wait_mails(user, count, timeout)]
