"""clamd over pyclamd: a verdict or none, and never a wrong one. With a real clamd, and with servers that are broken."""

import io
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyclamd import pyclamd

from gateway.checks.clamd import (
    ClamdAddress,
    ClamdError,
    ClamdVerdict,
    connection,
    parse_clamd,
    scan,
)
from tests.support.clamd import EICAR, STREAM_LIMIT, Clamd, answering, clamd_missing, read_stream

CLEAN = b"Subject: hello\r\n\r\nAll is well.\r\n"
needs_clamd = pytest.mark.skipif(clamd_missing() is not None, reason=str(clamd_missing()))


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    with Clamd() as found:
        yield found


def soon(seconds: float = 15.0) -> float:
    return time.monotonic() + seconds


def asked(address: str, octets: bytes, seconds: float = 15.0) -> ClamdVerdict:
    return scan(parse_clamd(address), io.BytesIO(octets), soon(seconds))


def zipped(octets: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.com", octets)
    return out.getvalue()


# --- a real one ---------------------------------------------------------------------------------------------------


@needs_clamd
@pytest.mark.peers
@pytest.mark.parametrize("way", [0, 1], ids=["unix", "tcp"])
def test_a_real_clamd_finds_what_is_there_and_nothing_else(clamd: Clamd, way: int) -> None:
    address = clamd.addresses[way]
    assert asked(address, CLEAN) == ClamdVerdict()
    assert asked(address, b"") == ClamdVerdict()
    assert asked(address, EICAR) == ClamdVerdict("Eicar-Test-Signature")
    assert asked(address, zipped(zipped(EICAR))) == ClamdVerdict("Eicar-Test-Signature")
    assert asked(address, b"x" * 4_000_000) == ClamdVerdict()
    assert asked(address, b"x" * 4_000_000 + zipped(EICAR)).name in ("Eicar-Test-Signature", "")


@needs_clamd
@pytest.mark.peers
@pytest.mark.parametrize("way", [0, 1], ids=["unix", "tcp"])
@pytest.mark.parametrize("over", [1, 20_000_000])
def test_what_is_over_its_limit_is_no_verdict_of_clean(clamd: Clamd, way: int, over: int) -> None:
    assert asked(clamd.addresses[way], b"x" * (STREAM_LIMIT + over)) == ClamdVerdict(is_partial=True)


@needs_clamd
@pytest.mark.peers
def test_many_at_once_each_hear_their_own_verdict(clamd: Clamd) -> None:
    samples = [EICAR if number % 3 else CLEAN + b"%d" % number for number in range(120)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pair: asked(clamd.addresses[pair[0] % 2], pair[1]), enumerate(samples)))
    assert [verdict.name for verdict in found] == [
        "Eicar-Test-Signature" if sample is EICAR else "" for sample in samples
    ]


@needs_clamd
@pytest.mark.peers
@pytest.mark.parametrize("way", [0, 1], ids=["unix", "tcp"])
def test_the_library_s_own_commands_work_over_it(clamd: Clamd, way: int) -> None:
    address = parse_clamd(clamd.addresses[way])
    with connection(address, soon()) as found:
        assert found.ping() is True
    with connection(address, soon()) as found:
        assert found.version().startswith("ClamAV ")
    with connection(address, soon()) as found:
        assert found.reload() == "RELOADING"


# --- broken ones --------------------------------------------------------------------------------------------------


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        read_stream(peer)
        peer.sendall(text)

    return answer


