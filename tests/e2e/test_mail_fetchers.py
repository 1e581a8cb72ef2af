"""Programs that fetch mail, by IMAP and POP3: fetchmail and getmail.

Both leave what they took in a folder or a file; what became of the mailbox is seen by IMAP.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapmailbox import Mailbox, gateway_named_localhost, message, number_of
from tests.support.process import Daemon, Finished, missing, run, tail, wait_until

pytestmark = pytest.mark.peers
USERS = tuple(f"user{number}@example.org" for number in range(6))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with gateway_named_localhost(USERS) as running:
        yield running


@pytest.fixture
def folder(open_folder: Path) -> Path:
    """Of the account that fetches: getmail refuses to run as root."""
    if os.geteuid() == 0:
        shutil.chown(open_folder, "nobody")
    return open_folder


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder), "FETCHMAILHOME": str(folder), "PYTHONUNBUFFERED": "1"}


# --- fetchmail ----------------------------------------------------------------------------------------------------


def fetchmail(gateway: Gateway, user: str, folder: Path, options: str) -> list[str]:
    """The command. What is taken is appended to the file `got`."""
    taker = folder / "taker"
    taker.write_text(f'#!/bin/sh\ncat >> "{folder}/got"\n', encoding="utf-8")
    taker.chmod(0o755)
    settings = folder / "fetchmailrc"
    settings.write_text(
        f'poll localhost protocol imap service {gateway.ports["imaps"]} timeout 20 no dns user "{user}"'
        f' password "{PASSWORD}" ssl sslcertck sslcertfile "{gateway.folder}/tls/cert.pem" mda "{taker}" {options}\n',
        encoding="utf-8",
    )
    settings.chmod(0o600)
    return ["fetchmail", "-v", "-v", "-f", str(settings), "--nosyslog", "--nodetach", "--pidfile", str(folder / "pid")]


def got(folder: Path) -> list[int]:
    """The numbers of what fetchmail took, in order."""
    path = folder / "got"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [int(line.split()[-1]) for line in lines if line.startswith("Text ")]


@pytest.mark.shows("fetchmail, IMAP", "read", "flag", "delete", "search", "new mail")
def test_fetchmail_takes_the_unseen_the_rest_and_what_comes(
    gateway: Gateway, tmp_path: Path, shows: Callable[[str], None]
) -> None:
    if reason := missing("fetchmail"):
        pytest.skip(reason)
    user = USERS[0]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(3))
        mailbox.fill(range(3, 5), flags="\\Seen")
        command = fetchmail(gateway, user, tmp_path, "keep")
        finished = run(command, timeout=60, env=environment(tmp_path)).expect()
        assert got(tmp_path) == [0, 1, 2]
        assert b"Message-ID: <2@elsewhere.test>" in (tmp_path / "got").read_bytes()
        shows("read")
        assert "SEARCH UNSEEN" in finished.stdout
        shows("search")
        assert mailbox.flags() == {number: {"\\Seen"} for number in range(5)}
        shows("flag")
        command = fetchmail(gateway, user, tmp_path, "fetchall no keep")
        run(command, timeout=60, env=environment(tmp_path)).expect()
        assert got(tmp_path) == [0, 1, 2, 0, 1, 2, 3, 4]
        assert mailbox.flags() == {}
        shows("delete")
        command = fetchmail(gateway, user, tmp_path, "idle no keep")
        log = tmp_path / "log"
        with Daemon(command, log=log, env=environment(tmp_path), ready=lambda: " IDLE" in tail(log)):
            gateway.send(user, message(8))
            wait_until(lambda: got(tmp_path)[8:] == [8], 20, "the new message")
            shows("new mail")
            mailbox.wait_for(set())


@pytest.mark.shows("fetchmail, POP3", "read", "delete", "new mail")
def test_fetchmail_takes_all_by_pop3(gateway: Gateway, tmp_path: Path, shows: Callable[[str], None]) -> None:
    if reason := missing("fetchmail"):
        pytest.skip(reason)
    user = USERS[1]

    def fetch(keep: bool) -> list[int]:
        fetched = peers.fetchmail_pop3(
            tmp_path, gateway.ports["pop3s"], user, PASSWORD, host="localhost", security="implicit",
            ca_file=gateway.folder / "tls" / "cert.pem", keep=keep,
        )  # fmt: skip
        fetched.result.expect()
        assert all(octets.endswith(b"\r\n\r\nText %d\r\n" % number_of(octets)) for octets in fetched.messages)
        return [number_of(octets) for octets in fetched.messages]

    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(3))
        assert fetch(keep=True) == [0, 1, 2]
        shows("read")
        mailbox.wait_for({0, 1, 2})
        assert fetch(keep=False) == [0, 1, 2]
        assert mailbox.flags() == {}
        shows("delete")
        gateway.send(user, message(8))
        mailbox.wait_for({8})
        assert fetch(keep=False) == [8]
        shows("new mail")


# --- getmail ------------------------------------------------------------------------------------------------------


class Getmail:
    """A Maildir that getmail brings mail to, run by an ordinary account."""

    def __init__(self, gateway: Gateway, user: str, folder: Path, kind: str) -> None:
        self._gateway = gateway
        self._user = user
        self._folder = folder
        self._kind = kind
        self._account = "nobody" if os.geteuid() == 0 else None
        shutil.copy(gateway.folder / "tls" / "cert.pem", folder)  # whose own folder is closed to others
        for name in ("mail", "mail/tmp", "mail/new", "mail/cur"):
            self._own(folder / name)

    def _own(self, path: Path) -> None:
        path.mkdir()
        if self._account:
            shutil.chown(path, self._account)

    def command(self, retriever: str = "", options: str = "") -> list[str]:
        """More lines of the settings' two sections."""
        port = self._gateway.ports["imaps" if self._kind == "IMAP" else "pop3s"]
        (self._folder / "getmailrc").write_text(
            f"[retriever]\ntype = Simple{self._kind}SSLRetriever\nserver = localhost\nport = {port}\n"
            f"username = {self._user}\npassword = {PASSWORD}\n"
            f"ca_certs = {self._folder}/cert.pem\n{retriever}\n"
            f"[destination]\ntype = Maildir\npath = {self._folder}/mail/\n[options]\n{options}\n",
            encoding="utf-8",
        )
        return ["getmail", f"--getmaildir={self._folder}", f"--rcfile={self._folder}/getmailrc"]

    def fetch(self, retriever: str = "", options: str = "") -> Finished:
        dropped = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if self._account else []
        command = [*dropped, *self.command(retriever, options)]
        return run(command, timeout=60, env=environment(self._folder), cwd=self._folder).expect()

    def waiting(self, options: str) -> Daemon:
        """It fetches, waits in IDLE and fetches again; ready when it waits."""
        log = self._folder / "log"
        return Daemon(
            [*self.command(options=options), "--idle=INBOX", "--trace"], log=log, env=environment(self._folder),
            cwd=self._folder, user=self._account, ready=lambda: "Entering IDLE mode" in tail(log),
        )  # fmt: skip

    def got(self) -> list[int]:
        found = [path.read_bytes() for path in (self._folder / "mail" / "new").iterdir()]
        assert all(octets.endswith(b"\n\nText %d\n" % number_of(octets)) for octets in found)
        return sorted(number_of(octets) for octets in found)


