"""Viruses, by the shipped policy: none gets in, none gets out; while no engine answers mail waits and is not lost."""

import base64
import io
import os
import signal
import socket
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import libarchive
import pytest

from tests.support.clamd import EICAR, Clamd, answering, clamd_missing, read_stream
from tests.support.gateway import STRANGER, Gateway, shipped_content_policy
from tests.support.process import wait_until
from tests.support.raw import RawClient, RawReply, temporary_gateway, traced, wait_stored

ALICE = "alice@example.org"
HEAD = (
    b"From: <a@elsewhere.test>\r\nTo: <alice@example.org>\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@elsewhere.test>\r\nMIME-Version: 1.0\r\n"
)


def zipped(octets: bytes, name: str = "a.txt") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, octets)
    return out.getvalue()


def seven_zip(octets: bytes) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".7z") as file:
        with libarchive.file_writer(file.name, "7zip") as archive:
            archive.add_file_from_memory("a.txt", len(octets), octets)
        return Path(file.name).read_bytes()


def attached(octets: bytes, name: str, subject: str = "a file") -> bytes:
    return (
        HEAD + f"Subject: {subject}\r\n".encode() + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n'
        b'See the file.\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="'
        + name.encode()
        + b'"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(octets).replace(b"\n", b"\r\n")
        + b"--b--\r\n"
    )


def forwarded(message: bytes) -> bytes:
    return HEAD + b"Subject: fwd\r\nContent-Type: message/rfc822\r\n\r\n" + message


INFECTED = {
    "plain": HEAD + b"Subject: x\r\n\r\n" + EICAR + b"\r\n",
    "base64": attached(EICAR, "a.txt"),
    "zip": attached(zipped(EICAR), "a.zip"),
    "zip in a zip": attached(zipped(zipped(EICAR), "b.zip"), "a.zip"),
    "7z": attached(seven_zip(EICAR), "a.7z"),
    "forwarded": forwarded(attached(EICAR, "a.txt")),
}


