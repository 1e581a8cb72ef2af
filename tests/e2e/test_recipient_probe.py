"""recipient.exists of relay domains in a running gateway of two workers: next hops of every temper are asked."""

import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.gateway import STRANGER, Gateway
from tests.support.process import free_port, wait_until
from tests.support.raw import WORKERS, RawClient, RawReply, message, only_worker, temporary_gateway, trace_command
from tests.support.remote import make_certificate
from tests.support.tlssink import TlsSink

CHECK_S = 2.0
KEEP_MISSING_S = 2.0
RECIPIENT = """\
stage: recipient
rules:
  - reject: no such mailbox at the next hop
    when: recipient.is_relayed and not recipient.exists
    reply: 550 5.1.1 <{recipient.address}>: nobody there
"""
ASKED = {"EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "RSET", "QUIT"}


class Script(socketserver.ThreadingTCPServer):
    """A next hop in clear whose habits TlsSink lacks. lines: all commands it got."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, habit: str) -> None:
        super().__init__(("127.0.0.1", 0), _Talk)
        self.habit, self.port = habit, self.server_address[1]
        self.lines: list[str] = []

    def __enter__(self) -> "Script":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *about: object) -> None:
        self.shutdown()
        self.server_close()


class _Talk(socketserver.StreamRequestHandler):
    server: Script

    def handle(self) -> None:
        habit, mails, is_utf8 = self.server.habit, 0, False
        self.say("220 script.test")
        for raw in self.rfile:
            line = raw.decode("utf-8", "replace").strip()
            verb = line.split(" ")[0].upper()
            self.server.lines.append(line)
            if verb == "MAIL":
                mails, is_utf8 = mails + 1, "SMTPUTF8" in line
                if mails > 1 and habit in ("hangs up at the second", "421 at the second"):
                    if habit.startswith("421"):
                        self.say("421 4.7.0 one transaction is enough")
                    return
            if verb == "RCPT" and habit == "silent":
                time.sleep(30)
                return
            if verb == "RCPT" and habit == "slow":
                time.sleep(0.5)
            if verb == "EHLO":
                self.say("250-script.test" + ("\r\n250-SMTPUTF8" if habit == "utf8" else "") + "\r\n250 HELP")
            elif verb == "RCPT" and not line.isascii() and not is_utf8:
                self.say("553 5.6.7 SMTPUTF8 was not said")
            else:
                self.say("221 bye" if verb == "QUIT" else "250 2.0.0 OK")

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class Hops:
    """The next hops by domain, and the gateway in front of them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        certificate, key = make_certificate(folder / "hop-tls", "hop.test")

        def sink(**options: object) -> TlsSink:
            return stack.enter_context(TlsSink(certificate=certificate, key=key, **options))  # type: ignore[arg-type]

        self.certificate, self.key, self.down_port = certificate, key, free_port()
        self.sinks = {
            "hop.test": sink(),
            "any.test": sink(),
            "nonull.test": sink(replies={"MAIL": "550 5.7.1 no null reverse-path here"}),
            "drops.test": sink(drop_at="RCPT"),
            "greets421.test": sink(replies={"CONNECT": "421 4.3.2 not now"}),
            "broken.test": sink(broken_handshake=True),
        }
        self.scripts = {
            f"{habit.split()[0]}.test": stack.enter_context(Script(habit))
            for habit in ("silent", "slow", "utf8", "hangs up at the second", "421 at the second")
        }
        ports = {domain: hop.port for domain, hop in (*self.sinks.items(), *self.scripts.items())}
        ports["down.test"] = self.down_port
        self.settings: dict[str, dict[str, object]] = {
            f'relay_domains."{domain}"': {"host": f"smtp:127.0.0.1:{port}", "recipients": "probe"}
            for domain, port in ports.items()
        }
        self.settings['relay_domains."any.test"']["recipients"] = "any"
        self.settings["checks.recipients"] = {
            "timeout": f"{int(CHECK_S * 1000)}ms",
            "keep_missing": f"{int(KEEP_MISSING_S * 1000)}ms",
        }
        self.gateway: Gateway

    def rcpts(self, address: str) -> int:
        """How often a hop was asked for a mailbox."""
        domain = address.rpartition("@")[2]
        lines = self.sinks[domain].commands if domain in self.sinks else self.scripts[domain].lines
        return sum(line.upper().startswith("RCPT") and f"<{address}>" in line for line in lines)


@pytest.fixture(scope="module")
def hops() -> Iterator[Hops]:
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        found = Hops(stack, folder)
        policies = {"35-relayed.yaml": RECIPIENT}
        found.gateway = stack.enter_context(temporary_gateway(settings=found.settings, policies=policies))
        yield found


def rcpt(hops: Hops, address: str, worker: str = "", parameters: str = "") -> RawReply:
    """The answer to RCPT from a stranger, on this worker or on any."""
    with ExitStack() as stack:
        if worker:
            stack.enter_context(only_worker(hops.gateway, worker))
        client = stack.enter_context(RawClient(hops.gateway.ports["smtp"], source=STRANGER))
        client.ehlo()
        assert client.line(f"MAIL FROM:<bob@elsewhere.test>{parameters}").code == 250
        return client.line(f"RCPT TO:<{address}>")


# --- what the hop says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "said", "code"),
    [
        ("known", "250 2.1.5 OK", 250),
        ("moved", "251 2.1.5 forwarded", 250),
        ("missing", "550 5.1.1 no such user", 550),
        ("bare", "550 no such user", 550),
        ("disabled", "550 5.2.1 disabled", 550),
        ("denied", "550 5.7.1 access denied", 451),
        ("blocked", "554 5.7.1 your address is blocked", 451),
        ("greylisted", "450 4.2.0 come again", 451),
        ("busy", "451 4.3.0 trouble", 451),
        ("closing", "421 4.3.2 closing", 451),
    ],
)
def test_what_the_next_hop_says_is_the_answer(hops: Hops, local: str, said: str, code: int) -> None:
    """What it does not say is deferred, as [checks.recipients] on_error has it."""
    hops.sinks["hop.test"].replies[f"{local}@hop.test"] = said
    assert rcpt(hops, f"{local}@hop.test").code == code
    assert hops.rcpts(f"{local}@hop.test") == 1


