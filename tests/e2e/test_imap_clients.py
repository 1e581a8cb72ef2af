"""IMAP with programs that run once and end: mbsync and offlineimap, which keep a copy the same, and curl."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapmailbox import Mailbox, gateway_named_localhost, message, number_of
from tests.support.process import Finished, missing, run

pytestmark = pytest.mark.peers
USERS = tuple(f"user{number}@example.org" for number in range(12))
Sync = Callable[[Gateway, str, Path], Finished]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with gateway_named_localhost(USERS) as running:
        yield running


# --- a local copy, kept the same ----------------------------------------------------------------------------------


class Local:
    """Maildirs that a program keeps the same as the mailboxes of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "mail"

    def messages(self, name: str = "INBOX") -> dict[int, Path]:
        """By the number in the subject."""
        paths = [*self._folder.glob(f"{name}/cur/*"), *self._folder.glob(f"{name}/new/*")]
        return {number_of(path.read_bytes()): path for path in paths}

    def flags(self, name: str = "INBOX") -> dict[int, frozenset[str]]:
        names = {"F": "\\Flagged", "S": "\\Seen", "R": "\\Answered", "D": "\\Draft", "T": "\\Deleted"}
        return {
            number: frozenset(names[letter] for letter in path.name.partition(":2,")[2])
            for number, path in self.messages(name).items()
        }

    def set_flags(self, number: int, letters: str) -> None:
        path = self.messages()[number]
        base, _, before = path.name.partition(":2,")
        path.rename(self._folder / "INBOX" / "cur" / f"{base}:2,{''.join(sorted({*before, *letters}))}")

    def make(self, name: str) -> None:
        for part in ("cur", "new", "tmp"):
            (self._folder / name / part).mkdir(parents=True)

    def add(self, name: str, octets: bytes, letters: str = "") -> None:
        """As another program would, with a file name that the synchronising one has not given."""
        (self._folder / name / "cur" / f"1800000000.{number_of(octets)}.host:2,{letters}").write_bytes(octets)

    def change(self, chance: random.Random) -> None:
        """Some flags, some removed."""
        found = self.messages()
        chosen = chance.sample(sorted(found), max(2, len(found) // 10))
        for number in chosen[: len(chosen) // 2]:
            self.set_flags(number, "RS")
        for number in chosen[len(chosen) // 2 :]:
            found[number].unlink()


def mbsync(gateway: Gateway, user: str, folder: Path, only_inbox: bool = False) -> Finished:
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
Patterns {"INBOX" if only_inbox else "INBOX *"}
Create Both
Expunge Both
SyncState *
CopyArrivalDate yes
""")
    return run(["mbsync", "-c", str(folder / "mbsyncrc"), "-a"], timeout=240, env={**os.environ, "HOME": str(folder)})


def offlineimap(gateway: Gateway, user: str, folder: Path, only_inbox: bool = False) -> Finished:
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
folderfilter = lambda name: name == 'INBOX' or not {only_inbox}
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
    local = Local(tmp_path)
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(count))
        for turn in range(3):
            for _ in range(2):  # what one way brought goes back the other way in the next run at the latest
                sync(gateway, user, tmp_path, only_inbox=True).expect()
            there = mailbox.flags()
            assert there == local.flags()
            assert len(there) > count // 2
            if turn == 0:
                assert len(there) == count
            mailbox.change(chance, 10_000 * (turn + 1))
            local.change(chance)


@pytest.mark.shows("mbsync", "read", "flag", "move", "delete", "append", "new mail", "make mailbox")
def test_mbsync_brings_what_was_done_to_its_copy(
    gateway: Gateway, tmp_path: Path, shows: Callable[[str], None]
) -> None:
    if reason := missing("mbsync"):
        pytest.skip(reason)
    do_all_in_a_copy(gateway, USERS[4], tmp_path, mbsync, shows)


@pytest.mark.shows("offlineimap3", "read", "flag", "move", "delete", "append", "new mail", "make mailbox")
def test_offlineimap_brings_what_was_done_to_its_copy(
    gateway: Gateway, tmp_path: Path, shows: Callable[[str], None]
) -> None:
    if reason := missing("offlineimap"):
        pytest.skip(reason)
    do_all_in_a_copy(gateway, USERS[5], tmp_path, offlineimap, shows)


def do_all_in_a_copy(gateway: Gateway, user: str, folder: Path, sync: Sync, shows: Callable[[str], None]) -> None:
    local = Local(folder)
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        sync(gateway, user, folder).expect()
        assert {*local.messages()} == {*range(6)}
        assert all(path.read_bytes().endswith(b"\nText %d\n" % number) for number, path in local.messages().items())
        shows("read")
        local.set_flags(1, "FS")
        local.messages()[2].unlink()
        local.add("Archive", message(3).replace(b"\r\n", b"\n"), "S")
        local.messages()[3].unlink()
        local.add("Sent", message(7).replace(b"\r\n", b"\n"), "S")
        local.make("Projects")
        sync(gateway, user, folder).expect()
        assert mailbox.flags()[1] == {"\\Flagged", "\\Seen"}
        shows("flag")
        assert {*mailbox.flags()} == {0, 1, 4, 5}
        shows("delete")
        assert mailbox.flags("Archive") == {3: {"\\Seen"}}
        shows("move")
        assert mailbox.flags("Sent") == {7: {"\\Seen"}}
        shows("append")
        assert "Projects" in mailbox.names()
        shows("make mailbox")
        gateway.send(user, message(8))
        mailbox.wait_for({0, 1, 4, 5, 8})
        sync(gateway, user, folder).expect()
        assert {*local.messages()} == {0, 1, 4, 5, 8}
        shows("new mail")


# --- curl ---------------------------------------------------------------------------------------------------------


@pytest.mark.shows("curl", "read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
def test_curl_does_it_all(gateway: Gateway, tmp_path: Path, shows: Callable[[str], None]) -> None:
    if reason := missing("curl"):
        pytest.skip(reason)
    user = USERS[9]

    def curl(path: str, *arguments: str) -> str:
        address = f"imap://localhost:{gateway.ports['imap']}/{path}"
        certificate = str(gateway.folder / "tls" / "cert.pem")
        command = [
            "curl",
            "-sS",
            "--ssl-reqd",
            "--cacert",
            certificate,
            "-u",
            f"{user}:{PASSWORD}",
            address,
            *arguments,
        ]
        return run(command, timeout=30).expect().stdout

    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        assert '"/" INBOX' in curl("")
        assert curl("INBOX;MAILINDEX=2").encode() == message(1)
        assert curl("INBOX;UID=1;SECTION=TEXT") == "Text 0\r\n"
        shows("read")
        assert curl("INBOX?SUBJECT%20number").strip() == "* SEARCH 1 2 3 4 5 6"
        assert curl("INBOX?TEXT%20%22Text%205%22").strip() == "* SEARCH 6"
        shows("search")
        curl("INBOX", "-X", "UID STORE 1 +FLAGS (\\Flagged)")
        assert "\\Flagged" in mailbox.flags()[0]
        shows("flag")
        curl("INBOX", "-X", "UID MOVE 5 Archive")
        assert {*mailbox.flags()} == {0, 1, 2, 3, 5}
        assert {*mailbox.flags("Archive")} == {4}
        shows("move")
        curl("INBOX", "-X", "UID STORE 2 +FLAGS.SILENT (\\Deleted)")
        curl("INBOX", "-X", "EXPUNGE")
        assert {*mailbox.flags()} == {0, 2, 3, 5}
        shows("delete")
        (tmp_path / "m").write_bytes(message(7))
        curl("Sent", "-T", str(tmp_path / "m"))
        assert {*mailbox.flags("Sent")} == {7}
        shows("append")
        curl("", "-X", "CREATE Projects")
        assert "Projects" in mailbox.names()
        shows("make mailbox")
        gateway.send(user, message(8))
        mailbox.wait_for({0, 2, 3, 5, 8})
        assert "UNSEEN 4" in curl("", "-X", "STATUS INBOX (UNSEEN)")
        assert curl("INBOX;UID=7;SECTION=TEXT") == "Text 8\r\n"
        shows("new mail")
