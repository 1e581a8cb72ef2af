"""The embedded filter in a running gateway, by the shipped policy: kept back, marked, taught, and doing without."""

import json
import os
from collections.abc import Iterator

import pytest

from gateway.spam.filter import BASE_MODEL
from tests.e2e.test_antivirus import HEAD, attached, offered
from tests.support.gateway import Gateway, shipped_content_policy
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway, wait_stored

GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*" + b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(policies=shipped_content_policy()) as found:
        yield found


def letter(subject: str, body: bytes) -> bytes:
    return HEAD + f"Subject: {subject}\r\n\r\n".encode() + body + b"\r\n"


def probability_of(stored: bytes) -> float:
    (line,) = [line for line in stored.split(b"\r\n") if line.startswith(b"X-Spam-Probability: ")]
    return float(line.partition(b" ")[2])


def quarantined(gateway: Gateway) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    return found


def test_the_test_string_is_kept_back(gateway: Gateway) -> None:
    assert offered(gateway, letter("gtube", GTUBE)).code == 250
    wait_until(lambda: any(each["kept_by"] == "spam" for each in quarantined(gateway)), 10, "the message in quarantine")
    assert gateway.mails("alice@example.org") == [] or b"gtube" not in b"".join(gateway.mails("alice@example.org"))


def test_wanted_mail_arrives_and_says_what_the_filter_thinks(gateway: Gateway) -> None:
    assert (
        offered(gateway, letter("minutes", b"Bob, here are the minutes of our meeting. See you on Monday. Ann")).code
        == 250
    )
    assert probability_of(wait_stored(gateway, "minutes")) < 0.9
    assert offered(gateway, letter("ours", GTUBE), source="127.0.0.1").code == 250
    assert b"X-Spam" not in wait_stored(gateway, "ours")


def test_what_a_site_teaches_is_taken_by_the_running_gateway(gateway: Gateway) -> None:
    body = b"Frobnicate your zorkmids today with the plugh of xyzzy, dear adventurer of the great underground empire."
    assert offered(gateway, letter("zork before", body)).code == 250
    before = probability_of(wait_stored(gateway, "zork before"))
    folder = gateway.folder / "taught"
    folder.mkdir(exist_ok=True)
    for number in range(10):
        (folder / f"{number}.eml").write_bytes(letter(f"zork {number}", body + b" %d" % number))
    told = gateway.cli("spam", "train", "--ham", str(folder)).expect().stdout
    assert "10 learnt" in told
    assert "10 known" in gateway.cli("spam", "train", "--ham", str(folder)).expect().stdout

    def is_lower() -> bool:
        marker = f"zork after {os.urandom(4).hex()}"
        assert offered(gateway, letter(marker, body)).code == 250
        return probability_of(wait_stored(gateway, marker)) < min(before, 0.2)

    wait_until(is_lower, 15, "what was taught", interval=0.5)
    stats = json.loads(gateway.cli("spam", "stats", "--json").expect().stdout)[0]
    assert (stats["learnt_ham"], stats["learnt_spam"], stats["serves"]) == (10, 0, "the site's model")
    assert stats["shipped_spam"] > 100
    assert "10 forgotten" in gateway.cli("spam", "train", "--forget", str(folder)).expect().stdout
    assert (gateway.data / "spam.db").stat().st_mode & 0o077 == 0


def test_score_prints_a_line_a_message(gateway: Gateway) -> None:
    folder = gateway.folder / "scored"
    folder.mkdir(exist_ok=True)
    (folder / "a.eml").write_bytes(letter("x", GTUBE))
    (folder / "b.eml").write_bytes(letter("minutes", b"Bob, here are the minutes of our meeting on Monday."))
    one, two = gateway.cli("spam", "score", str(folder)).expect().stdout.splitlines()
    assert one.split() == ["1.000000", "spam", str(folder / "a.eml")]
    assert two.split()[1:] in (["ham", str(folder / "b.eml")], ["unsure", str(folder / "b.eml")])
    piped = gateway.cli("spam", "score", data=letter("x", GTUBE)).expect().stdout
    assert piped.split() == ["1.000000", "spam", "-"]


def test_wrong_use_is_told(gateway: Gateway) -> None:
    assert gateway.cli("spam", "train").code == 2
    assert gateway.cli("spam", "train", "--spam", "/nonexistent").code == 2


def test_mail_is_taken_while_the_filter_has_no_model(gateway: Gateway) -> None:
    site = gateway.data / "spam.model"
    kept = site.read_bytes() if site.exists() else BASE_MODEL.read_bytes()
    site.write_bytes(b"no model")
    try:
        assert offered(gateway, attached(b"%PDF-1.4", "a.pdf", "without a model")).code == 250
        wait_stored(gateway, "without a model")
    finally:
        site.write_bytes(kept)
