"""The harness of real peers itself: each peer is seen to carry mail without changing an octet of it."""

import base64
import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import peers
from tests.support.process import (
    Daemon,
    DeadlineError,
    Finished,
    StartError,
    free_port,
    missing,
    run,
    wait_until,
)

SENDERS: dict[str, Callable[..., Finished]] = {
    "msmtp": peers.msmtp_send,
    "swaks": peers.swaks,
    "curl": peers.curl_send,
}

pytestmark = pytest.mark.peers

SENDER = "alice@a.test"
RECIPIENTS = ["bob@b.test", "carol@b.test"]


def need(*reasons: str | None) -> None:
    """Skip the test for the first reason there is."""
    for reason in reasons:
        if reason is not None:
            pytest.skip(reason)


def sample(number: int = 0) -> bytes:
    """Return a CRLF message with all that a careless relay changes: dots, blanks, 8-bit octets, long lines."""
    fields = (
        b"Bcc: hidden@b.test\r\n"
        b"Return-Path: <kept@a.test>\r\n"
        b"from:   Alice  <alice@a.test>\r\n"
        b"To: undisclosed:;\r\n"
        b"Content-Length: 5\r\n"
        b"Subject: number %d\r\n"
        b"\tfolded \xc3\xa9 \r\n" % number
    )
    body = (
        b".\r\n..two\r\n...three\r\n \r\ntrailing  \t \r\nFrom here\r\n\x01\x7f\xff\xfe control\r\n"
        + b"x" * 3000
        + b"\r\n"
        + b"line of text\r\n" * (number * 200)
        + b"\r\n\r\n"
    )
    return fields + b"\r\n" + body


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[peers.SmtpSink]:
    """A running sink."""
    need(peers.sink_missing())
    with peers.SmtpSink(tmp_path) as running:
        yield running


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and 127.0.0.1, and its key."""
    need(missing("openssl"))
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    argv += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    run(argv).expect()
    return certificate, key


def tls_server(tmp_path: Path, sink: peers.SmtpSink, certificate: tuple[Path, Path], implicit: bool) -> peers.Postfix:
    """A Postfix that takes mail only over TLS and relays it to the sink."""
    settings = {
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_cert_file": str(certificate[0]),
        "smtpd_tls_key_file": str(certificate[1]),
        "smtpd_tls_wrappermode": "yes" if implicit else "no",
        "smtpd_tls_loglevel": "1",
    }
    return peers.Postfix(tmp_path, ("127.0.0.1", sink.port), hostname="tls.test", extra_main=settings)


# ---------------------------------------------------------------------------------------------------------------
# Processes


def test_ports_are_free_and_given_once() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert all(10_000 <= port <= 32_000 for port in ports)


def test_a_deadline_says_what_was_waited_for() -> None:
    with pytest.raises(DeadlineError, match="the moon"):
        wait_until(lambda: False, 0.05, "the moon")
    with pytest.raises(DeadlineError, match="hello"):
        run(["sh", "-c", "echo hello; exec sleep 60"], timeout=0.5)


def test_a_daemon_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    daemon = Daemon(["sh", "-c", "echo no such luck; exit 3"], log=tmp_path / "log", ready=lambda: False)
    with pytest.raises(StartError, match=r"(?s)ended with 3.*no such luck"):
        daemon.start()


def test_a_daemon_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = "trap '' TERM; echo up; while :; do sleep 1; done"
    daemon = Daemon(["sh", "-c", command], log=log, ready=lambda: "up" in log.read_text(), stop_timeout=0.3)
    with daemon:
        assert daemon.running()
    assert daemon.returncode == -9
    wait_until(daemon.session_is_empty, 5.0, "its children to end")


def test_missing_names_what_is_missing() -> None:
    assert missing("sh") is None
    assert "no-such-command" in (missing("sh", "no-such-command") or "")


# ---------------------------------------------------------------------------------------------------------------
# Mail servers


def relay_twenty(mta: peers.Mta, sink: peers.SmtpSink) -> None:
    """Send twenty messages through a server and see that each arrives unchanged."""
    sent = {number: sample(number) for number in range(20)}
    for message in sent.values():
        mta.sendmail(SENDER, RECIPIENTS, message, options=["BODY=8BITMIME"])
    got = sink.wait_messages(20)
    mta.wait_empty()
    assert len(got) == 20
    for number, message in sent.items():
        (one,) = (each for each in got if b"Subject: number %d\r\n" % number in each.data)
        trace = peers.added_trace(message, one.data)
        assert 1 <= len(trace) <= 2
        assert one.reverse_path == SENDER
        assert one.forward_paths == tuple(RECIPIENTS)
        assert one.helo == mta.hostname


def wait_through_an_outage(mta: peers.Mta, sink: peers.SmtpSink) -> None:
    """See that mail waits while the relay refuses, while the server itself is down, and is then delivered once."""
    mta.sendmail(SENDER, RECIPIENTS[:1], sample())
    wait_until(lambda: "450 4.3.0" in mta.log(), 15.0, "a refusal in the log")
    assert mta.queue_length() == 1
    mta.stop()
    assert mta.queue_length() == 1
    sink.restart()
    assert sink.messages() == []
    mta.start()
    mta.flush()
    mta.wait_empty()
    (one,) = sink.messages()
    peers.added_trace(sample(), one.data)


def test_postfix_relays_octets(tmp_path: Path, sink: peers.SmtpSink) -> None:
    need(peers.postfix_missing())
    with peers.Postfix(tmp_path, ("127.0.0.1", sink.port)) as postfix:
        relay_twenty(postfix, sink)
    assert not postfix.folder.exists()
    assert "status=sent" in postfix.log()
    for word in ("warning:", "error:", "fatal:", "panic:"):
        assert word not in postfix.log()


def test_postfix_keeps_deferred_mail(tmp_path: Path) -> None:
    need(peers.sink_missing(), peers.postfix_missing())
    with (
        peers.SmtpSink(tmp_path, soft=["RCPT"]) as sink,
        peers.Postfix(tmp_path, ("127.0.0.1", sink.port)) as postfix,
    ):
        wait_through_an_outage(postfix, sink)


def test_postfix_logs_in(tmp_path: Path, sink: peers.SmtpSink) -> None:
    need(peers.postfix_missing())
    login = {"auth": ("user@a.test", "pass word"), "auth_mechanisms": "plain"}
    with peers.Postfix(tmp_path, ("127.0.0.1", sink.port), **login) as postfix:  # type: ignore[arg-type]
        postfix.sendmail(SENDER, RECIPIENTS, sample())
        sink.wait_messages(1)
    assert "AUTH PLAIN AHVzZXJAYS50ZXN0AHBhc3Mgd29yZA==" in sink.log()


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("verify", [False, True], ids=["any", "verified"])
def test_postfix_relays_over_tls(
    tmp_path: Path, sink: peers.SmtpSink, certificate: tuple[Path, Path], implicit: bool, verify: bool
) -> None:
    need(peers.postfix_missing())
    with tls_server(tmp_path, sink, certificate, implicit) as server:
        relay = ("localhost" if verify else "127.0.0.1", server.port)
        security: peers.RelaySecurity = "implicit" if implicit else "starttls"
        with peers.Postfix(
            tmp_path, relay, security=security, ca_file=certificate[0] if verify else None, tls_name="localhost"
        ) as postfix:
            postfix.sendmail(SENDER, RECIPIENTS, sample())
            (one,) = sink.wait_messages(1)
        assert len(peers.added_trace(sample(), one.data)) == 2
        assert f"{'Verified' if verify else 'Untrusted'} TLS connection established to" in postfix.log()


def test_exim_relays_octets(tmp_path: Path, sink: peers.SmtpSink) -> None:
    need(peers.exim_missing())
    with peers.Exim(tmp_path, ("127.0.0.1", sink.port)) as exim:
        relay_twenty(exim, sink)
    assert not exim.folder.exists()
    assert "Completed" in exim.log()


def test_exim_keeps_deferred_mail(tmp_path: Path) -> None:
    need(peers.sink_missing(), peers.exim_missing())
    with peers.SmtpSink(tmp_path, soft=["RCPT"]) as sink, peers.Exim(tmp_path, ("127.0.0.1", sink.port)) as exim:
        wait_through_an_outage(exim, sink)


def test_exim_logs_in(tmp_path: Path, doorkeeper: "Doorkeeper") -> None:
    need(peers.exim_missing())
    port = int(doorkeeper.server_address[1])
    with peers.Exim(tmp_path, ("127.0.0.1", port), auth=("user@a.test", 'pa:ss: $w^rd {x} "q"\\n')) as exim:
        exim.sendmail(SENDER, RECIPIENTS, sample())
        exim.wait_empty()
    assert doorkeeper.logins == [("user@a.test", 'pa:ss: $w^rd {x} "q"\\n')]


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "implicit"])
@pytest.mark.parametrize("verify", [False, True], ids=["any", "verified"])
def test_exim_relays_over_tls(
    tmp_path: Path, sink: peers.SmtpSink, certificate: tuple[Path, Path], implicit: bool, verify: bool
) -> None:
    need(peers.postfix_missing(), peers.exim_missing())
    with tls_server(tmp_path, sink, certificate, implicit) as server:
        security: peers.RelaySecurity = "implicit" if implicit else "starttls"
        relay = ("localhost", server.port)
        with peers.Exim(tmp_path, relay, security=security, ca_file=certificate[0] if verify else None) as exim:
            exim.sendmail(SENDER, RECIPIENTS, sample())
            (one,) = sink.wait_messages(1)
            exim.wait_empty()
        assert len(peers.added_trace(sample(), one.data)) == 2
        assert f"CV={'yes' if verify else 'no'}" in exim.log()


# ---------------------------------------------------------------------------------------------------------------
# The sink


def test_the_sink_refuses_as_told(tmp_path: Path) -> None:
    need(peers.sink_missing(), missing("swaks"))
    with peers.SmtpSink(tmp_path, hard=["RCPT"], hard_reply="550 5.1.1 nobody here") as sink:
        refused = peers.swaks(tmp_path, sink.port, SENDER, RECIPIENTS, sample())
        assert refused.code == 24
        assert "550 5.1.1 nobody here" in refused.stdout
        sink.restart(shut=["DATA"])
        assert "421" in peers.swaks(tmp_path, sink.port, SENDER, RECIPIENTS, sample()).stdout
        assert sink.messages() == []
        sink.restart()
        peers.swaks(tmp_path, sink.port, SENDER, RECIPIENTS, sample()).expect()
        assert len(sink.wait_messages(1)) == 1
        sink.clear()
        assert sink.messages() == []


# ---------------------------------------------------------------------------------------------------------------
# Programs for one message


@pytest.mark.parametrize("program", ["msmtp", "swaks", "curl"])
def test_a_program_sends_octets(tmp_path: Path, sink: peers.SmtpSink, program: str) -> None:
    need(missing(program))
    SENDERS[program](tmp_path, sink.port, SENDER, RECIPIENTS, sample()).expect()
    (one,) = sink.wait_messages(1)
    assert one.data == sample()
    assert one.reverse_path == SENDER
    assert one.forward_paths == tuple(RECIPIENTS)
    assert one.helo == f"{program}.test"


@pytest.mark.parametrize("program", ["msmtp", "swaks", "curl"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_program_logs_in(tmp_path: Path, doorkeeper: "Doorkeeper", program: str, mechanism: str) -> None:
    need(missing(program))
    send, port = SENDERS[program], int(doorkeeper.server_address[1])
    password = "pass word: $w^rd, 'quoted'"
    send(tmp_path, port, SENDER, RECIPIENTS, sample(), auth=("user@a.test", password), mechanism=mechanism).expect()
    assert doorkeeper.logins == [("user@a.test", password)]


@pytest.mark.parametrize("program", ["msmtp", "swaks", "curl"])
@pytest.mark.parametrize("security", ["starttls", "implicit"])
@pytest.mark.parametrize("trusted", [None, True, False], ids=["any", "trusted", "stranger"])
def test_a_program_sends_over_tls(
    tmp_path: Path,
    sink: peers.SmtpSink,
    certificate: tuple[Path, Path],
    program: str,
    security: peers.Security,
    trusted: bool | None,
) -> None:
    need(missing(program), peers.postfix_missing())
    ca_file: Path | None = None
    if trusted is not None:
        ca_file = certificate[0]
    if trusted is False:
        ca_file = tmp_path / "stranger.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger"]
        run([*argv, "-keyout", str(tmp_path / "stranger.key"), "-out", str(ca_file)]).expect()
    with tls_server(tmp_path, sink, certificate, security == "implicit") as server:
        sent = SENDERS[program](
            tmp_path,
            server.port,
            SENDER,
            RECIPIENTS,
            sample(),
            host="localhost",
            security=security,
            ca_file=ca_file,
        )
        if trusted is False:
            assert sent.code != 0
            assert server.queue_length() == 0
        else:
            sent.expect()
            (one,) = sink.wait_messages(1)
            assert len(peers.added_trace(sample(), one.data)) == 1


# ---------------------------------------------------------------------------------------------------------------
# Small servers for what the real ones lack


class Doorkeeper(socketserver.ThreadingTCPServer):
    """An SMTP server that takes mail only after a login, and notes each login: smtp-sink's AUTH is not to standard."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        """Listen on a free port."""
        self.logins: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", free_port()), DoorkeeperSession)


