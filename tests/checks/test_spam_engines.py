"""rspamd and SpamAssassin as filters: real ones, and servers that are broken; what their scores mean here."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.checks.engines import EngineAddress, EngineError, Envelope, Thresholds, as_verdict, parse_engine
from gateway.checks.rspamd import Rspamd
from gateway.checks.spamd import MAX_SENT, Spamd
from gateway.demo.nameserver import NameServer
from tests.senderauth.opinions import opinions_missing, rspamd
from tests.support.clamd import answering
from tests.support.spamd import SpamAssassin, spamd_missing

ENVELOPE = Envelope("192.0.2.7", "mail.shop.example", "mail.shop.example", "", "a@shop.example", ("bob@example.org",))
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
HEAD = (
    b"Received: from mail.shop.example ([192.0.2.7]) by mx.example.org; Wed, 25 Nov 2026 10:00:00 +0000\r\n"
    b"From: Ann <a@shop.example>\r\nTo: bob@example.org\r\nSubject: Minutes of our meeting\r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@shop.example>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\n"
)
HAM = HEAD + b"Bob, here are the minutes of our meeting on Monday. See you next week.\r\n"
SPAM = HEAD + GTUBE + b"\r\n"


# --- SpamAssassin -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assassin() -> Iterator[Spamd]:
    reason = spamd_missing()
    if reason is not None:
        pytest.skip(reason)
    with SpamAssassin() as found:
        yield Spamd("127.0.0.1", found.port, 30.0)


@pytest.mark.peers
def test_spamassassin_judges(assassin: Spamd) -> None:
    spam = asyncio.run(assassin.judge(SPAM, ENVELOPE))
    assert spam.probability > 0.99
    assert "GTUBE" in spam.symbols
    ham = asyncio.run(assassin.judge(HAM, ENVELOPE))
    assert ham.probability < 0.9  # below its own threshold


@pytest.mark.peers
def test_spamassassin_judges_many_at_once(assassin: Spamd) -> None:
    async def story() -> list[bool]:
        asked = [SPAM if number % 2 else HAM for number in range(12)]
        found = await asyncio.gather(*(assassin.judge(octets, ENVELOPE) for octets in asked))
        return [each.probability > 0.99 for each in found]

    assert asyncio.run(story()) == [number % 2 == 1 for number in range(12)]


@pytest.mark.peers
def test_spamassassin_learns(assassin: Spamd) -> None:
    asyncio.run(assassin.learn(HAM, is_spam=False))
    asyncio.run(assassin.learn(SPAM.replace(GTUBE, b"buy these pills"), is_spam=True))


def test_a_message_that_is_too_large_is_not_sent_to_spamd() -> None:
    with pytest.raises(EngineError, match="at most"):
        asyncio.run(Spamd("127.0.0.1", 1, 1.0).judge(b"x" * (MAX_SENT + 1), ENVELOPE))


# --- rspamd -------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.skipif(opinions_missing() is not None, reason=str(opinions_missing()))
def test_rspamd_judges() -> None:
    async def story(port: int) -> None:
        engine = Rspamd(f"http://127.0.0.1:{port}", 30.0)
        try:
            spam = await engine.judge(SPAM, ENVELOPE)
            assert spam.probability > 0.98
            assert "GTUBE" in spam.symbols
            for _ in range(3):  # over the same connection
                ham = await engine.judge(HAM, ENVELOPE)
                assert ham.probability < spam.probability  # with most of its modules off it has little good to say
                assert ham.symbols
                assert "GTUBE" not in ham.symbols
        finally:
            await engine.close()

    with NameServer() as dns, rspamd(dns.address) as found:
        asyncio.run(story(found.port))


# --- broken ones --------------------------------------------------------------------------------------------------


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(text)

    return answer


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"garbage\r\n\r\n", http(b""), http(b"no json"), http(b"[]"), http(b"{}"),
        http(b'{"error": "x"}', "500 No"), http(b'{"score": "x", "required_score": 15}'), http(b'{"score": 1}'),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    ],
)  # fmt: skip
def test_no_answer_of_a_broken_rspamd_is_a_verdict(answer: bytes) -> None:
    with answering(says(answer)) as address:
        engine = Rspamd(f"http://{address.removeprefix('tcp:')}", 5.0)
        with pytest.raises(EngineError):
            asyncio.run(engine.judge(HAM, ENVELOPE))


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"garbage", b"SPAMD/1.1 76 Bad header line\r\n\r\n", b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; x / y\r\n\r\n", b"SPAMD/1.1 0 EX_OK\r\n" + b"x" * 600_000,
    ],
)  # fmt: skip
def test_no_answer_of_a_broken_spamd_is_a_verdict(answer: bytes) -> None:
    with answering(says(answer)) as address:
        _, host, port = address.split(":")
        with pytest.raises(EngineError):
            asyncio.run(Spamd(host, int(port), 5.0).judge(HAM, ENVELOPE))


@pytest.mark.parametrize("kind", ["rspamd", "spamd"])
def test_one_that_hangs_is_left_at_the_deadline(kind: str) -> None:
    def hang(peer: socket.socket) -> None:
        while peer.recv(65536):
            pass

    with answering(hang) as address:
        _, host, port = address.split(":")
        engine = Rspamd(f"http://{host}:{port}", 0.3) if kind == "rspamd" else Spamd(host, int(port), 0.3)
        started = time.monotonic()
        with pytest.raises(EngineError):
            asyncio.run(engine.judge(HAM, ENVELOPE))
        assert time.monotonic() - started < 5


def test_what_a_stranger_says_of_itself_ends_no_field() -> None:
    seen: list[bytes] = []

    def note(peer: socket.socket) -> None:
        seen.append(peer.recv(65536))
        peer.sendall(http(json.dumps({"score": 0, "required_score": 15}).encode()))

    hostile = Envelope("192.0.2.7", "", "x\r\nUser: admin", "", "a\nb@c.example", ("bob@example.org", "ü@example.org"))
    with answering(note) as address:
        asyncio.run(Rspamd(f"http://{address.removeprefix('tcp:')}", 5.0).judge(HAM, hostile))
    head = seen[0].partition(b"\r\n\r\n")[0]
    assert b"\r\nUser" not in head
    assert head.count(b"Rcpt: ") == 2


# --- scores -------------------------------------------------------------------------------------------------------


def test_an_engine_s_own_thresholds_stand_for_their_probabilities() -> None:
    thresholds = Thresholds(6, 15)
    assert as_verdict(0, thresholds, ()).probability == pytest.approx(0.01, abs=0.001)
    assert as_verdict(6, thresholds, ()).probability == pytest.approx(0.9, abs=0.001)
    assert as_verdict(15, thresholds, ()).probability == pytest.approx(0.99, abs=0.001)
    found = [as_verdict(score / 4, thresholds, ()).probability for score in range(-80, 400)]
    assert found == sorted(found)
    assert 0 <= found[0] < 0.001
    assert found[-1] <= 1


def test_symbols_are_words_and_not_many() -> None:
    found = as_verdict(
        0, Thresholds(5, 10), ("GTUBE", "R_SPF_ALLOW", "no symbol", "x\r\ny", *(f"S{n}" for n in range(200)))
    )
    assert found.symbols[:2] == ("GTUBE", "R_SPF_ALLOW")
    assert len(found.symbols) <= 100
    assert all(" " not in symbol for symbol in found.symbols)


def test_engines_are_read() -> None:
    assert parse_engine("bayes") == EngineAddress("bayes")
    assert parse_engine("rspamd:http://127.0.0.1:11333") == EngineAddress("rspamd", url="http://127.0.0.1:11333")
    assert parse_engine("spamd:127.0.0.1:783") == EngineAddress("spamd", host="127.0.0.1", port=783)
    assert parse_engine("spamd:[::1]:783") == EngineAddress("spamd", host="::1", port=783)


@pytest.mark.parametrize(
    "text", ["", "bogofilter", "rspamd:127.0.0.1:11333", "rspamd:https://x", "spamd:x", "spamd:x:0"]
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an engine is"):
        parse_engine(text)
