"""IMAP with its real clients: mbsync, offlineimap, mutt, fetchmail, curl, imaplib."""

import imaplib
import os
import random
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.defaults import write_certificate
from tests.support.gateway import PASSWORD, Gateway
from tests.support.process import Finished, missing, run

pytestmark = pytest.mark.peers
USERS = tuple(f"user{number}@example.org" for number in range(12))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    gateway = Gateway(folder / "gateway", users=USERS)
    for path in (gateway.folder / "tls").iterdir():
        path.unlink()
    write_certificate(gateway.folder / "tls", "localhost")  # clients look at the name
    with gateway as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def message(number: int) -> bytes:
    return (
        f"From: sender@elsewhere.test\r\nTo: x@example.org\r\nSubject: number {number}\r\n"
        f"Message-ID: <{number}@elsewhere.test>\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\n\r\nText {number}\r\n"
    ).encode()


class Mailbox:
    """What is in the gateway, by Python's own client."""

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

    def change(self, chance: random.Random, first_new: int) -> None:
        """Some flags, some removed, some new."""
        numbers = list(self.flags())
        places = [str(numbers.index(number) + 1) for number in chance.sample(numbers, max(1, len(numbers) // 10))]
        half = len(places) // 2
        self.client.store(",".join(places[:half] or places), "+FLAGS", "(\\Flagged)")
        self.client.store(",".join(places[half:]), "+FLAGS", "(\\Deleted)")
        self.client.expunge()
        self.fill(range(first_new, first_new + 5), flags="\\Seen")


# --- a local copy, kept the same ----------------------------------------------------------------------------------


class Local:
    """A Maildir that a program keeps the same as the INBOX."""

    def __init__(self, folder: Path, inbox: Path) -> None:
        self.folder = folder
        self.inbox = inbox

    def messages(self) -> dict[int, Path]:
        found = {}
        for path in [*self.inbox.glob("cur/*"), *self.inbox.glob("new/*")]:
            (line,) = (line for line in path.read_bytes().splitlines() if line.startswith(b"Subject:"))
            found[int(line.split()[-1])] = path
        return found

    def flags(self) -> dict[int, frozenset[str]]:
        names = {"F": "\\Flagged", "S": "\\Seen", "R": "\\Answered", "D": "\\Draft", "T": "\\Deleted"}
        return {
            number: frozenset(names[letter] for letter in path.name.partition(":2,")[2])
            for number, path in self.messages().items()
        }

    def change(self, chance: random.Random) -> None:
        """As another program would: flags in names, files gone and files new."""
        found = self.messages()
        chosen = chance.sample(sorted(found), max(2, len(found) // 10))
        for number in chosen[: len(chosen) // 2]:
            path = found[number]
            base, _, letters = path.name.partition(":2,")
            path.rename(self.inbox / "cur" / f"{base}:2,{''.join(sorted({*letters, 'R', 'S'}))}")
        for number in chosen[len(chosen) // 2 :]:
            found[number].unlink()


def mbsync(gateway: Gateway, user: str, folder: Path) -> Finished:
    (folder / "mail").mkdir(exist_ok=True)
    (folder / "mbsyncrc").write_text(f"""
IMAPAccount a
Host localhost
Port {gateway.ports["imaps"]}
User {user}
Pass "{PASSWORD}"
SSLType IMAPS
CertificateFile {gateway.folder}/tls/cert.pem

IMAPStore far
Account a

MaildirStore near
Path {folder}/mail/
Inbox {folder}/mail/INBOX

Channel c
Far :far:
Near :near:
Patterns INBOX
Create Near
Expunge Both
SyncState *
CopyArrivalDate yes
""")
    return run(["mbsync", "-c", str(folder / "mbsyncrc"), "-a"], timeout=240, env={**os.environ, "HOME": str(folder)})


def offlineimap(gateway: Gateway, user: str, folder: Path) -> Finished:
    (folder / "offlineimaprc").write_text(f"""
[general]
accounts = a
metadata = {folder}/metadata
ui = basic
[Account a]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {folder}/mail
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {gateway.ports["imaps"]}
remoteuser = {user}
remotepass = {PASSWORD}
ssl = yes
sslcacertfile = {gateway.folder}/tls/cert.pem
folderfilter = lambda name: name == 'INBOX'
""")
    return run(
        ["offlineimap", "-c", str(folder / "offlineimaprc"), "-o"], timeout=240,
        env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip


PROGRAMS = {"mbsync": mbsync, "offlineimap": offlineimap}


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_copy_and_its_mailbox_become_the_same_three_times(
    gateway: Gateway, tmp_path: Path, program: str, count: int
) -> None:
    if reason := missing(program):
        pytest.skip(reason)
    user = USERS[sorted(PROGRAMS).index(program) * 2 + (count > 200)]
    chance, sync = random.Random(program), PROGRAMS[program]
    local = Local(tmp_path, tmp_path / "mail" / "INBOX")
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(count))
        for turn in range(3):
            for _ in range(2):  # what one way brought goes back the other way in the next run at the latest
                sync(gateway, user, tmp_path).expect()
            there = mailbox.flags()
            assert there == local.flags()
            assert len(there) > count // 2
            if turn == 0:
                assert len(there) == count
            mailbox.change(chance, 10_000 * (turn + 1))
            local.change(chance)


# --- people's programs --------------------------------------------------------------------------------------------


def test_mutt_reads_moves_and_deletes(gateway: Gateway, tmp_path: Path) -> None:
    if reason := missing("mutt"):
        pytest.skip(reason)
    user = USERS[8]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
    (tmp_path / "muttrc").write_text(f"""
set imap_user="{user}" imap_pass="{PASSWORD}" folder="imaps://localhost:{gateway.ports["imaps"]}/"
set spoolfile="+INBOX" record="+Sent" postponed="+Drafts" ssl_ca_certificates_file="{gateway.folder}/tls/cert.pem"
set certificate_file="{gateway.folder}/tls/cert.pem" delete=yes confirmappend=no wait_key=no
set imap_condstore=yes imap_qresync=yes move=no resolve=no sort=mailbox-order header_cache="{tmp_path}/cache"
push "<first-entry><flag-message><next-entry><delete-message>\
<tag-pattern>~s 4<enter><tag-prefix><save-message>=Archive<enter><sync-mailbox><quit>"
""")
    finished = run(
        ["script", "-qec", f"mutt -n -F {tmp_path}/muttrc", "/dev/null"], timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "TERM": "xterm", "LINES": "40", "COLUMNS": "120"},
    )  # fmt: skip
    finished.expect()
    with Mailbox(gateway, user) as mailbox:
        there = mailbox.flags()
        assert set(there) == {0, 2, 3, 5}, finished.stdout[-3000:]
        assert "\\Flagged" in there[0]
        assert set(mailbox.flags("Archive")) == {4}


def test_curl_lists_reads_and_appends(gateway: Gateway, tmp_path: Path) -> None:
    if reason := missing("curl"):
        pytest.skip(reason)
    user = USERS[9]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(2))

    def curl(path: str, *arguments: str) -> Finished:
        address = f"imap://127.0.0.1:{gateway.ports['imap']}/{path}"
        return run(["curl", "-sSk", "--ssl-reqd", "-u", f"{user}:{PASSWORD}", address, *arguments], timeout=30)

    assert '"/" INBOX' in curl("").expect().stdout
    assert "Subject: number 1" in curl("INBOX;MAILINDEX=2").expect().stdout
    assert curl("INBOX?SUBJECT%20number").expect().stdout.strip().endswith("* SEARCH 1 2")
    (tmp_path / "m").write_bytes(message(7))
    curl("Sent", "-T", str(tmp_path / "m")).expect()
    with Mailbox(gateway, user) as mailbox:
        assert set(mailbox.flags("Sent")) == {7}


def test_fetchmail_takes_all(gateway: Gateway, tmp_path: Path) -> None:
    if reason := missing("fetchmail"):
        pytest.skip(reason)
    user = USERS[10]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(5))
    taker = tmp_path / "taker"
    taker.write_text(f'#!/bin/sh\ncat >> "{tmp_path}/got"\n')
    taker.chmod(0o755)
    settings = tmp_path / "fetchmailrc"
    settings.write_text(
        f'poll 127.0.0.1 protocol imap service {gateway.ports["imaps"]} timeout 20 no dns user "{user}"'
        f' password "{PASSWORD}" ssl no sslcertck mda "{taker}"\n'
    )
    settings.chmod(0o600)
    finished = run(
        ["fetchmail", "-f", str(settings), "--nosyslog", "--pidfile", str(tmp_path / "pid")], timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)},
    )  # fmt: skip
    finished.expect()
    got = (tmp_path / "got").read_bytes()
    assert all(f"Text {number}\n".encode() in got for number in range(5))
    with Mailbox(gateway, user) as mailbox:
        assert mailbox.flags() == {}