def offered(gateway: Gateway, message: bytes, *, source: str = STRANGER, to: str = ALICE) -> RawReply:
    """The reply to a message's end."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo("client.elsewhere.test")
        client.begin_data(to)
        client.send(message + b".\r\n")
        return client.reply(60.0)


def is_taken(gateway: Gateway, marker: str, *, source: str = STRANGER) -> None:
    answer = offered(gateway, attached(b"%PDF-1.4 nothing", "a.pdf", marker), source=source)
    assert answer.code == 250, answer
    wait_stored(gateway, marker)


# --- the embedded engine alone ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> Iterator[Gateway]:
    with temporary_gateway(policies=shipped_content_policy()) as gateway:
        yield gateway


@pytest.mark.parametrize("how", INFECTED)
@pytest.mark.parametrize("source", [STRANGER, "127.0.0.1"], ids=["in", "out"])
def test_the_embedded_engine_stops_it_however_it_is_packed(embedded: Gateway, how: str, source: str) -> None:
    to = ALICE if source == STRANGER else "somebody@remote.test"
    answer = offered(embedded, INFECTED[how], source=source, to=to)
    assert (answer.code, answer.text.split()[0]) == (554, "5.7.1"), answer
    assert "EICAR_Test_File" in answer.text
    record = traced(embedded, answer)
    assert record["facts"]["virus.name"] == "EICAR_Test_File"  # type: ignore[index]


def test_clean_mail_arrives(embedded: Gateway) -> None:
    is_taken(embedded, "clean-embedded")
    is_taken(embedded, "clean-own", source="127.0.0.1")


def test_a_large_message_is_scanned_from_its_file(embedded: Gateway) -> None:
    large = os.urandom(3_000_000)
    assert offered(embedded, attached(zipped(large + b"x"), "a.zip", "large")).code == 250
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("large.bin", large)
        archive.writestr("a.txt", EICAR)
    assert offered(embedded, attached(out.getvalue(), "a.zip", "large")).code == 554


def test_the_engines_are_told_at_start(embedded: Gateway) -> None:
    assert '"engines": ["yara (7 rules)"]' in embedded.log() or "yara (7 rules)" in embedded.log()


def test_who_looks_into_messages_may_die_and_mail_waits_for_the_next(embedded: Gateway) -> None:
    pids = [pid for role, pid in embedded.role_pids().items() if role.startswith("content-")]
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    is_taken(embedded, "after-a-death")  # it waits in the queue of the socket, which is the supervisor's
    wait_until(
        lambda: sum(role.startswith("content-") for role in embedded.role_pids()) == 2, 10, "both to be there again"
    )
    assert offered(embedded, INFECTED["zip"]).code == 554


def test_who_looks_into_messages_is_back_soon_however_often_it_dies(embedded: Gateway) -> None:
    def pids() -> set[int]:
        return {pid for role, pid in embedded.role_pids().items() if role.startswith("content-")}

    for _ in range(8):
        old = wait_until(lambda: found if len(found := pids()) == 2 else None, 3, "both")
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda old=old: pids() and not pids() & old, 3, "a new one")  # type: ignore[misc]
    is_taken(embedded, "after-many-deaths")


def test_new_signatures_are_taken_at_a_reload_and_broken_ones_refused(embedded: Gateway) -> None:
    own = embedded.folder / "policies" / "yara" / "own.yar"
    own.write_text('rule Own { strings: $a = "a word of our own" condition: $a }')
    message = HEAD + b"Subject: own\r\n\r\nThis is a word of our own.\r\n"
    assert offered(embedded, message).code == 250
    embedded.cli("reload").expect()
    wait_until(lambda: offered(embedded, message).code == 554, 10, "the new rule")
    own.write_text("rule Own { condition: nonsense }")
    refused = embedded.cli("reload").expect(1)
    assert "own.yar" in refused.stdout + refused.stderr
    assert offered(embedded, message).code == 554
    own.unlink()
    embedded.cli("reload").expect()
    wait_until(lambda: offered(embedded, message).code == 250, 10, "the rule to be gone")


# --- with clamd ---------------------------------------------------------------------------------------------------

needs_clamd = pytest.mark.skipif(clamd_missing() is not None, reason=str(clamd_missing()))


def gateway_with(*clamds: str, timeout: float = 5.0) -> dict[str, object]:
    """Options of a gateway whose embedded engine has no rules."""
    policies = {name: text for name, text in shipped_content_policy().items() if not name.startswith("yara/")}
    return {"policies": policies, "settings": {"checks.antivirus": {"clamd": list(clamds), "timeout": timeout}}}


@pytest.fixture(scope="module")
def scanned() -> Iterator[tuple[Gateway, Clamd]]:
    with Clamd() as clamd, temporary_gateway(**gateway_with(*clamd.addresses)) as gateway:
        yield gateway, clamd


@needs_clamd
@pytest.mark.peers
@pytest.mark.parametrize("how", INFECTED)
@pytest.mark.parametrize("source", [STRANGER, "127.0.0.1"], ids=["in", "out"])
def test_clamd_stops_it_however_it_is_packed(scanned: tuple[Gateway, Clamd], how: str, source: str) -> None:
    gateway, _ = scanned
    to = ALICE if source == STRANGER else "somebody@remote.test"
    answer = offered(gateway, INFECTED[how], source=source, to=to)
    assert answer.code == 554, answer
    assert "Eicar-Test-Signature" in answer.text
    assert traced(gateway, answer)["facts"]["virus.name"] == "Eicar-Test-Signature"  # type: ignore[index]


@needs_clamd
@pytest.mark.peers
def test_clean_mail_arrives_by_clamd(scanned: tuple[Gateway, Clamd]) -> None:
    gateway, _ = scanned
    is_taken(gateway, "clean-clamd")
    assert gateway.metric("smarthost_check_results_total", check="clamd", result="clean") > 0


@needs_clamd
@pytest.mark.peers
def test_what_is_over_clamds_limit_waits_in_quarantine(scanned: tuple[Gateway, Clamd]) -> None:
    gateway, _ = scanned
    assert offered(gateway, attached(os.urandom(6_000_000), "a.bin", "too large for clamd")).code == 250
    assert "not all of it could be looked at" in gateway.cli("quarantine", "list").expect().stdout


@needs_clamd
@pytest.mark.peers
def test_clamd_killed_in_mid_scan_costs_no_mail_and_lets_nothing_in() -> None:
    with Clamd() as clamd, temporary_gateway(**gateway_with(f"unix:{clamd.socket}")) as gateway:
        is_taken(gateway, "before")
        pid = clamd.daemon.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
            client.ehlo("client.elsewhere.test")
            client.begin_data(ALICE)
            client.send(INFECTED["zip"] + b".\r\n")
            time.sleep(0.3)  # for the scan to begin; if it has not, clamd is absent instead
            os.kill(pid, signal.SIGKILL)
            assert client.reply(60.0).code == 451
        assert offered(gateway, attached(b"x", "a.bin", "clean")).code == 451
        clamd.daemon.kill()
        clamd.socket.unlink(missing_ok=True)
        clamd.daemon.start()
        is_taken(gateway, "after")
        assert offered(gateway, INFECTED["zip"]).code == 554


def hangs(peer: socket.socket) -> None:
    read_stream(peer)
    peer.recv(1)


def says(text: bytes) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        read_stream(peer)
        peer.sendall(text)

    return answer


@pytest.mark.parametrize("answer", [hangs, says(b"garbage\0"), says(b""), says(b"stream: out of memory ERROR\0")],
                         ids=["hung", "garbage", "nothing", "error"])  # fmt: skip
def test_a_broken_clamd_defers_all_mail(answer: Callable[[socket.socket], None]) -> None:
    with answering(answer) as address, temporary_gateway(**gateway_with(address, timeout=0.5)) as gateway:
        for message in (INFECTED["zip"], attached(b"x", "a.bin")):
            assert offered(gateway, message).code == 451
        assert gateway.mails(ALICE) == []
        assert gateway.metric("smarthost_check_results_total", check="antivirus", result="unknown") >= 2
        assert gateway.metric("smarthost_check_results_total", check="clamd", result="failed") >= 2


def test_an_absent_clamd_defers_all_mail_and_what_the_embedded_engine_knows_is_refused() -> None:
    options = gateway_with("unix:/nonexistent/clamd.sock")
    options["policies"] = shipped_content_policy()
    with temporary_gateway(**options) as gateway:
        assert offered(gateway, attached(b"x", "a.bin")).code == 451
        assert offered(gateway, INFECTED["zip"]).code == 554


@needs_clamd
@pytest.mark.peers
def test_the_next_clamd_answers_for_one_that_fails() -> None:
    with Clamd() as clamd, answering(hangs) as hung:
        options = gateway_with(hung, "unix:/nonexistent/clamd.sock", f"unix:{clamd.socket}", timeout=3.0)
        with temporary_gateway(**options) as gateway:
            is_taken(gateway, "failed over")
            assert offered(gateway, INFECTED["zip"]).code == 554


def test_mail_for_a_virus_check_that_fails_open_is_taken_when_the_site_says_so() -> None:
    options = gateway_with("unix:/nonexistent/clamd.sock")
    options["settings"]["checks.antivirus"]["on_error"] = "skip"  # type: ignore[index]
    with temporary_gateway(**options) as gateway:
        is_taken(gateway, "let in")
