"""A gateway for IMAP clients, messages with numbers, and what is in a user's mailboxes by Python's own client."""

import contextlib
import imaplib
import random
import ssl
from collections.abc import Iterator, Sequence

from gateway.defaults import write_certificate
from tests.support.gateway import PASSWORD, Gateway
from tests.support.process import temporary_folder, wait_until


@contextlib.contextmanager
def gateway_named_localhost(users: Sequence[str]) -> Iterator[Gateway]:
    """Runs with a certificate for `localhost`, since clients look at the name."""
    with temporary_folder() as folder:
        gateway = Gateway(folder / "gateway", users=users)
        for path in (gateway.folder / "tls").iterdir():
            path.unlink()
        write_certificate(gateway.folder / "tls", "localhost")
        with gateway as running:
            yield running


def message(number: int) -> bytes:
    return (
        f"From: sender@elsewhere.test\r\nTo: x@example.org\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@elsewhere.test>\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\n\r\nText {number}\r\n"
    ).encode()


def number_of(octets: bytes) -> int:
    """Of a message: the one in its subject."""
    (line,) = (line for line in octets.splitlines() if line.startswith(b"Subject:"))
    return int(line.split()[-1])


class Mailbox:
    """What is in the gateway, seen from outside of the client under test."""

    def __init__(self, gateway: Gateway, user: str) -> None:
        self.client = imaplib.IMAP4_SSL(
            "127.0.0.1", gateway.ports["imaps"], ssl_context=ssl._create_unverified_context(), timeout=30
        )
        self.client.login(user, PASSWORD)

    def __enter__(self) -> "Mailbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.logout()

    def fill(self, numbers: range, name: str = "INBOX", flags: str = "") -> None:
        for number in numbers:
            assert self.client.append(name, flags, "", message(number))[0] == "OK"

    def names(self) -> set[str]:
        """Of all mailboxes of the user."""
        return {
            line.split(b' "/" ')[1].strip(b'"').decode() for line in self.client.list()[1] if isinstance(line, bytes)
        }

    def flags(self, name: str = "INBOX") -> dict[int, frozenset[str]]:
        """By the number in the subject."""
        self.client.select(name)
        found = {}
        _, data = self.client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        for part in data:
            if isinstance(part, tuple):
                number = int(part[1].split()[-1])
                assert number not in found, "twice"
                found[number] = frozenset(flag.decode() for flag in imaplib.ParseFlags(part[0])) - {"\\Recent"}
        return found

    def wait_for(self, numbers: set[int], name: str = "INBOX") -> None:
        """Until these and no others are in the mailbox."""
        wait_until(lambda: set(self.flags(name)) == numbers, 20, f"{sorted(numbers)} in {name}", interval=0.1)

    def wait_flag(self, number: int, flag: str) -> None:
        wait_until(lambda: flag in self.flags()[number], 20, f"{flag} at {number}", interval=0.1)

    def change(self, chance: random.Random, first_new: int) -> None:
        """Some flags, some removed, some new."""
        numbers = list(self.flags())
        places = [str(numbers.index(number) + 1) for number in chance.sample(numbers, max(1, len(numbers) // 10))]
        half = len(places) // 2
        self.client.store(",".join(places[:half] or places), "+FLAGS", "(\\Flagged)")
        self.client.store(",".join(places[half:]), "+FLAGS", "(\\Deleted)")
        self.client.expunge()
        self.fill(range(first_new, first_new + 5), flags="\\Seen")
