"""Mail comes from other programs' folders and goes to them; Dovecot and Courier work on the gateway's own."""

import imaplib
import os
import re
import shutil
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import pytest

from tests.support.courier import courier_missing, said_by_courier
from tests.support.dovecot import PASSWORD as DOVECOT_PASSWORD
from tests.support.dovecot import Dovecot, dovecot_missing
from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapwire import client_context
from tests.support.process import wait_until

PIA, QUIN, RIA, SAM = USERS = tuple(f"{name}@example.org" for name in ("pia", "quin", "ria", "sam"))


@pytest.fixture(scope="module")
def gateway(module_folder: Path) -> Iterator[Gateway]:
    with Gateway(module_folder / "gateway", users=USERS) as running:
        yield running


class Seen:
    """A mailbox as an IMAP client sees it: UIDVALIDITY, and by UID flags, date and Subject."""

    def __init__(self, port: int, user: str, password: str, name: str = "INBOX") -> None:
        with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=client_context(), timeout=15) as client:
            client.login(user, password)
            assert client.select(f'"{name}"')[0] == "OK", name
            self.validity = client.response("UIDVALIDITY")[1][0]
            self.messages = {}
            _, data = client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
            for part in data:
                if isinstance(part, tuple):
                    uid = int(re.search(rb"UID (\d+)", part[0])[1])  # type: ignore[index]
                    flags = {flag.decode() for flag in imaplib.ParseFlags(part[0])} - {"\\Recent"}
                    date = imaplib.Internaldate2tuple(part[0])
                    self.messages[uid] = (frozenset(flags), date, part[1].split(b":")[1].strip().decode())


def seen(gateway: Gateway, user: str, name: str = "INBOX") -> Seen:
    return Seen(gateway.ports["imaps"], user, PASSWORD, name)


def message(subject: str) -> bytes:
    return f"From: a@elsewhere.test\nSubject: {subject}\n\nline\n".encode()


def test_a_maildir_is_taken_over(gateway: Gateway, module_folder: Path) -> None:
    source = module_folder / "somebodys-own"  # that only root and its owner may read
    files = {
        "cur/1000.a.host:2,FS": message("flags"),
        "cur/2000.b.host,S=5:2,Sb": message("keyword"),
        "new/3000.c.host": message("new").replace(b"\n", b"\r\n"),
        ".Caf&AOk-.2025/cur/4000.d.host:2,R": message("deep"),
        ".no&way/cur/1.x.host:2,": message("left out"),
    }
    for number, (name, octets) in enumerate(files.items(), 1):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        os.utime(path, (1e9 + number, 1e9 + number))
    for part in ("cur", "new", "tmp"):
        (source / part).mkdir(exist_ok=True)
    (source / "dovecot-keywords").write_text("0 $Forwarded\n1 $Work\n")
    source.chmod(0o700)
    assert gateway.cli("import", "maildir", PIA, str(source)).expect().stdout == "imported 4 messages\n"
    found = seen(gateway, PIA).messages
    assert [(flags, subject) for flags, _, subject in found.values()] == [
        ({"\\Flagged", "\\Seen"}, "flags"), ({"\\Seen", "$Work"}, "keyword"), (set(), "new"),
    ]  # fmt: skip
    assert {date.tm_year for _, date, _ in found.values() if date is not None} == {2001}
    (deep,) = seen(gateway, PIA, "Caf&AOk-/2025").messages.values()
    assert (deep[0], deep[2]) == ({"\\Answered"}, "deep")
    again = gateway.cli("import", "maildir", PIA, str(source)).expect().stdout
    assert again == "imported 0 messages, 4 were there\n"
    assert (source / "cur" / "1000.a.host:2,FS").read_bytes() == files["cur/1000.a.host:2,FS"]
    assert gateway.cli("store", "check", "--deep", PIA).code == 0
    for arguments in (["maildir", PIA, str(module_folder)], ["maildir", "nobody@example.org", str(source)]):
        failed = gateway.cli("import", *arguments)
        assert failed.code == 1
        assert failed.stderr.startswith("smarthost: ")
        assert "Traceback" not in failed.stderr


def test_an_mbox_is_taken_over(gateway: Gateway, module_folder: Path) -> None:
    path = module_folder / "mbox"
    path.write_bytes(
        b"From a@b Mon Jan  6 10:00:00 2003\nSubject: one\nStatus: RO\nX-Status: F\nX-Keywords: $Work, no(atom\n\nx\n"
        b">From here\n\nFrom a@b garbled\nSubject: two\nDate: Tue, 7 Jan 2003 10:00:00 +0000\n\ny\n"
    )
    found = gateway.cli("import", "mbox", PIA, str(path), "--mailbox", "Old/Läden").expect().stdout
    assert found == "imported 2 messages\n"
    one, two = seen(gateway, PIA, "Old/L&AOQ-den").messages.values()
    assert (one[0], one[2]) == ({"\\Seen", "\\Flagged", "$Work"}, "one")
    assert (two[0], two[2]) == (set(), "two")
    assert [(date.tm_year, date.tm_mon) for _, date, _ in (one, two) if date is not None] == [(2003, 1)] * 2
    path.write_bytes(b"no mbox at all")
    assert gateway.cli("import", "mbox", PIA, str(path)).code == 1
    assert gateway.cli("import", "mbox", PIA, str(path), "--mailbox", "../x").code == 2