class DoorkeeperSession(socketserver.StreamRequestHandler):
    """One connection to the doorkeeper."""

    def ask(self, challenge: str) -> str:
        """Send a challenge and return the decoded answer."""
        self.wfile.write(f"334 {base64.b64encode(challenge.encode()).decode()}\r\n".encode())
        return base64.b64decode(self.rfile.readline()).decode()

    def handle(self) -> None:
        """Answer commands until QUIT."""
        assert isinstance(self.server, Doorkeeper)
        known = False
        self.wfile.write(b"220 door.test\r\n")
        for line in self.rfile:
            verb, *words = line.decode().split()
            answer = b"250 ok\r\n"
            if verb == "EHLO":
                answer = b"250-door.test\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n"
            elif verb == "AUTH":
                initial = base64.b64decode(words[1]).decode() if len(words) > 1 else None
                if words[0] == "PLAIN":
                    _, user, password = (self.ask("") if initial is None else initial).split("\0")
                else:
                    user = self.ask("Username:") if initial is None else initial
                    password = self.ask("Password:")
                self.server.logins.append((user, password))
                known = True
                answer = b"235 welcome\r\n"
            elif verb == "MAIL" and not known:
                answer = b"530 log in\r\n"
            elif verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() != b".\r\n":
                    pass
            elif verb == "QUIT":
                answer = b"221 bye\r\n"
            self.wfile.write(answer)
            if verb == "QUIT":
                break