@pytest.mark.parametrize("domain", ["nonull.test", "drops.test", "greets421.test", "down.test", "silent.test"])
def test_a_hop_that_does_not_say_defers_within_the_deadline(hops: Hops, domain: str) -> None:
    started = time.monotonic()
    answer = rcpt(hops, f"ann@{domain}")
    assert (answer.code, answer.lines[0].partition(" ")[0]) == (451, "4.7.1")
    assert time.monotonic() - started < CHECK_S + 3
    assert "recipient.exists = unknown" in trace_command(hops.gateway, answer)


def test_a_hop_that_comes_up_again_is_asked_again(hops: Hops) -> None:
    assert rcpt(hops, "new@down.test").code == 451
    with TlsSink(port=hops.down_port, replies={"gone@down.test": "550 5.1.1 gone"}) as sink:
        assert [rcpt(hops, f"{name}@down.test").code for name in ("new", "gone")] == [250, 550]
        assert sink.messages == []


def test_a_hop_whose_tls_is_broken_is_asked_in_clear(hops: Hops) -> None:
    hops.sinks["broken.test"].replies["gone@broken.test"] = "550 5.1.1 gone"
    assert [rcpt(hops, f"{name}@broken.test").code for name in ("ann", "gone")] == [250, 550]
    assert "STARTTLS" in hops.sinks["broken.test"].verbs()


def test_a_domain_that_is_not_probed_has_every_mailbox(hops: Hops) -> None:
    assert rcpt(hops, "whoever@any.test").code == 250
    assert hops.sinks["any.test"].commands == []


@pytest.mark.parametrize("domain", ["hangs.test", "421.test"])
def test_a_hop_that_takes_one_transaction_a_connection_answers_every_question(hops: Hops, domain: str) -> None:
    """A kept connection that the hop has had enough of says nothing of the mailbox: a new one is made."""
    codes = [rcpt(hops, f"u{number}@{domain}", "smtp-0").code for number in range(4)]
    assert codes == [250] * 4


