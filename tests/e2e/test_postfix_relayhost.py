"""Real MTAs and mail programs hand their mail to the gateway: all of it arrives, once each, octet for octet."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.demo.nameserver import NameServer
from tests.support import peers
from tests.support.gateway import PASSWORD, Gateway
from tests.support.peers import SmtpSink
from tests.support.process import Finished, missing, wait_until

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(peers.sink_missing() is not None, reason=str(peers.sink_missing())),
]

USERS = tuple(f"{name}@example.org" for name in ("alice", "bob", "carol", "dave"))
REMOTE = ("one@remote.test", "two@remote.test", "three@other.test")
SENDERS = tuple(f"sender{number}@list{number % 3}.test" for number in range(7))
RECORDS = (
    "remote.test MX 10 mx.remote.test.",
    "mx.remote.test A 127.0.0.1",
    "other.test MX 10 mx.remote.test.",
)


@dataclass(frozen=True, slots=True)
class Mail:
    """One message with its envelope; `key` stands in its header and names it."""

    key: str
    sender: str
    recipients: tuple[str, ...]
    octets: bytes
    is_signed: bool


class Signer:
    """Signs as list0.test and verifies with its own public key."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._record = b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])

    def sign(self, message: bytes, canonical: tuple[bytes, bytes]) -> bytes:
        signature: bytes = dkim.sign(message, b"sel", b"list0.test", self._private, canonicalize=canonical)
        return signature + message

    def verifies(self, message: bytes) -> bool:
        def record(name: bytes, timeout: int = 5) -> bytes | None:
            return self._record if name.rstrip(b".") == b"sel._domainkey.list0.test" else None

        return bool(dkim.verify(message, dnsfunc=record))


@dataclass(frozen=True, slots=True)
class World:
    gateway: Gateway
    sink: SmtpSink
    signer: Signer


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A gateway, the remote side and a signer."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    with SmtpSink(folder) as sink, NameServer(RECORDS) as dns:
        settings = {"dns": {"servers": [dns.address]}, "delivery": {"port": sink.port}}
        with Gateway(folder / "gateway", settings=settings, users=USERS) as gateway:
            yield World(gateway, sink, Signer())
    shutil.rmtree(folder, ignore_errors=True)


