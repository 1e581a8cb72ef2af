"""`strip_attachments`: the rest of the message arrives, a text says what went, and the whole is kept for release."""

import email
import email.policy
import json
import os
from collections.abc import Iterator

import pytest

from tests.e2e.test_antivirus import HEAD, attached, offered
from tests.support.gateway import STRANGER, Gateway
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway, wait_stored

RULES = """\
stage: message
rules:
  - note: programs go, the rest may come
    when: client.ip == "127.0.0.9"
    do: {strip_attachments: 'a.extension in ["exe", "js"] or any(e in ["exe"] for e in a.extensions)'}
  - note: text files for bob alone
    when: recipient.address == "bob@example.org"
    do: {strip_attachments: a.extension == "txt"}
"""
ALICE, BOB = "alice@example.org", "bob@example.org"
TWO_FILES = (
    HEAD
    + b'Subject: SUBJECT\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\npreamble\r\n--b\r\n\r\nThe text.\r\n'
    b'--b\r\nContent-Type: application/pdf; name="a.pdf"\r\nX-Kept: yes\r\n\r\n%PDF-1.4\r\n'
    b'--b\r\nContent-Type: application/octet-stream; name="a.exe"\r\nContent-Transfer-Encoding: base64\r\n'
    b"X-Kept: yes\r\n\r\nTVqQAAMAAAAEAAAA\r\n--b--\r\nepilogue\r\n"
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(policies={"50-message.yaml": RULES}) as found:
        yield found


def texts_of(stored: bytes) -> list[str]:
    found = email.message_from_bytes(stored, policy=email.policy.default)
    return [str(part.get_content()) for part in found.walk() if part.get_content_type() == "text/plain"]


def kept_whole(gateway: Gateway, notice: str) -> dict[str, object]:
    """The quarantined message that a notice names."""
    listed = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    return next(each for each in listed if str(each["id"]) in notice)


def test_one_of_two_files_goes_and_every_other_octet_stays(gateway: Gateway) -> None:
    message = TWO_FILES.replace(b"SUBJECT", b"two-files").replace(b"<1@", b"<two-files@")
    assert offered(gateway, message).code == 250
    stored = wait_stored(gateway, "two-files")
    before, after = message.split(b'--b\r\nContent-Type: application/octet-stream; name="a.exe"')
    assert before in stored
    assert stored.endswith(b"--b--\r\nepilogue\r\n")
    assert b"TVqQ" not in stored
    assert stored.count(b"X-Kept: yes\r\n") == 2
    assert b"TVqQ" in after
    notice = texts_of(stored)[1]
    assert '"a.exe" was removed' in notice
    assert "postmaster@example.org" in notice


def test_the_whole_is_kept_and_can_be_released(gateway: Gateway) -> None:
    message = TWO_FILES.replace(b"SUBJECT", b"released").replace(b"<1@", b"<released@")
    assert offered(gateway, message).code == 250
    notice = texts_of(wait_stored(gateway, "released"))[1]
    entry = kept_whole(gateway, notice)
    queue_id = str(entry["id"])
    assert "attachments were removed from it" in json.dumps(entry)
    gateway.cli("quarantine", "release", queue_id).expect()
    whole = wait_until(
        lambda: [mail for mail in gateway.mails(ALICE) if mail.endswith(message)], 10, "the whole message"
    )
    assert len(whole) == 1


def test_a_message_that_is_the_file_becomes_a_text(gateway: Gateway) -> None:
    message = HEAD + (
        b"Subject: only-a-file\r\nContent-Type: application/octet-stream; name=a.js\r\n"
        b"Content-Disposition: attachment\r\n\r\nalert(1)\r\n"
    )
    assert offered(gateway, message).code == 250
    stored = wait_stored(gateway, "only-a-file")
    assert b"alert(1)" not in stored
    assert '"a.js" was removed' in texts_of(stored)[0]


def test_a_name_that_is_not_ascii_is_told_as_it_is(gateway: Gateway) -> None:
    message = attached(b"MZ", "=?utf-8?q?gr=C3=BC=C3=9Fe.exe?=", "greetings")
    assert offered(gateway, message).code == 250
    assert '"grüße.exe" was removed' in texts_of(wait_stored(gateway, "greetings"))[1]


def test_a_file_in_a_forwarded_message_goes_and_the_forwarded_message_stays(gateway: Gateway) -> None:
    inner = HEAD + b"Subject: the inner one\r\nContent-Type: application/octet-stream; name=a.exe\r\n\r\nMZ\r\n"
    message = HEAD + b"Subject: a-forward\r\nContent-Type: message/rfc822\r\n\r\n" + inner
    assert offered(gateway, message).code == 250
    stored = wait_stored(gateway, "a-forward")
    assert b"Subject: the inner one\r\n" in stored
    assert b"was removed from this message" in stored
    assert b"MZ" not in stored


def test_own_networks_and_harmless_files_are_left_alone(gateway: Gateway) -> None:
    message = TWO_FILES.replace(b"SUBJECT", b"own").replace(b"<1@", b"<own@")
    assert offered(gateway, message, source="127.0.0.1").code == 250
    assert wait_stored(gateway, "own").endswith(message)
    harmless = attached(b"%PDF-1.4", "a.pdf", "harmless")
    assert offered(gateway, harmless).code == 250
    assert wait_stored(gateway, "harmless").endswith(harmless)


def test_large_messages_keep_what_is_not_removed(gateway: Gateway) -> None:
    large = os.urandom(200_000).hex().encode()
    body = b"".join(large[start : start + 70] + b"\r\n" for start in range(0, len(large), 70))
    message = HEAD + (
        b'Subject: large\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\n' + body + b"--b\r\n"
        b"Content-Type: application/octet-stream; name=a.exe\r\n\r\nMZ" + body + b"--b--\r\n"
    )
    assert offered(gateway, message).code == 250
    stored = wait_stored(gateway, "large")
    assert stored.count(body) == 1
    assert '"a.exe" was removed' in texts_of(stored)[-1]


def test_each_recipient_loses_what_the_rules_take_from_them(gateway: Gateway) -> None:
    message = attached(b"just text", "a.txt", "for-two").replace(b"<1@", b"<for-two@")
    from tests.support.raw import RawClient

    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.begin_data(ALICE, BOB)
        client.send(message + b".\r\n")
        assert client.reply(30).code == 250
    assert wait_stored(gateway, "for-two", ALICE).endswith(message)
    assert '"a.txt" was removed' in texts_of(wait_stored(gateway, "for-two", BOB))[1]


def test_when_nobody_can_look_into_it_the_message_waits(gateway: Gateway) -> None:
    pids = {role: pid for role, pid in gateway.role_pids().items() if role.startswith("content-")}
    for pid in pids.values():
        os.kill(pid, 19)  # SIGSTOP
    try:
        with pytest.raises(AssertionError):
            offered_soon(gateway)
    finally:
        for pid in pids.values():
            os.kill(pid, 18)


def offered_soon(gateway: Gateway) -> None:
    """Fails when no answer comes at once."""
    from tests.support.raw import RawClient

    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.begin_data(ALICE)
        client.send(attached(b"MZ", "a.exe") + b".\r\n")
        assert not client.is_silent(0.5)
