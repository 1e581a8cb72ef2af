"""Filters outside of this program in a running gateway: asked first, and done without when they fail."""

import socket

import pytest

from tests.e2e.test_antivirus import HEAD, offered
from tests.support.clamd import answering
from tests.support.gateway import shipped_content_policy
from tests.support.raw import temporary_gateway, wait_stored
from tests.support.spamd import SpamAssassin, spamd_missing

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
TELL = """\
stage: message
rules:
  - note: who says so
    when: spam.probability >= 0
    do: {add_header: "X-Said: {spam.source} {spam.symbols}"}
"""


def letter(subject: str, body: bytes = b"Bob, here are the minutes of our meeting.") -> bytes:
    return HEAD + f"Subject: {subject}\r\n\r\n".encode() + body + b"\r\n"


@pytest.mark.peers
@pytest.mark.skipif(spamd_missing() is not None, reason=str(spamd_missing()))
def test_spamassassin_is_asked_and_the_embedded_filter_answers_when_it_is_gone() -> None:
    with SpamAssassin() as assassin:
        engines = {"checks.spam": {"engines": [f"spamd:127.0.0.1:{assassin.port}", "bayes"], "engine_timeout": 30}}
        with temporary_gateway(policies={"50-message.yaml": TELL}, settings=engines) as gateway:
            assert offered(gateway, letter("asked", GTUBE)).code == 250
            assert b"X-Said: spamd " in wait_stored(gateway, "asked")
            assert gateway.metric("smarthost_check_results_total", check="spamd", result="ok") == 1
            assassin.daemon.stop()
            assert offered(gateway, letter("alone")).code == 250
            assert b"X-Said: bayes" in wait_stored(gateway, "alone")


def test_a_filter_that_answers_nonsense_keeps_nothing_back() -> None:
    def nonsense(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with answering(nonsense) as address:
        engines = {"checks.spam": {"engines": [f"rspamd:http://{address.removeprefix('tcp:')}"], "engine_timeout": 2}}
        with temporary_gateway(policies=shipped_content_policy(), settings=engines) as gateway:
            assert offered(gateway, letter("nonsense")).code == 250
            wait_stored(gateway, "nonsense")
            assert gateway.metric("smarthost_check_results_total", check="rspamd", result="failed") == 1


@pytest.mark.peers
@pytest.mark.skipif(spamd_missing() is not None, reason=str(spamd_missing()))
def test_what_is_taught_is_taught_to_the_others_too() -> None:
    with SpamAssassin() as assassin:
        engines = {"checks.spam": {"engines": [f"spamd:127.0.0.1:{assassin.port}"], "engine_timeout": 30}}
        with temporary_gateway(policies={"50-message.yaml": TELL}, settings=engines) as gateway:
            folder = gateway.folder / "taught"
            folder.mkdir()
            (folder / "1.eml").write_bytes(letter("one"))
            done = gateway.cli("spam", "train", "--ham", str(folder)).expect()
            assert "1 learnt" in done.stdout
            assert done.stderr == ""
            assert "learned" in (assassin.folder / "log").read_text().lower() or list(assassin.folder.glob("bayes/*"))
            assassin.daemon.stop()
            assert "spamd:" in gateway.cli("spam", "train", "--spam", str(folder)).expect().stderr
