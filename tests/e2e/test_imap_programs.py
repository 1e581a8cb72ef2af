"""IMAP with programs for people, told keys in a terminal: mutt and alpine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapmailbox import Mailbox, gateway_named_localhost, message
from tests.support.process import missing
from tests.support.terminal import Terminal

pytestmark = pytest.mark.peers
USERS = ("mutt@example.org", "alpine@example.org", "friend@example.org")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with gateway_named_localhost(USERS) as running:
        yield running


MUTT = """
set imap_user="{user}" imap_pass="{password}" folder="imaps://localhost:{imaps}/" spoolfile="+INBOX" record="+Sent"
set smtp_url="smtps://{user}@localhost:{submissions}/" smtp_pass="{password}" from="{user}" use_from=yes
set postponed="+Drafts" ssl_ca_certificates_file="{tls}/cert.pem" certificate_file="{tls}/cert.pem"
set imap_condstore=yes imap_qresync=yes imap_idle=yes timeout=1 mail_check=1 header_cache="{folder}/cache"
set delete=yes confirmappend=no wait_key=no move=no resolve=no sort=mailbox-order sleep_time=0 beep=no
set editor="{folder}/write" abort_unmodified=no edit_headers=no
"""


@pytest.mark.shows("mutt", "read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
def test_mutt_does_it_all(gateway: Gateway, open_folder: Path, shows: Callable[[str], None]) -> None:
    if reason := missing("mutt", "tmux"):
        pytest.skip(reason)
    user = USERS[0]
    settings = MUTT.format(
        user=user, password=PASSWORD, imaps=gateway.ports["imaps"], submissions=gateway.ports["submissions"],
        tls=gateway.folder / "tls", folder=open_folder,
    )  # fmt: skip
    (open_folder / "muttrc").write_text(settings, encoding="utf-8")
    (open_folder / "write").write_text('#!/bin/sh\necho "Text 7" > "$1"\n', encoding="utf-8")
    (open_folder / "write").chmod(0o755)
    log = open_folder / ".muttdebug0"
    command = ["mutt", "-d", "2", "-n", "-F", str(open_folder / "muttrc")]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        with Terminal(open_folder, command, env={"HOME": str(open_folder)}) as mutt:
            mutt.see("number 5")
            mutt.press("Enter")
            mutt.see("Text 0")
            shows("read")
            mutt.press("i")
            mutt.see("number 5")
            mutt.press("F", "$")
            mailbox.wait_flag(0, "\\Flagged")
            shows("flag")
            mutt.press("5", "Enter", "s")
            mutt.answer("Save to mailbox", "=Archive")
            mutt.press("$")
            mailbox.wait_for({0, 1, 2, 3, 5})
            mailbox.wait_for({4}, "Archive")
            shows("move")
            mutt.press("2", "Enter", "d", "$")
            mailbox.wait_for({0, 2, 3, 5})
            mutt.see("number 5", without="number [14]")
            shows("delete")
            mutt.press("l")
            mutt.answer("Limit to messages", '=b "Text 3"')  # "=" has the server search
            mutt.see("number 3", without="number [025]")
            assert 'UID SEARCH BODY "Text 3"' in log.read_text(errors="replace")
            shows("search")
            mutt.press("l")
            mutt.answer("Limit to messages", "all")
            mutt.see("number 5")
            mutt.press("m")
            mutt.answer("To:", "friend@example.org")
            mutt.answer("Subject:", "number 7")
            mutt.see("y:Send")
            mutt.press("y")
            mailbox.wait_for({7}, "Sent")
            shows("append")
            mutt.see("number 5", without="y:Send")
            gateway.send(user, message(8))
            mutt.see("number 8")  # no key was pressed
            assert " IDLE\n" in log.read_text(errors="replace")
            shows("new mail")
            mutt.press("c", "?")
            mutt.see("Archive")
            mutt.press("C")
            mutt.answer("Create mailbox", "Projects")
            mutt.see(r"IMAP\s.*Projects")
            assert "Projects" in mailbox.names()
            shows("make mailbox")
            mutt.press("q")
            mutt.see("number 8")
            mutt.press("q")
            assert mutt.code() == 0


ALPINE = """
personal-name=Alpine
user-domain=example.org
smtp-server=localhost:{submissions}/ssl/novalidate-cert/user={user}
inbox-path={{localhost:{imaps}/ssl/novalidate-cert/user={user}}}INBOX
folder-collections="Mail" {{localhost:{imaps}/ssl/novalidate-cert/user={user}}}[]
default-fcc={{localhost:{imaps}/ssl/novalidate-cert/user={user}}}Sent
postponed-folder={{localhost:{imaps}/ssl/novalidate-cert/user={user}}}Drafts
feature-list=quit-without-confirm, expunge-without-confirm, enable-aggregate-command-set, enable-flag-cmd,
  disable-password-file-saving
