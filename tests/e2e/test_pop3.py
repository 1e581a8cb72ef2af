"""POP3 with its real clients: poplib, fetchmail, and octets by hand."""

import itertools
import poplib
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.gateway import PASSWORD, STRANGER, Gateway
from tests.support.process import missing, wait_until
from tests.support.raw import temporary_gateway

_NUMBERS = itertools.count()
_CLIENTS: list[poplib.POP3] = []
USERS = tuple(f"user{number}@example.org" for number in range(60))
BODIES = {
    "dots": b".\r\n..\r\n...\r\n.one\r\n..two\r\nthe end.\r\n.\r\n",
    "blanks": b" \r\n\t\r\ntrailing  \r\n\r\n\r\n",
    "eight bits": "Grüße\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
    "no body": b"",
    "a long line": b"x" * 2000 + b"\r\n",
    "looks like a reply": b"-ERR no\r\n+OK yes\r\nQUIT\r\n",
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway; each test takes users that no other test has."""
    with temporary_gateway(users=USERS) as running:
        yield running


@pytest.fixture
def user() -> str:
    return USERS[next(_NUMBERS)]


@pytest.fixture(autouse=True)
def close_clients() -> Iterator[None]:
    """Close what a failed test left open."""
    yield
    while _CLIENTS:
        _CLIENTS.pop().close()


def message(number: int, body: bytes = b"A line.\r\n") -> bytes:
    return b"From: sender@elsewhere.test\r\nSubject: number %d\r\n\r\n" % number + body


def fill(gateway: Gateway, user: str, *messages: bytes) -> list[bytes]:
    """Send these to a user, one after the other, and return them as they are stored."""
    for count, octets in enumerate(messages, 1):
        gateway.send(user, octets)
        gateway.wait_mails(user, count)
    return gateway.mails(user)


def connect(gateway: Gateway, listener: str) -> poplib.POP3:
    """A connection in TLS, not signed in."""
    context = ssl._create_unverified_context()
    client: poplib.POP3
    if listener == "pop3s":
        client = poplib.POP3_SSL("127.0.0.1", gateway.ports["pop3s"], timeout=15, context=context)
        _CLIENTS.append(client)
        return client
    client = poplib.POP3("127.0.0.1", gateway.ports["pop3"], timeout=15)
    _CLIENTS.append(client)
    client.stls(context)
    return client


def sign_in(gateway: Gateway, user: str, listener: str = "pop3s") -> poplib.POP3:
    client = connect(gateway, listener)
    client.user(user)
    client.pass_(PASSWORD)
    return client


def retrieve(client: poplib.POP3, number: int) -> bytes:
    """A message as RETR gives it, CRLF line ends, dots taken away."""
    return b"".join(line + b"\r\n" for line in client.retr(number)[1])


def talk(gateway: Gateway, octets: bytes, *, listener: str = "pop3s", source: str = "127.0.0.1") -> bytes:
    """Send octets in one piece and return all that comes until the server closes."""
    connection = socket.create_connection(("127.0.0.1", gateway.ports[listener]), 10.0, (source, 0))
    if listener == "pop3s":
        connection = ssl._create_unverified_context().wrap_socket(connection)
    with connection:
        connection.sendall(octets)
        found = b""
        try:
            while octets := connection.recv(65536):
                found += octets
        except ConnectionResetError:
            pass
        return found


# --- before sign-in ---------------------------------------------------------------------------------------------------


def test_passwords_are_refused_in_clear(gateway: Gateway, user: str) -> None:
    client = poplib.POP3("127.0.0.1", gateway.ports["pop3"], timeout=15)
    _CLIENTS.append(client)
    assert "STLS" in client.capa()
    assert "USER" not in client.capa()
    with pytest.raises(poplib.error_proto, match="TLS"):
        client.user(user)
    with pytest.raises(poplib.error_proto, match="TLS"):
        client.pass_(PASSWORD)
    with pytest.raises(poplib.error_proto):
        client.stat()
    assert client.stls(ssl._create_unverified_context()).startswith(b"+OK")
    capabilities = client.capa()
    assert {"USER", "UIDL", "TOP"} <= capabilities.keys()
    assert "STLS" not in capabilities
    client.user(user)
    assert client.pass_(PASSWORD).startswith(b"+OK")
    client.quit()


def test_commands_behind_stls_are_not_taken_for_encrypted_ones(gateway: Gateway, user: str) -> None:
    answer = talk(
        gateway, b"STLS\r\nUSER %b\r\nPASS %b\r\nSTAT\r\n" % (user.encode(), PASSWORD.encode()), listener="pop3"
    )
    assert answer.count(b"+OK") <= 2  # the greeting, and perhaps the word that TLS may begin
    assert b"-ERR" in answer
    assert re.search(rb"\+OK \d+ \d+\r\n", answer) is None


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
def test_a_wrong_password_is_refused_and_the_right_one_works_after_it(
    gateway: Gateway, user: str, listener: str
) -> None:
    client = connect(gateway, listener)
    client.user(user)
    with pytest.raises(poplib.error_proto, match=r"-ERR \[AUTH\]"):
        client.pass_("not the password")
    with pytest.raises(poplib.error_proto):
        client.stat()
    client.user(user)
    client.pass_(PASSWORD)
    assert client.stat() == (0, 0)
    client.quit()


def test_an_unknown_user_is_answered_as_a_wrong_password_is(gateway: Gateway, user: str) -> None:
    answers = set()
    for number, name in enumerate((user, "nobody@example.org", "nobody", "../../etc/passwd")):
        commands = f"USER {name}\r\nPASS not the password\r\nQUIT\r\n".encode()
        answers.add(talk(gateway, commands, source=f"127.0.0.{20 + number}"))
    (answer,) = answers
    assert b"-ERR [AUTH]" in answer


# --- the maildrop -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
def test_the_maildrop_is_listed_and_read_as_it_is_stored(gateway: Gateway, user: str, listener: str) -> None:
    stored = fill(gateway, user, *(message(number, body) for number, body in enumerate(BODIES.values())))
    client = sign_in(gateway, user, listener)
    assert client.stat() == (len(stored), sum(map(len, stored)))
    listing = client.list()[1]
    assert listing == [b"%d %d" % (number, len(octets)) for number, octets in enumerate(stored, 1)]
    assert client.list(2).split(maxsplit=1)[1] == listing[1]
    uids = [line.split()[1] for line in client.uidl()[1]]
    assert len(set(uids)) == len(stored)
    assert all(re.fullmatch(rb"[!-~]{1,70}", uid) for uid in uids)
    assert client.uidl(3).split()[1:] == [b"3", uids[2]]
    for number, octets in enumerate(stored, 1):
        assert retrieve(client, number) == octets
        assert octets.endswith(message(number - 1, list(BODIES.values())[number - 1]))
    assert client.quit().startswith(b"+OK")
    assert gateway.mails(user) == stored


def test_top_gives_the_header_and_so_many_lines(gateway: Gateway, user: str) -> None:
    body = b".first\r\n\r\n..third\r\nfourth\r\n"
    (stored,) = fill(gateway, user, message(1, body))
    head, _, _ = stored.partition(b"\r\n\r\n")
    client = sign_in(gateway, user)
    for lines in range(6):
        wanted = [*head.split(b"\r\n"), b"", *body.split(b"\r\n")[:-1][:lines]]
        assert client.top(1, lines)[1] == wanted
    client.quit()


def test_deleted_messages_go_at_quit_and_not_before(gateway: Gateway, user: str) -> None:
    stored = fill(gateway, user, *(message(number) for number in range(4)))
    client = sign_in(gateway, user)
    uids = [line.split()[1] for line in client.uidl()[1]]
    client.dele(1)
    client.dele(3)
    assert client.stat() == (2, len(stored[1]) + len(stored[3]))
    assert [line.split()[0] for line in client.list()[1]] == [b"2", b"4"]
    for call in (client.retr, client.dele, client.list, client.uidl):
        with pytest.raises(poplib.error_proto):
            call(3)
    assert gateway.mails(user) == stored
    client.quit()
    assert gateway.mails(user) == [stored[1], stored[3]]
    client = sign_in(gateway, user)
    assert [line.split()[1] for line in client.uidl()[1]] == [uids[1], uids[3]]
    assert retrieve(client, 1) == stored[1]
    client.quit()


def test_rset_takes_deletions_back(gateway: Gateway, user: str) -> None:
    stored = fill(gateway, user, message(1), message(2))
    client = sign_in(gateway, user)
    client.dele(1)
    client.dele(2)
    assert client.stat() == (0, 0)
    client.rset()
    assert client.stat()[0] == 2
    client.quit()
    assert gateway.mails(user) == stored


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
def test_a_dropped_connection_deletes_nothing(gateway: Gateway, user: str, listener: str) -> None:
    stored = fill(gateway, user, message(1), message(2))
    client = sign_in(gateway, user, listener)
    client.dele(1)
    client.dele(2)
    open_now = gateway.metric("smarthost_sessions_open", listener=listener)
    client.close()
    wait_until(
        lambda: gateway.metric("smarthost_sessions_open", listener=listener) < open_now, 10.0, "the session to end"
    )
    assert gateway.mails(user) == stored
    again = sign_in(gateway, user, listener)
    assert again.stat()[0] == 2
    again.quit()


def test_uids_are_the_same_in_every_session_and_never_used_again(gateway: Gateway, user: str) -> None:
    fill(gateway, user, message(1), message(2), message(3))
    seen = []
    for listener in ("pop3", "pop3s", "pop3"):
        client = sign_in(gateway, user, listener)
        seen.append([line.split()[1] for line in client.uidl()[1]])
        client.quit()
    assert seen[0] == seen[1] == seen[2]
    client = sign_in(gateway, user)
    for number in (1, 2, 3):
        client.dele(number)
    client.quit()
    assert gateway.mails(user) == []
    fill(gateway, user, message(4))
    client = sign_in(gateway, user)
    (new,) = [line.split()[1] for line in client.uidl()[1]]
    assert new not in seen[0]
    client.quit()


def test_mail_that_comes_during_a_session_is_seen_in_the_next(gateway: Gateway, user: str) -> None:
    fill(gateway, user, message(1))
    client = sign_in(gateway, user)
    gateway.send(user, message(2))
    gateway.wait_mails(user, 2)
    assert client.stat()[0] == 1
    client.dele(1)
    client.quit()
    (left,) = gateway.mails(user)
    assert b"Subject: number 2\r\n" in left


def test_five_megabytes_come_whole(gateway: Gateway, user: str) -> None:
    body = b"".join(b".%d dots and numbers\r\n" % number for number in range(230_000))
    assert len(body) > 5_000_000
    (stored,) = fill(gateway, user, message(1, body))
    client = sign_in(gateway, user)
    assert retrieve(client, 1) == stored
    assert client.stat() == (1, len(stored))
    client.quit()
    assert stored.endswith(body)


def test_users_see_their_own_mail_only(gateway: Gateway, user: str) -> None:
    other = USERS[next(_NUMBERS)]
    (mine,) = fill(gateway, user, message(1))
    (theirs,) = fill(gateway, other, message(2))
    first, second = sign_in(gateway, user), sign_in(gateway, other, "pop3")
    assert retrieve(first, 1) == mine
    assert retrieve(second, 1) == theirs
    assert first.uidl()[1] != second.uidl()[1] or mine != theirs
    first.dele(1)
    first.quit()
    assert second.stat()[0] == 1
    second.quit()
    assert gateway.mails(user) == []
    assert gateway.mails(other) == [theirs]


def test_a_maildrop_is_one_session_s(gateway: Gateway, user: str) -> None:
    stored = fill(gateway, user, message(1), message(2))
    first = sign_in(gateway, user)
    first.dele(1)
    with pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"):
        sign_in(gateway, user)
    assert gateway.mails(user) == stored
    first.quit()
    second = sign_in(gateway, user)  # at once
    second.close()  # as when the network is lost: the connection's end frees it
    third = wait_until(lambda: _signed_in_or_none(gateway, user), 10, "the maildrop to be free")
    assert third.stat()[0] == 1
    third.quit()
    assert gateway.mails(user) == [stored[1]]


def _signed_in_or_none(gateway: Gateway, user: str) -> poplib.POP3 | None:
    try:
        return sign_in(gateway, user)
    except poplib.error_proto:
        return None


def test_sasl(gateway: Gateway, user: str) -> None:
    fill(gateway, user, message(1))
    initial = b64encode(f"\0{user}\0{PASSWORD}".encode())
    for lines in (
        [b"AUTH PLAIN " + initial],
        [b"AUTH PLAIN", initial],
        [b"auth login", b64encode(user.encode()), b64encode(PASSWORD.encode())],
        [b"AUTH PLAIN ###", b"AUTH PLAIN", b"*", b"AUTH CRAM-MD5", b"AUTH PLAIN bm8=", b"AUTH PLAIN " + initial],
    ):
        text = talk(gateway, b"".join(line + b"\r\n" for line in [*lines, b"STAT", b"QUIT"]))
        assert b"+OK 1 messages\r\n+OK 1 " in text, (lines, text)
    wrong = b64encode(f"\0{user}\0wrong".encode())
    assert b"-ERR [AUTH]" in talk(gateway, b"AUTH PLAIN " + wrong + b"\r\nQUIT\r\n")
    assert b"+OK mechanisms follow\r\nPLAIN\r\nLOGIN\r\n.\r\n" in talk(gateway, b"AUTH\r\nQUIT\r\n")


# --- odd clients ------------------------------------------------------------------------------------------------------


def test_pipelined_commands_are_answered_in_order(gateway: Gateway, user: str) -> None:
    (stored,) = fill(gateway, user, message(1, BODIES["dots"] + b"x" * 7000 + b"\r\n"))
    size = len(stored)
    stuffed = stored.replace(b"\r\n.", b"\r\n..")
    answer = talk(
        gateway,
        b"USER %b\r\nPASS %b\r\nstat\r\nLiSt 1\r\nRETR 1\r\nDELE 1\r\nRSET\r\nNOOP\r\nSTAT\r\nQUIT\r\nSTAT\r\n"
        % (user.encode(), PASSWORD.encode()),
    )
    before, found, after = answer.partition(stuffed + b".\r\n")
    assert found
    assert before.count(b"\r\n") == 6
    assert [line.split(b" ")[0] for line in before.split(b"\r\n")[:-1]] == [b"+OK"] * 6
    assert before.split(b"\r\n")[3:5] == [b"+OK 1 %d" % size, b"+OK 1 %d" % size]
    assert [line.split(b" ")[0] for line in after.split(b"\r\n")[:-1]] == [b"+OK"] * 5
    assert after.split(b"\r\n")[3] == b"+OK 1 %d" % size


@pytest.mark.parametrize(
    "command",
    [
        "", " ", "HELO x", "RETR", "RETR 0", "RETR 2", "RETR -1", "RETR 1 1", "RETR x", "RETR 99999999999999999999",
        "TOP 1", "TOP 1 x", "TOP 1 -1", "TOP 2 1", "LIST 0", "UIDL 7", "DELE", "DELE 01x", "USER again", "STLS",
        "RETR \u0661", "RETR ²", "TOP 1 ²",
    ],
)  # fmt: skip
def test_a_bad_command_gets_an_error_and_the_session_goes_on(gateway: Gateway, command: str) -> None:
    user = USERS[-1]
    if not gateway.mails(user):
        fill(gateway, user, message(1))
    client = sign_in(gateway, user)
    client.sock.sendall(command.encode() + b"\r\n")
    assert client.file.readline().startswith(b"-ERR")
    assert client.stat()[0] == 1
    client.quit()


@pytest.mark.parametrize("listener", ["pop3", "pop3s"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 600 + b"\r\n", b"\xff\xfe\xfd\r\n" * 5, b"A" * 100_000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n" * 500, b"\n", b"USER " + b"x" * 3000 + b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
    ],
    ids=["nul", "high", "endless", "http", "empty lines", "bare lf", "long name", "a handshake"],
)  # fmt: skip
def test_garbage_ends_nothing_but_its_own_session(gateway: Gateway, listener: str, garbage: bytes) -> None:
    answer = talk(gateway, garbage + b"\r\nQUIT\r\n", listener=listener, source=STRANGER)
    assert answer.startswith(b"+OK ")
    assert b"Traceback" not in answer
    assert b"-ERR" in answer or len(garbage) in (1, 100_000)  # one is a blank line; the other is cut off
    assert gateway.get("/readyz")[0] == 200
    client = sign_in(gateway, USERS[-2], "pop3s")
    assert client.stat() == (0, 0)
    client.quit()


def test_nothing_of_this_was_logged_as_a_fault(gateway: Gateway, user: str) -> None:
    """Garbage and dropped connections are the peer's matter: no error of ours, and no password in the log."""
    before = len(gateway.log())
    talk(gateway, b"A" * 100_000 + b"\r\n", listener="pop3", source=STRANGER)
    talk(gateway, b"\xff\r\nQUIT\r\n", listener="pop3s", source=STRANGER)
    client = sign_in(gateway, user)
    client.close()
    logged = gateway.log()[before:]
    assert "pop3 session ended" in logged
    assert "Traceback" not in logged
    assert "pop3 session failed" not in logged
    assert PASSWORD not in gateway.log()


# --- fetchmail --------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.skipif(missing("fetchmail") is not None, reason=str(missing("fetchmail")))
@pytest.mark.parametrize(("listener", "security"), [("pop3", "starttls"), ("pop3s", "implicit")])
def test_fetchmail_takes_all_mail_as_it_is(
    gateway: Gateway, user: str, tmp_path: Path, listener: str, security: peers.Security
) -> None:
    stored = fill(gateway, user, *(message(number, body) for number, body in enumerate(BODIES.values())))
    port = gateway.ports[listener]
    kept = peers.fetchmail_pop3(tmp_path, port, user, PASSWORD, security=security, keep=True)
    kept.result.expect()
    assert len(kept.messages) == len(stored)
    for octets, fetched in zip(stored, kept.messages, strict=True):
        peers.added_trace(octets, fetched)
    assert gateway.mails(user) == stored
    peers.fetchmail_pop3(tmp_path, port, user, PASSWORD, security=security).result.expect()
    assert gateway.mails(user) == []
    peers.fetchmail_pop3(tmp_path, port, user, PASSWORD, security=security).result.expect(1)


@pytest.mark.peers
@pytest.mark.skipif(missing("fetchmail") is not None, reason=str(missing("fetchmail")))
def test_fetchmail_is_told_that_the_password_is_wrong(gateway: Gateway, user: str, tmp_path: Path) -> None:
    port = gateway.ports["pop3s"]
    fetched = peers.fetchmail_pop3(tmp_path, port, user, "not the password", security="implicit")
    fetched.result.expect(3)
