"""LMTP, both ways: another MTA delivers into the store, and local mail is handed to another store."""

import imaplib
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import dovecot as dovecots
from tests.support.dovecot import Dovecot, dovecot_missing
from tests.support.gateway import Gateway
from tests.support.imapwire import client_context
from tests.support.peers import Postfix, postfix_missing
from tests.support.process import free_port, wait_until

LEO, MIA, NINA = "leo@example.org", "mia@example.org", "nina@example.org"
MESSAGE = b"From: a@elsewhere.test\r\nSubject: by lmtp\r\n\r\n.dot\r\nline\r\n"


# --- in -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(module_folder: Path, port: int) -> Iterator[Gateway]:
    settings = {"listen": {"lmtp": [f"127.0.0.1:{port}"]}, "limits": {"free_space": 0, "size": "1MB"}}
    with Gateway(module_folder / "gateway", users=(LEO, MIA, NINA, "gone@example.org"), settings=settings) as running:
        running.cli("alias", "add", "both@example.org", LEO, MIA).expect()
        running.cli("alias", "add", "away@example.org", "x@elsewhere.test").expect()
        running.cli("alias", "add", "past@example.org", "gone@example.org").expect()
        running.cli("alias", "add", "mixed@example.org", "gone@example.org", MIA).expect()
        running.cli("user", "delete", "gone@example.org").expect()
        running.cli("user", "quota", NINA, "1KB").expect()
        yield running