last-version-used=6.26
mail-check-interval=15
"""


@pytest.mark.shows("alpine", "read", "flag", "move", "delete", "search", "append", "new mail", "make mailbox")
def test_alpine_does_it_all(gateway: Gateway, open_folder: Path, shows: Callable[[str], None]) -> None:
    if reason := missing("alpine", "tmux"):
        pytest.skip(reason)
    user = USERS[1]
    settings = ALPINE.format(user=user, imaps=gateway.ports["imaps"], submissions=gateway.ports["submissions"])
    (open_folder / "pinerc").write_text(settings, encoding="utf-8")
    log = open_folder / ".pine-debug1"
    command = ["alpine", "-d", "imap=4,flush", "-p", str(open_folder / "pinerc"), "-i"]
    with Mailbox(gateway, user) as mailbox:
        mailbox.fill(range(6))
        with Terminal(open_folder, command, env={"HOME": str(open_folder)}) as alpine:
            alpine.answer("ENTER PASSWORD", PASSWORD, in_place_of_another=False)
            alpine.see("number 5")
            alpine.press("Enter")
            alpine.see("Text 0")
            shows("read")
            alpine.press("<")
            alpine.see("number 5")
            alpine.press("*")
            alpine.see(r"Flag New.* \?")
            alpine.press("*")
            mailbox.wait_flag(0, "\\Flagged")
            shows("flag")
            jump_to(alpine, 5)
            alpine.press("s")
            alpine.answer("SAVE Msg #5 to folder", "Archive")
            mailbox.wait_flag(4, "\\Deleted")
            alpine.press("x")
            mailbox.wait_for({0, 1, 2, 3, 5})
            mailbox.wait_for({4}, "Archive")
            shows("move")
            alpine.see("number 5", without="number 4")
            jump_to(alpine, 2)
            alpine.press("d", "x")
            mailbox.wait_for({0, 2, 3, 5})
            alpine.see("number 5", without="number 1")
            shows("delete")
            alpine.press("c")
            alpine.see("To  .*:")
            alpine.type("friend@example.org")
            alpine.press("Enter", "Enter", "Enter")
            alpine.type("number 7")
            alpine.press("Enter")
            alpine.type("Text 7")
            alpine.press("C-x")
            alpine.see("Send message")
            alpine.press("y")
            alpine.answer("ENTER PASSWORD", PASSWORD, in_place_of_another=False)  # of submission
            mailbox.wait_for({7}, "Sent")
            shows("append")
            alpine.see("number 5", without="Text 7")
            gateway.send(user, message(8))
            mailbox.wait_for({0, 2, 3, 5, 8})
            alpine.press("C-l")
            alpine.see("number 8")
            shows("new mail")
            alpine.press(";")
            alpine.see("SELECT criteria")
            alpine.press("t")
            alpine.see("Select based on")
            alpine.press("a")
            alpine.answer("String in message TEXT", "Text 3")
            alpine.see("number 3", without="number [0258]")
            assert 'SEARCH TEXT "Text 3"' in log.read_text(errors="replace")
            shows("search")
            alpine.press("l")
            alpine.see("Archive")
            alpine.press("a")
            alpine.answer("Folder name to add", "Projects")
            alpine.see(r"Projects\[/\]")
            assert "Projects" in mailbox.names()
            shows("make mailbox")
            alpine.press("q")
            assert alpine.code() == 0


def jump_to(alpine: Terminal, number: int) -> None:
    """The message with this place in the list."""
    alpine.press(str(number))
    alpine.see("Message number to jump to")
    alpine.press("Enter")
    alpine.see(f"Message {number} of")