@pytest.fixture
def doorkeeper() -> Iterator[Doorkeeper]:
    """A running server that wants a login."""
    with Doorkeeper() as server, served(server):
        yield server


@contextlib.contextmanager
def served(server: socketserver.TCPServer) -> Iterator[None]:
    """Let a server answer in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(10.0)


class Mailbox(socketserver.ThreadingTCPServer):
    """A POP3 server that knows just enough to hand out a few messages, and which of them were deleted."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, messages: list[bytes], security: peers.Security = "none", pair: tuple[Path, Path] | None = None
    ) -> None:
        """Listen on a free port; TLS takes a certificate and its key."""
        self.messages = messages
        self.security = security
        self.logins_in_clear = 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if pair is not None:
            self.tls.load_cert_chain(*pair)
        self.deleted: set[int] = set()
        super().__init__(("127.0.0.1", free_port()), MailboxSession)


class MailboxSession(socketserver.StreamRequestHandler):
    """One connection to the mailbox."""

    def handle(self) -> None:
        """Answer commands until QUIT."""
        assert isinstance(self.server, Mailbox)
        box = self.server
        with contextlib.suppress(OSError):  # a client that trusts us not just goes away
            if box.security == "implicit":
                self.begin_tls(box.tls)
            self.wfile.write(b"+OK ready\r\n")
            self.converse(box)

    def begin_tls(self, tls: ssl.SSLContext) -> None:
        """Go on over TLS."""
        self.connection = tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

    def finish(self) -> None:
        """Close the connection, also when it became another by TLS."""
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def converse(self, box: Mailbox) -> None:
        """Answer commands until QUIT."""
        while line := self.rfile.readline():
            verb, *words = line.decode().split()
            answer = b"+OK\r\n"
            if verb == "STLS" and box.security == "starttls":
                self.wfile.write(answer)
                self.begin_tls(box.tls)
                continue
            if verb == "PASS":
                box.logins_in_clear += not isinstance(self.connection, ssl.SSLSocket)
            if verb == "PASS" and words != ["secret"]:
                answer = b"-ERR no\r\n"
            elif verb == "CAPA" and box.security == "starttls":
                answer = b"+OK\r\nSTLS\r\nUSER\r\n.\r\n"
            elif verb == "STLS":
                answer = b"-ERR no\r\n"
            elif verb == "STAT":
                answer = b"+OK %d %d\r\n" % (len(box.messages), sum(map(len, box.messages)))
            elif verb in ("UIDL", "CAPA"):
                answer = b"-ERR unknown\r\n"
            elif verb == "LIST" and words:
                answer = b"+OK %s %d\r\n" % (words[0].encode(), len(box.messages[int(words[0]) - 1]))
            elif verb == "LIST":
                rows = [b"%d %d\r\n" % (number, len(each)) for number, each in enumerate(box.messages, 1)]
                answer = b"+OK\r\n" + b"".join(rows) + b".\r\n"
            elif verb in ("RETR", "TOP"):
                answer = b"+OK\r\n" + box.messages[int(words[0]) - 1].replace(b"\r\n.", b"\r\n..") + b".\r\n"
            elif verb == "DELE":
                box.deleted.add(int(words[0]))
            self.wfile.write(answer)
            if verb == "QUIT":
                break