def test_each_recipient_is_answered(gateway: Gateway, port: int) -> None:
    asked = [LEO, NINA, "nobody@example.org", "both@example.org", "away@example.org", "x@elsewhere.test"]
    before, had = len(gateway.mails(LEO)), len(gateway.mails(MIA))
    with smtplib.LMTP("127.0.0.1", port, "mta.test") as client:
        client.sendmail("a@elsewhere.test", [NINA], b"Subject: fills\r\n\r\n" + b"x" * 800 + b"\r\n")
        client.mail("a@elsewhere.test")
        codes = [client.rcpt(address)[0] for address in asked]
        assert codes == [250, 452, 550, 250, 550, 550]
        assert client.docmd("DATA")[0] == 354
        client.send(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert [client.getreply()[0] for _ in range(2)] == [250, 250]
    assert len(gateway.mails(LEO)) == before + 2  # his own, and that of the alias: in the store when the answer came
    (mail,) = gateway.mails(MIA)[had:]
    assert mail.endswith(MESSAGE)
    assert mail.startswith(
        b"Return-Path: <a@elsewhere.test>\r\nDelivered-To: both@example.org\r\nReceived: from mta.test"
    )
    assert b"with LMTP id" in mail


def test_an_alias_leads_to_whom_there_is(gateway: Gateway, port: int) -> None:
    before = len(gateway.mails(MIA))
    with smtplib.LMTP("127.0.0.1", port, "mta.test") as client:
        refused = client.sendmail("a@elsewhere.test", ["mixed@example.org", "past@example.org"], MESSAGE)
    assert refused == {"past@example.org": (550, b"5.1.1 No such mailbox here")}
    assert len(gateway.mails(MIA)) == before + 1


def test_a_session_by_hand(gateway: Gateway, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, client.makefile("rb") as answers:

        def said(count: int = 1) -> list[bytes]:
            return [answers.readline()[:3] for _ in range(count)]

        assert said() == [b"220"]
        client.sendall(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nLHLO x\r\n")
        assert said(2) == [b"500", b"503"]
        while not answers.readline().startswith(b"250 "):
            pass
        client.sendall(b"RCPT TO:<leo@example.org>\r\nDATA\r\nMAIL FROM:<a@b.test> SIZE=99999999\r\nMAIL FROM:bad\r\n")
        assert said(4) == [b"503", b"503", b"552", b"501"]
        # All at once, two messages and the end.
        one = b"MAIL FROM:<>\r\nRCPT TO:<leo@example.org>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n"
        client.sendall(one + b"A: b\n\nbare\r\n.\r\n" + one + b"A: b\r\n\r\n..\r\n.\r\nQUIT\r\n")
        assert said(12 + 1) == [b"250"] * 3 + [b"354"] + [b"250"] * 2 + [b"250"] * 3 + [b"354"] + [b"250"] * 2 + [
            b"221"
        ]
        assert answers.readline() == b""
    assert gateway.mails(LEO)[-1].endswith(b"\r\nA: b\r\n\r\n.\r\n")
    bare = next(mail for mail in gateway.mails(LEO) if b"bare" in mail)
    assert bare.endswith(b"\r\nA: b\r\n\r\nbare\r\n")


def test_what_is_too_large_or_cut_short_is_not_stored(gateway: Gateway, port: int) -> None:
    before = len(gateway.mails(MIA))
    with smtplib.LMTP("127.0.0.1", port, "mta.test") as client:
        client.ehlo()
        client.docmd("MAIL", "FROM:<a@b.test>")
        client.docmd("RCPT", f"TO:<{MIA}>")
        code, _ = client.data(b"A: b\r\n\r\n" + b"x" * 70 + b"\r\n" * 1_000_000)
        assert code == 552
        assert client.noop()[0] == 250
        client.docmd("MAIL", "FROM:<a@b.test>")
        client.docmd("RCPT", f"TO:<{MIA}>")
        client.docmd("DATA")
        client.send(b"A: b\r\n\r\nhalf")
        client.close()
    assert len(gateway.mails(MIA)) == before
    assert gateway.is_up()


def test_strangers_are_not_served(gateway: Gateway, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.0.0.2", 0)) as client:
        assert client.makefile("rb").read().startswith(b"554 5.7.1 ")


def test_tls_is_there_for_those_who_want_it(gateway: Gateway, port: int) -> None:
    with smtplib.LMTP("127.0.0.1", port, "mta.test") as client:
        client.starttls(context=client_context())
        client.sendmail("a@elsewhere.test", [MIA], MESSAGE)
    assert b"with LMTPS id" in gateway.mails(MIA)[-1]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"LHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@b.test>\r\n")
        text = b"".join(iter(lambda: raw.recv(4096), b""))
        assert text.endswith(b"503 5.5.1 Commands must not follow STARTTLS before the handshake\r\n")


@pytest.mark.peers
def test_postfix_delivers_by_lmtp(gateway: Gateway, port: int, module_folder: Path) -> None:
    if reason := postfix_missing():
        pytest.skip(reason)
    main = {
        "virtual_mailbox_domains": "example.org",
        "virtual_mailbox_maps": "static:all",
        "virtual_transport": f"lmtp:inet:[127.0.0.1]:{port}",
        "lmtp_tls_security_level": "may",
    }
    before = len(gateway.mails(LEO))
    with Postfix(
        module_folder / "postfix", ("127.0.0.1", gateway.ports["smtp"]), extra_main=main,
        extra_master="lmtp unix - - n - - lmtp\n",
    ) as postfix:  # fmt: skip
        postfix.sendmail("a@elsewhere.test", [LEO, MIA, "nobody@example.org"], MESSAGE)
        gateway.wait_mails(LEO, before + 1)
        wait_until(
            lambda: "status=bounced (host 127.0.0.1[127.0.0.1] said: 550 5.1.1" in postfix.log(), 15, "the refusal"
        )
    assert gateway.mails(LEO)[-1].endswith(MESSAGE)
    assert b"with LMTPS id" in gateway.mails(LEO)[-1]


# --- out ----------------------------------------------------------------------------------------------------------


def handing(folder: Path, host: str) -> Gateway:
    none: list[str] = []
    listen = dict.fromkeys(("pop3", "pop3s", "imap", "imaps"), none)
    return Gateway(folder, users=(LEO, MIA, NINA), settings={"store": {"kind": "lmtp", "host": host}, "listen": listen})


@pytest.mark.peers
def test_dovecot_keeps_the_mail(module_folder: Path) -> None:
    if reason := dovecot_missing():
        pytest.skip(reason)
    homes = {user: module_folder / "homes" / user for user in (LEO, MIA)}
    with Dovecot(module_folder / "dovecot", homes, {MIA: "1000"}) as dovecot:  # noqa: SIM117  # the second needs the first
        with handing(module_folder / "handing", f"lmtp:unix:{dovecot.socket}") as gateway:
            gateway.send([LEO, MIA, NINA, LEO.replace("@", "+tag@")], MESSAGE + b"x" * 900 + b"\r\n")
            with imaplib.IMAP4_SSL("127.0.0.1", dovecot.port, ssl_context=client_context(), timeout=15) as client:
                client.login(LEO, dovecots.PASSWORD)
                wait_until(lambda: client.select("INBOX")[1] == [b"2"], 15, "both messages")
                octets = client.fetch("1", "(BODY[])")[1][0][1]  # type: ignore[index]
            assert b"Return-Path: <sender@elsewhere.test>" in octets
            assert octets.endswith(b".dot\r\nline\r\n" + b"x" * 900 + b"\r\n")
            # Dovecot has no such user, which is final; a full mailbox is not.
            (row,) = wait_until(lambda: [row for row in gateway.queue() if MIA in str(row)], 15, "what waits")
            assert "4.2.2" in str(row)
            assert gateway.metric("smarthost_deliveries_total", transport="lmtp", result="delivered") == 2
            assert gateway.metric("smarthost_deliveries_total", transport="lmtp", result="deferred") >= 1
            assert gateway.metric("smarthost_deliveries_total", transport="lmtp", result="failed") == 1


Script = Callable[[bytes], Sequence[bytes]]


class Server:
    """An LMTP server of one session after the other that answers the end of data by a script."""

    def __init__(self, ends: Sequence[Sequence[bytes]]) -> None:
        self._listening = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listening.getsockname()[1]
        self._ends = list(ends)
        self.seen: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                self._session(client, iter(lines.readline, b""))

    def _session(self, client: socket.socket, lines: Iterator[bytes]) -> None:
        client.sendall(b"220 script\r\n")
        for line in lines:
            self.seen.append(line)
            verb = line[:4].upper()
            if verb == b"LHLO":
                client.sendall(b"250-gateway.test\r\n250 PIPELINING\r\n")  # our own name: no loop, in LMTP
            elif verb == b"DATA":
                client.sendall(b"354 go on\r\n")
                while next(lines) != b".\r\n":
                    pass
                answers = self._ends.pop(0)
                client.sendall(b"".join(answers))
                if not answers[-1].endswith(b"\n"):
                    return
            elif verb == b"QUIT":
                return
            else:
                client.sendall(b"250 fine\r\n")

    def close(self) -> None:
        self._listening.close()


def test_what_was_said_of_some_counts_when_the_rest_is_lost(module_folder: Path) -> None:
    server = Server(
        [
            [b"250 2.0.0 first\r\n", b"452 4.2.2 full\r\n", b"5"],  # and gone, in the middle of the third answer
            [b"250 2.0.0 second\r\n", b"550 5.7.1 not you\r\n"],
        ]
    )
    try:
        with handing(module_folder / "scripted", f"lmtp:127.0.0.1:{server.port}") as gateway:
            gateway.send([LEO, MIA, NINA], MESSAGE)
            rows = wait_until(lambda: len(found := gateway.queue()) == 2 and found, 15, "what waits")
            assert b"RCPT TO:<leo@example.org>\r\n" in server.seen
            gateway.cli("queue", "retry", str(rows[0]["id"])).expect()
            wait_until(lambda: server.seen.count(b"DATA\r\n") == 2, 15, "the second attempt")
            assert server.seen.count(b"RCPT TO:<leo@example.org>\r\n") == 1  # who has it gets it once
            assert server.seen.count(b"RCPT TO:<mia@example.org>\r\n") == 2
            assert server.seen.count(b"RCPT TO:<nina@example.org>\r\n") == 2
            assert not any(line.startswith((b"EHLO", b"BDAT")) for line in server.seen)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"store": {"kind": "lmtp"}}, "store.host"),
        ({"store": {"kind": "lmtp", "host": "smtp:127.0.0.1:25"}}, "store.host"),
        ({"store": {"kind": "lmtp", "host": "lmtp:unix:relative"}}, "store.host"),
        ({"store": {"kind": "lmtp", "host": "lmtp:127.0.0.1:24"}}, "listen.imap"),
        ({"store": {"host": "lmtp:127.0.0.1:24"}}, 'is for kind = "lmtp"'),
    ],
)
def test_a_store_that_cannot_be_is_refused(tmp_path: Path, settings: dict[str, dict[str, object]], text: str) -> None:
    gateway = Gateway(tmp_path / "gateway", settings=settings)
    found = gateway.cli("check")
    assert found.code == 1
    assert text in found.stderr + found.stdout
