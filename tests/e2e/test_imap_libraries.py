"""IMAP with Python's libraries: imaplib and IMAPClient, each doing all that a mail program does."""

import imaplib
import ssl
from collections.abc import Callable, Iterator

import pytest
from imapclient import IMAPClient

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapmailbox import Mailbox, gateway_named_localhost, message
from tests.support.process import wait_until

USERS = ("imaplib@example.org", "imapclient@example.org")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with gateway_named_localhost(USERS) as running:
        yield running


def context(gateway: Gateway) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(gateway.folder / "tls" / "cert.pem"))


@pytest.mark.shows("imaplib", "read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
def test_imaplib_does_it_all(gateway: Gateway, shows: Callable[[str], None]) -> None:
    user = USERS[0]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        client = imaplib.IMAP4("localhost", gateway.ports["imap"], timeout=30)
        client.starttls(context(gateway))
        client.login(user, PASSWORD)
        assert client.select() == ("OK", [b"6"])
        assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == message(0)  # type: ignore[index]
        shows("read")
        client.store("1", "+FLAGS", r"(\Flagged Urgent)")
        assert mailbox.flags()[0] == {"\\Flagged", "Urgent"}
        shows("flag")
        assert client.search(None, "SUBJECT", '"number 3"') == ("OK", [b"4"])
        assert client.uid("SEARCH", "TEXT", '"Text 5"') == ("OK", [b"6"])
        shows("search")
        assert client.uid("MOVE", "5", "Archive")[0] == "OK"
        assert set(mailbox.flags("Archive")) == {4}
        assert set(mailbox.flags()) == {0, 1, 2, 3, 5}
        shows("move")
        client.uid("STORE", "2", "+FLAGS", r"(\Deleted)")
        assert client.expunge() == ("OK", [b"5", b"2"])  # what MOVE told comes first
        assert set(mailbox.flags()) == {0, 2, 3, 5}
        shows("delete")
        assert client.append("Sent", r"(\Seen)", "", message(7))[0] == "OK"
        assert mailbox.flags("Sent") == {7: {"\\Seen"}}
        shows("append")
        assert client.create('"My things/Bills"')[0] == "OK"
        assert {"My things", "My things/Bills"} <= mailbox.names()
        shows("make mailbox")
        gateway.send(user, message(8))
        wait_until(
            lambda: client.noop()[0] == "OK" and client.response("EXISTS")[1] == [b"5"], 20, "EXISTS", interval=0.1
        )
        assert client.fetch("5", "(BODY.PEEK[TEXT])")[1][0][1] == b"Text 8\r\n"  # type: ignore[index]
        shows("new mail")
        assert client.close()[0] == "OK"
        assert client.logout()[0] == "BYE"


@pytest.mark.shows("IMAPClient", "read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
def test_imapclient_does_it_all(gateway: Gateway, shows: Callable[[str], None]) -> None:
    user = USERS[1]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        with IMAPClient("localhost", gateway.ports["imaps"], ssl_context=context(gateway), timeout=30) as client:
            client.login(user, PASSWORD)
            assert client.select_folder("INBOX")[b"EXISTS"] == 6
            assert client.find_special_folder(b"\\Sent") == "Sent"
            found = client.fetch([1], ["BODY.PEEK[]", "ENVELOPE", "INTERNALDATE"])[1]
            assert found[b"BODY[]"] == message(0)
            assert found[b"ENVELOPE"].subject == b"number 0"
            shows("read")
            client.add_flags([1], [b"\\Flagged", b"Urgent"])
            assert mailbox.flags()[0] == {"\\Flagged", "Urgent"}
            shows("flag")
            assert client.search(["SUBJECT", "number 3"]) == [4]
            assert client.search(["TEXT", "Text 5", "NOT", "FLAGGED"], charset="UTF-8") == [6]
            shows("search")
            client.move([5], "Archive")
            assert set(mailbox.flags("Archive")) == {4}
            assert set(mailbox.flags()) == {0, 1, 2, 3, 5}
            shows("move")
            client.delete_messages([2])
            client.expunge([2])
            assert set(mailbox.flags()) == {0, 2, 3, 5}
            shows("delete")
            client.append("Sent", message(7), [b"\\Seen"])
            assert mailbox.flags("Sent") == {7: {"\\Seen"}}
            shows("append")
            client.create_folder("Ablage/Müll")
            assert {"Ablage", "Ablage/M&APw-ll"} <= mailbox.names()
            assert client.folder_exists("Ablage/Müll")
            shows("make mailbox")
            client.noop()
            client.idle()
            gateway.send(user, message(8))
            wait_until(lambda: (5, b"EXISTS") in client.idle_check(timeout=1), 20, "EXISTS in IDLE")
            client.idle_done()
            (newest,) = client.search(["SUBJECT", "number 8"])
            assert client.fetch([newest], ["BODY.PEEK[TEXT]"])[newest][b"BODY[TEXT]"] == b"Text 8\r\n"
            shows("new mail")