@pytest.mark.shows("getmail6, IMAP", "read", "flag", "move", "delete", "search", "new mail")
def test_getmail_takes_what_it_searches_for_and_what_comes(
    gateway: Gateway, folder: Path, shows: Callable[[str], None]
) -> None:
    if reason := missing("getmail"):
        pytest.skip(reason)
    getmail = Getmail(gateway, USERS[2], folder, "IMAP")
    with Mailbox(gateway, USERS[2]) as mailbox:
        mailbox.fill(range(3))
        mailbox.fill(range(3, 5), flags="\\Seen")
        getmail.fetch("imap_search = UNSEEN\nimap_on_delete = (\\Seen \\Flagged)", "delete = true")
        assert getmail.got() == [0, 1, 2]
        shows("read")
        shows("search")
        assert [len(flags) for flags in mailbox.flags().values()] == [2, 2, 2, 1, 1]
        shows("flag")
        getmail.fetch("move_on_delete = Archive\nimap_search = SUBJECT 4", "delete = true\nread_all = true")
        assert getmail.got() == [0, 1, 2, 4]
        assert set(mailbox.flags()) == {0, 1, 2, 3}
        assert set(mailbox.flags("Archive")) == {4}
        shows("move")
        getmail.fetch(options="delete = true\nread_all = true")
        assert getmail.got() == [0, 0, 1, 1, 2, 2, 3, 4]
        assert mailbox.flags() == {}
        shows("delete")
        with getmail.waiting("delete = true"):
            gateway.send(USERS[2], message(8))
            wait_until(lambda: getmail.got()[-1] == 8, 20, "the new message")
            shows("new mail")
            mailbox.wait_for(set())


@pytest.mark.shows("getmail6, POP3", "read", "delete", "new mail")
def test_getmail_takes_all_by_pop3(gateway: Gateway, folder: Path, shows: Callable[[str], None]) -> None:
    if reason := missing("getmail"):
        pytest.skip(reason)
    getmail = Getmail(gateway, USERS[3], folder, "POP3")
    with Mailbox(gateway, USERS[3]) as mailbox:
        mailbox.fill(range(3))
        getmail.fetch(options="read_all = false")
        assert getmail.got() == [0, 1, 2]
        shows("read")
        gateway.send(USERS[3], message(8))
        mailbox.wait_for({0, 1, 2, 8})
        getmail.fetch(options="read_all = false")  # its list of what it has seen is by the unique ids
        assert getmail.got() == [0, 1, 2, 8]
        shows("new mail")
        getmail.fetch(options="read_all = true\ndelete = true")
        assert getmail.got() == [0, 0, 1, 1, 2, 2, 8, 8]
        assert mailbox.flags() == {}
        shows("delete")