LETTERS = [
    b"From: alice@a.test\r\nTo: bob@b.test\r\nSubject: %d\r\n\r\n.dot\r\n8-bit \xc3\xa9\r\n\r\n" % number
    + b"text\r\n" * number
    for number in range(3)
]


# ---------------------------------------------------------------------------------------------------------------
# fetchmail


def test_fetchmail_takes_mail(tmp_path: Path) -> None:
    need(missing("fetchmail"))
    with Mailbox(LETTERS) as mailbox, served(mailbox):
        port = int(mailbox.server_address[1])
        refused = peers.fetchmail_pop3(tmp_path, port, "bob", "wrong")
        assert refused.result.code == 3
        kept = peers.fetchmail_pop3(tmp_path, port, "bob", "secret", keep=True)
        kept.result.expect()
        assert list(kept.messages) == LETTERS
        assert mailbox.deleted == set()
        taken = peers.fetchmail_pop3(tmp_path, port, "bob", "secret")
        taken.result.expect()
        assert list(taken.messages) == LETTERS
        assert mailbox.deleted == {1, 2, 3}


@pytest.mark.parametrize("security", ["starttls", "implicit"])
@pytest.mark.parametrize("verify", [False, True], ids=["any", "verified"])
def test_fetchmail_takes_mail_over_tls(
    tmp_path: Path, certificate: tuple[Path, Path], security: peers.Security, verify: bool
) -> None:
    need(missing("fetchmail"))
    ca_file = certificate[0] if verify else None
    with Mailbox(LETTERS, security, certificate) as mailbox, served(mailbox):
        port = int(mailbox.server_address[1])
        taken = peers.fetchmail_pop3(
            tmp_path, port, "bob", "secret", host="localhost", security=security, ca_file=ca_file
        )
        taken.result.expect()
        assert list(taken.messages) == LETTERS
        assert mailbox.logins_in_clear == 0
        if verify:
            wrong_name = peers.fetchmail_pop3(
                tmp_path, port, "bob", "secret", security=security, ca_file=ca_file, extra="sslcommonname other.test"
            )
            assert wrong_name.result.code == 2


def test_fetchmail_demands_tls(tmp_path: Path) -> None:
    need(missing("fetchmail"))
    with Mailbox(LETTERS) as mailbox, served(mailbox):
        port = int(mailbox.server_address[1])
        refused = peers.fetchmail_pop3(tmp_path, port, "bob", "secret", security="starttls")
        assert refused.result.code != 0
        assert mailbox.logins_in_clear == 0