def make_mails(world: World, batch: str, count: int, *, largest: int = 200_000) -> list[Mail]:
    """Mail of all kinds, the same at every run."""
    dice = random.Random(batch)
    found = []
    for number in range(count):
        key = f"{batch}-{number}"
        local = dice.sample(USERS, dice.choice((0, 1, 1, 1, 2, 3)))
        remote = dice.sample(REMOTE, dice.choice((0, 1, 1, 2)) if local else dice.choice((1, 1, 2, 3)))
        size = int(500 * (largest / 500) ** dice.random())
        is_8bit = number % 3 == 0
        line = (b"Gr\xc3\xbc\xc3\x9fe, \xff\xfe and " if is_8bit else b"Greetings and ") + b"x" * dice.randint(1, 700)
        header = (
            f"From: Sender <{SENDERS[number % 7]}>\r\nTo: undisclosed-recipients:;\r\nSubject:  number {number}\r\n"
            f"Date: Tue, 24 Nov 2026 06:00:00 +0000\r\nMessage-ID: <{key}@list0.test>\r\nX-Key: {key}\r\n\r\n"
        ).encode()
        body = b".\r\n..two dots\r\ntrailing \t \r\n" + (line + b"\r\n") * (size // (len(line) + 2))
        octets = header + body + (b"\r\n" * (number % 3))
        is_signed = number % 5 == 0
        if is_signed:
            canonical = ((b"relaxed", b"simple"), (b"simple", b"simple"), (b"relaxed", b"relaxed"))[number % 3]
            octets = world.signer.sign(octets, canonical)
        found.append(Mail(key, SENDERS[number % 7], (*local, *remote), octets, is_signed))
    return found


def arrived(world: World, batch: str) -> list[tuple[str, str, str, bytes]]:
    """Every copy of a batch's mail: (key, recipient, sender, octets)."""
    found = []
    for user in USERS:
        for stored in world.gateway.mails(user):
            key = _key(stored)
            if key.startswith(f"{batch}-"):
                sender = stored.partition(b"\r\n")[0].removeprefix(b"Return-Path: <").removesuffix(b">")
                found.append((key, user, sender.decode(), stored))
    for sunk in world.sink.messages():
        key = _key(sunk.data)
        if key.startswith(f"{batch}-"):
            found += [(key, recipient, sunk.reverse_path, sunk.data) for recipient in sunk.forward_paths]
    return found


def _key(octets: bytes) -> str:
    return octets.partition(b"\r\nX-Key: ")[2].partition(b"\r\n")[0].decode("ascii", "replace")


def wait_until_gateway_is_done(world: World, timeout: float) -> None:
    wait_until(lambda: world.gateway.metric("smarthost_queue_messages") == 0, timeout, "an empty queue", interval=0.1)


def assert_all_arrived_once_and_unchanged(world: World, batch: str, mails: list[Mail], hops: int) -> None:
    """hops: how many Received fields stand in front."""
    copies = arrived(world, batch)
    expected = Counter((mail.key, recipient) for mail in mails for recipient in mail.recipients)
    assert Counter((key, recipient) for key, recipient, _, _ in copies) == expected
    by_key = {mail.key: mail for mail in mails}
    verified = 0
    for key, _, sender, octets in copies:
        mail = by_key[key]
        assert sender == mail.sender
        fields = peers.added_trace(mail.octets, octets)
        names = Counter(field.partition(b":")[0].lower() for field in fields)
        assert names[b"received"] == hops
        if mail.is_signed:
            assert world.signer.verifies(octets), key
            verified += 1
    assert verified >= len([mail for mail in mails if mail.is_signed]) > 0


@pytest.mark.skipif(peers.postfix_missing() is not None, reason=str(peers.postfix_missing()))
def test_five_hundred_messages_from_postfix_arrive_once_and_unchanged(world: World, tmp_path: Path) -> None:
    mails = make_mails(world, "postfix", 500)
    relayhost = ("127.0.0.1", world.gateway.ports["smtp"])
    with peers.Postfix(tmp_path, relayhost) as postfix, ThreadPoolExecutor(6) as threads:

        def hand_over(mail: Mail) -> str:
            return postfix.sendmail(mail.sender, mail.recipients, mail.octets, options=["BODY=8BITMIME"])

        assert len(list(threads.map(hand_over, mails))) == 500
        postfix.wait_empty(40.0)
        log = postfix.log()
    assert "status=deferred" not in log
    assert "status=bounced" not in log
    wait_until_gateway_is_done(world, 30.0)
    assert_all_arrived_once_and_unchanged(world, "postfix", mails, hops=2)


@pytest.mark.skipif(peers.exim_missing() is not None, reason=str(peers.exim_missing()))
def test_fifty_messages_from_exim_arrive_once_and_unchanged(world: World, tmp_path: Path) -> None:
    mails = make_mails(world, "exim", 50)
    relayhost = ("127.0.0.1", world.gateway.ports["smtp"])
    with peers.Exim(tmp_path, relayhost) as exim, ThreadPoolExecutor(8) as threads:

        def hand_over(mail: Mail) -> str:
            return exim.sendmail(mail.sender, mail.recipients, mail.octets, options=["BODY=8BITMIME"])

        assert len(list(threads.map(hand_over, mails))) == 50
        exim.wait_empty(40.0)
    wait_until_gateway_is_done(world, 20.0)
    assert_all_arrived_once_and_unchanged(world, "exim", mails, hops=2)


@pytest.mark.skipif(missing("msmtp") is not None, reason=str(missing("msmtp")))
def test_fifty_messages_from_msmtp_arrive_once_and_unchanged(world: World, tmp_path: Path) -> None:
    mails = make_mails(world, "msmtp", 50)
    with ThreadPoolExecutor(4) as threads:

        def hand_over(mail: Mail) -> Finished:
            port = world.gateway.ports["smtp"]
            return peers.msmtp_send(tmp_path, port, mail.sender, mail.recipients, mail.octets)

        for finished in threads.map(hand_over, mails):
            finished.expect()
    wait_until_gateway_is_done(world, 20.0)
    assert_all_arrived_once_and_unchanged(world, "msmtp", mails, hops=1)


@pytest.mark.parametrize(("listener", "security"), [("submission", "starttls"), ("submissions", "implicit")])
@pytest.mark.parametrize("program", ["swaks", "curl"])
def test_users_send_over_tls_with(
    world: World, tmp_path: Path, program: str, listener: str, security: peers.Security
) -> None:
    if missing(program) is not None:
        pytest.skip(str(missing(program)))
    send: Callable[..., Finished] = {"swaks": peers.swaks, "curl": peers.curl_send}[program]
    batch = f"{program}-{security}"
    mails = make_mails(world, batch, 2, largest=20_000)
    for mail in mails:
        port = world.gateway.ports[listener]
        finished = send(
            tmp_path, port, mail.sender, mail.recipients, mail.octets, security=security, auth=(USERS[0], PASSWORD)
        )
        finished.expect()
    wait_until_gateway_is_done(world, 10.0)
    assert_all_arrived_once_and_unchanged(world, batch, mails, hops=1)
    assert all(b" with ESMTPSA id " in octets for _, _, _, octets in arrived(world, batch))


@pytest.mark.parametrize(("listener", "security"), [("submission", "starttls"), ("submissions", "implicit")])
@pytest.mark.parametrize(("program", "code"), [("swaks", 28), ("curl", 67)])
def test_a_wrong_password_is_told_to(
    world: World, tmp_path: Path, program: str, code: int, listener: str, security: peers.Security
) -> None:
    if missing(program) is not None:
        pytest.skip(str(missing(program)))
    send: Callable[..., Finished] = {"swaks": peers.swaks, "curl": peers.curl_send}[program]
    batch = f"wrong-{program}-{security}"
    (mail,) = make_mails(world, batch, 1, largest=1000)
    port = world.gateway.ports[listener]
    send(tmp_path, port, mail.sender, mail.recipients, mail.octets, security=security, auth=(USERS[0], "wrong")).expect(
        code
    )
    assert arrived(world, batch) == []