def drips(text: bytes) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        read_stream(peer)
        for octet in text:
            peer.sendall(bytes([octet]))
            time.sleep(0.005)

    return answer


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\0", b"stream: ", b"stream: \0", b"stream: O", b"stream: OK", b"OK\0", b"stream: OK but\0", b"PONG\0",
        b"stream: FOUND\0", b"stream:  FOUND\0", b"stream: Can't allocate memory ERROR\0", b"UNKNOWN COMMAND\0",
        b"stream: OK\nstream: Eicar FOUND\0", b"x" * 100_000, b"\xff\xfe\0", b"COMMAND READ TIMED OUT\0",
    ],
)  # fmt: skip
def test_anything_but_a_verdict_is_none(text: bytes) -> None:
    with answering(says(text)) as address, pytest.raises(ClamdError):
        asked(address, CLEAN)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"stream: OK\0", ""),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", "Win.Test.EICAR_HDB-1"),
        (b"stream: Mine.UNOFFICIAL FOUND\0", "Mine"),
        (b"stream: Name with blanks FOUND\0", "Name with blanks"),
        (b"stream: Eicar-Test(44d88612fea8a8f36de82e1278abb02f:68) FOUND\0", "Eicar-Test"),
    ],
)
def test_a_verdict_is_read_however_it_comes(text: bytes, name: str) -> None:
    for answer in (says(text), drips(text)):
        with answering(answer) as address:
            assert asked(address, CLEAN) == ClamdVerdict(name)


@pytest.mark.parametrize("name", [b"Heuristics.Limits.Exceeded.MaxFileSize", b"Heuristics.Encrypted.Zip"])
def test_an_alert_about_its_limits_is_no_find(name: bytes) -> None:
    with answering(says(b"stream: " + name + b" FOUND\0")) as address:
        assert asked(address, CLEAN) == ClamdVerdict(is_partial=True)


def test_one_that_closes_at_once_gives_no_verdict() -> None:
    with answering(lambda peer: None) as address, pytest.raises((ClamdError, OSError)):
        asked(address, b"x" * 10_000_000)


def test_one_that_never_answers_is_left_at_the_deadline() -> None:
    def hang(peer: socket.socket) -> None:
        read_stream(peer)
        peer.recv(1)  # until the other side gives up

    with answering(hang) as address, pytest.raises((ClamdError, TimeoutError)):
        asked(address, CLEAN, 0.3)


def test_one_that_never_reads_is_left_at_the_deadline() -> None:
    is_over = socket.socketpair()

    def sleep(peer: socket.socket) -> None:
        is_over[1].recv(1)

    with answering(sleep) as address:
        with pytest.raises((ClamdError, TimeoutError)):
            asked(address, b"x" * 50_000_000, 0.5)
        is_over[0].send(b"x")
    for end in is_over:
        end.close()


def test_a_slow_drip_does_not_stretch_the_deadline() -> None:
    def drip(peer: socket.socket) -> None:
        read_stream(peer)
        while True:
            peer.sendall(b"x")
            time.sleep(0.05)

    with answering(drip) as address, pytest.raises((ClamdError, TimeoutError)):
        asked(address, CLEAN, 0.4)


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(OSError):
        asked("unix:/nonexistent/clamd.sock", CLEAN)
    with pytest.raises(OSError):
        asked("tcp:127.0.0.1:1", CLEAN)


# --- addresses, and what is relied on -----------------------------------------------------------------------------


def test_addresses_are_read() -> None:
    assert parse_clamd("unix:/run/clamav/clamd.ctl") == ClamdAddress(path="/run/clamav/clamd.ctl")
    assert parse_clamd("tcp:127.0.0.1:3310") == ClamdAddress(host="127.0.0.1", port=3310)
    assert parse_clamd("tcp:[::1]:3310") == ClamdAddress(host="::1", port=3310)
    assert str(parse_clamd("unix:/run/c")) == "unix:/run/c"


@pytest.mark.parametrize(
    "text", ["", "/run/clamd", "unix:clamd", "tcp:127.0.0.1", "tcp::3310", "tcp:h:0", "tcp:h:99999"]
)
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="unix:/PATH or tcp:HOST:PORT"):
        parse_clamd(text)


@pytest.mark.parametrize("kind", [pyclamd.ClamdUnixSocket, pyclamd.ClamdNetworkSocket])
def test_pyclamd_has_the_four_steps_that_are_overridden(kind: type) -> None:
    for name in ("_init_socket", "_send_command", "_recv_response", "_close_socket", "ping", "version", "reload"):
        assert callable(getattr(kind, name))
    assert pyclamd.__version__ == "0.4.0"