def fill(gateway: Gateway, user: str) -> None:
    with imaplib.IMAP4_SSL("127.0.0.1", gateway.ports["imaps"], ssl_context=client_context(), timeout=15) as client:
        client.login(user, PASSWORD)
        for number in range(5):
            client.append(
                "INBOX", "(\\Seen $Work)" if number % 2 else "", '"06-Jan-2003 10:00:00 +0000"', message(str(number))
            )
        client.select("INBOX")
        client.store("2", "+FLAGS", "(\\Deleted)")
        client.expunge()
        client.create('"A.b/&AOQ-"')
        client.subscribe('"A.b/&AOQ-"')
        client.append('"A.b/&AOQ-"', "(\\Flagged)", "", message("below"))


@pytest.mark.peers
def test_dovecot_takes_over_what_is_exported_with_its_uids(gateway: Gateway, module_folder: Path) -> None:
    if reason := dovecot_missing():
        pytest.skip(reason)
    fill(gateway, QUIN)
    outside = module_folder / "outside"
    outside.mkdir()
    shutil.chown(outside, "nobody")
    found = gateway.cli("store", "export", QUIN, str(outside / "Maildir")).expect().stdout
    assert found == f"exported 5 messages to {outside / 'Maildir'}\n"
    assert gateway.cli("store", "export", QUIN, str(outside / "Maildir")).code == 1
    with Dovecot(module_folder / "dovecot", {QUIN: outside}) as dovecot:
        for name in ("INBOX", "A.b/&AOQ-"):
            # Maildir++ cannot tell a dot within a name: there it stands escaped.
            there = Seen(dovecot.port, QUIN, DOVECOT_PASSWORD, name.replace("A.b", "A%2Eb"))
            here = seen(gateway, QUIN, name)
            assert (there.validity, there.messages) == (here.validity, here.messages)
        with imaplib.IMAP4_SSL("127.0.0.1", dovecot.port, ssl_context=client_context(), timeout=15) as client:
            client.login(QUIN, DOVECOT_PASSWORD)
            lines = client.lsub()[1]
            assert any(b"A%2Eb/&AOQ-" in line for line in lines if isinstance(line, bytes))
            client.select("INBOX")
            assert client.append("INBOX", "", "", message("next"))[1][0].split()[1:3][-1] == b"6]"


@pytest.mark.peers
def test_dovecot_and_the_gateway_work_on_the_same_folders(gateway: Gateway, module_folder: Path) -> None:
    if reason := dovecot_missing():
        pytest.skip(reason)
    fill(gateway, RIA)
    home = gateway.data / "mail" / "example.org" / "ria"
    with Dovecot(module_folder / "beside", {RIA: home}) as dovecot:
        there = Seen(dovecot.port, RIA, DOVECOT_PASSWORD)
        assert sorted(subject for _, _, subject in there.messages.values()) == ["0", "2", "3", "4"]
        with imaplib.IMAP4_SSL("127.0.0.1", dovecot.port, ssl_context=client_context(), timeout=15) as client:
            client.login(RIA, DOVECOT_PASSWORD)
            said = [
                client.select("INBOX"),
                client.store("1", "+FLAGS", "(\\Flagged)"),
                client.store("2", "+FLAGS", "(\\Deleted)"),
                client.expunge(),
                client.append("INBOX", "(\\Answered)", "", message("by dovecot")),
                client.create("Made/There"),
                client.append("Made/There", "", "", message("elsewhere")),
            ]
            assert [answer for answer, _ in said] == ["OK"] * len(said), (said, dovecot.log())
        wanted = [({"\\Flagged"}, "0"), ({"\\Seen", "$Work"}, "3"), (set(), "4"), ({"\\Answered"}, "by dovecot")]

        def has_come() -> bool:
            found = [(set(flags), subject) for flags, _, subject in seen(gateway, RIA).messages.values()]
            return sorted(found, key=itemgetter(1)) == wanted

        wait_until(has_come, 10, "what Dovecot did")
        with imaplib.IMAP4_SSL("127.0.0.1", gateway.ports["imaps"], ssl_context=client_context(), timeout=15) as client:
            client.login(RIA, PASSWORD)
            assert any(b"Made/There" in line for line in client.list()[1] if isinstance(line, bytes))
            client.select("INBOX")
            client.store("1", "+FLAGS", "(\\Answered)")
        assert [subject for _, _, subject in seen(gateway, RIA, "Made/There").messages.values()] == ["elsewhere"]
        flags = {subject: flags for flags, _, subject in Seen(dovecot.port, RIA, DOVECOT_PASSWORD).messages.values()}
        assert flags["0"] == {"\\Flagged", "\\Answered"}
    assert gateway.cli("store", "check", "--deep", RIA).code == 0


@pytest.mark.peers
def test_courier_and_the_gateway_work_on_the_same_folders(gateway: Gateway) -> None:
    if reason := courier_missing():
        pytest.skip(reason)
    fill(gateway, SAM)
    maildir = gateway.data / "mail" / "example.org" / "sam" / "Maildir"
    text = said_by_courier(
        maildir, "SELECT INBOX", "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])", "STORE 1 +FLAGS (\\Flagged)",
        "STORE 2 +FLAGS (\\Deleted)", "EXPUNGE", 'LIST "" "*"', 'SELECT "INBOX.A%2Eb.&-AOQ-"', "FETCH 1 FLAGS",
    )  # fmt: skip
    assert "* 4 EXISTS" in text
    assert re.findall(r"Subject: (\d)", text) == ["0", "2", "3", "4"]
    assert "INBOX.A%2Eb.&-AOQ-" in text  # it has such names in UTF-8, and shows ours escaped
    assert "* 1 FETCH (FLAGS (\\Flagged" in text
    found = {subject: set(flags) for flags, _, subject in seen(gateway, SAM).messages.values()}
    assert found == {"0": {"\\Flagged"}, "3": {"\\Seen", "$Work"}, "4": set()}
    assert gateway.cli("store", "check", "--deep", SAM).code == 0