def test_a_mailbox_beyond_ascii_is_asked_for_as_such(hops: Hops) -> None:
    assert rcpt(hops, "jörg@utf8.test", parameters=" SMTPUTF8").code == 250


# --- how often it is asked --------------------------------------------------------------------------------------------


def test_an_existing_mailbox_is_asked_for_once_by_all_workers(hops: Hops) -> None:
    assert [rcpt(hops, "kept@hop.test", worker).code for worker in (*WORKERS, *WORKERS)] == [250] * 4
    assert hops.rcpts("kept@hop.test") == 1
    hops.sinks["hop.test"].replies["kept@hop.test"] = "550 5.1.1 gone since"
    assert rcpt(hops, "kept@hop.test").code == 250


def test_a_missing_mailbox_is_asked_for_again_after_a_while(hops: Hops) -> None:
    sink, address = hops.sinks["hop.test"], "hired@hop.test"
    sink.replies[address] = "550 5.1.1 no such user"
    asked = time.monotonic()
    assert rcpt(hops, address, WORKERS[0]).code == 550
    del sink.replies[address]
    if time.monotonic() - asked < KEEP_MISSING_S / 2:  # on a busy machine it may be forgotten by now
        assert rcpt(hops, address, WORKERS[1]).code == 550
        assert hops.rcpts(address) == 1
    time.sleep(max(0.0, asked + KEEP_MISSING_S + 0.3 - time.monotonic()))
    assert rcpt(hops, address, WORKERS[1]).code == 250
    assert hops.rcpts(address) == 2


def test_what_was_not_said_is_asked_for_anew(hops: Hops) -> None:
    hops.sinks["hop.test"].replies["later@hop.test"] = "450 4.2.0 come again"
    assert [rcpt(hops, "later@hop.test").code for _ in range(2)] == [451, 451]
    del hops.sinks["hop.test"].replies["later@hop.test"]
    assert rcpt(hops, "later@hop.test").code == 250


def test_many_who_ask_at_once_ask_once(hops: Hops) -> None:
    with only_worker(hops.gateway, WORKERS[0]), ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: rcpt(hops, "many@slow.test").code, range(12)))
    assert answers == [250] * 12
    assert hops.rcpts("many@slow.test") == 1


def test_a_message_for_many_is_asked_for_each_and_delivered_to_those_who_exist(hops: Hops) -> None:
    sink = hops.sinks["hop.test"]
    sink.replies["nemo@hop.test"] = "550 5.1.1 no such user"
    with RawClient(hops.gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        assert client.line("MAIL FROM:<bob@elsewhere.test>").code == 250
        client.send(b"RCPT TO:<one@hop.test>\r\nRCPT TO:<nemo@hop.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n")
        assert client.codes(4) == [250, 550, 250, 354]
        client.send(message("for-many") + b".\r\n")
        assert client.reply().code == 250
    wait_until(lambda: delivered(sink, "for-many"), 15.0, "the message at the next hop")
    assert delivered(sink, "for-many") == ["one@hop.test"]


def delivered(sink: TlsSink, marker: str) -> list[str]:
    found = [taken for taken in sink.messages if marker.encode() in taken.data]
    return [path for taken in found for path in taken.forward_paths]


# --- no more than a question ------------------------------------------------------------------------------------------


def test_nothing_is_sent_beyond_rcpt(hops: Hops) -> None:
    """From the null reverse-path, one recipient in each transaction, no content."""
    with TlsSink(port=hops.down_port) as sink:
        assert [rcpt(hops, f"q{number}@down.test").code for number in range(5)] == [250] * 5
        mails = [command for command in sink.commands if command.startswith("MAIL")]
        assert set(sink.verbs()) <= ASKED
        assert mails == ["MAIL FROM:<>"] * 5
        assert sink.verbs().count("RCPT") == 5
        assert sink.messages == []
    for domain in ("nonull.test", "drops.test", "broken.test", "any.test"):
        assert hops.sinks[domain].messages == []
        assert set(hops.sinks[domain].verbs()) <= ASKED
    for script in hops.scripts.values():
        assert {line.split(" ")[0] for line in script.lines} <= ASKED
