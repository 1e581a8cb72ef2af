"""Who is told what: NOTIFY, one DSN an action, never one for a DSN."""

import asyncio
import email

import pytest

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import NULL_REVERSE_PATH, ReversePath, parse_mailbox, path_or_null
from gateway.core.reply import reply
from gateway.core.verdict import Protection
from gateway.message.blob import MemoryBlob
from gateway.message.dsn import Report
from gateway.message.header import parse_header
from gateway.queue.bounce import is_wanted, notices
from gateway.queue.store import NewMessage, QueuedMessage
from gateway.senderauth.dkim import verify_dkim
from gateway.senderauth.signing import SigningKey, new_private_key
from tests.support.fakes import FakeAccounts, FakeResolver

DIRECTORY = AccountDirectory(
    FakeAccounts(["alice@example.org"], {"team@example.org": ("alice@example.org", "x@elsewhere.example")}),
    ["example.org"],
    [],
)
REPORT = Report(parse_mailbox("to@x.example"), "", "failed", reply(550, "5.1.1", "no"))


def made(
    *reports: Report,
    reverse_path: ReversePath | None = None,
    body: bytes = b"A: b\r\n\r\nx\r\n",
    keys: tuple[SigningKey, ...] = (),
) -> tuple[NewMessage, ...]:
    message = QueuedMessage(
        "Q1",
        1000.0,
        2000.0,
        reverse_path or path_or_null("from@b.example"),
        b"",
        MemoryBlob(body),
        0,
        "",
        False,
        "",
        "",
        Protection.ANY,
    )
    return notices(message, reports, DIRECTORY, "mail.example.org", 500.0, 1500.0, keys)


@pytest.mark.parametrize(
    ("action", "notify", "wanted"),
    [
        ("failed", "", True),
        ("delayed", "", True),
        ("delivered", "", False),
        ("relayed", "", False),
        ("failed", "NEVER", False),
        ("delayed", "NEVER", False),
        ("failed", "FAILURE", True),
        ("delayed", "FAILURE", False),
        ("delivered", "SUCCESS", True),
        ("relayed", "SUCCESS FAILURE", True),
        ("failed", "SUCCESS", False),
    ],
)
def test_notify_says_what_is_wanted(action: str, notify: str, wanted: bool) -> None:
    assert is_wanted(action, frozenset(notify.split())) is wanted


def test_a_dsn_goes_from_nobody_to_the_reverse_path() -> None:
    (notice,) = made(REPORT)
    assert notice.reverse_path == NULL_REVERSE_PATH
    assert [str(to.forward_path) for to in notice.recipients] == ["from@b.example"]
    assert (notice.created, notice.expires, notice.offset, notice.header) == (1500.0, 2000.0, 0, b"")
    assert dict(notice.info) == {"of": "Q1", "kind": "dsn failed"}
    assert isinstance(notice.blob, MemoryBlob)
    assert email.message_from_bytes(notice.blob.octets)["Message-ID"] == f"<{notice.queue_id}@mail.example.org>"


def test_no_dsn_for_a_dsn_and_none_without_reports() -> None:
    assert made(REPORT, reverse_path=NULL_REVERSE_PATH) == ()
    assert made() == ()


def test_each_action_has_its_own_dsn_with_all_its_recipients() -> None:
    other = Report(parse_mailbox("b@x.example"), "", "delayed", reply(451, "4.4.1", "later"))
    more = Report(parse_mailbox("c@x.example"), "", "failed", reply(550, "5.1.1", "no"))
    first, second = made(REPORT, other, more)
    assert [notice.info["kind"] for notice in (first, second)] == ["dsn failed", "dsn delayed"]
    assert first.queue_id != second.queue_id
    assert isinstance(first.blob, MemoryBlob)
    assert b"c@x.example" in first.blob.octets
    assert b"b@x.example" not in first.blob.octets


@pytest.mark.parametrize(
    ("sender", "targets"),
    [
        ("team@example.org", ["alice@example.org", "x@elsewhere.example"]),
        ("alice+x@example.org", ["alice+x@example.org"]),
        ("gone@example.org", ["gone@example.org"]),
        ("a@b.example", ["a@b.example"]),
    ],
)
def test_a_local_sender_s_alias_is_expanded(sender: str, targets: list[str]) -> None:
    (notice,) = made(REPORT, reverse_path=path_or_null(sender))
    assert [str(to.forward_path) for to in notice.recipients] == targets


def test_an_8bit_original_is_declared() -> None:
    assert [notice.body for notice in made(REPORT, body=b"A: b\r\n\r\n\xff\r\n")] == ["8BITMIME"]
    assert [notice.body for notice in made(REPORT)] == [""]


def test_it_is_signed_by_this_host_s_domain() -> None:
    """From names this host, and its domain may want unsigned mail rejected (DMARC)."""
    keys = tuple(SigningKey("example.org", kind, new_private_key(kind)) for kind in ("rsa", "ed25519"))
    (notice,) = made(REPORT, body=b"A: b\r\n\r\n" + "Grüße  \r\n".encode() * 50, keys=keys)
    message = notice.header + notice.blob.head(notice.blob.size)
    resolver = FakeResolver(*(f"{key.selector}._domainkey.example.org TXT {key.record}" for key in keys))
    found = asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), resolver))
    assert [(each.result, each.domain) for each in found] == [("pass", "example.org")] * 2
