"""DSNs as other programs read them: the three parts, the fields of RFC 3464, what is returned, what lines are legal."""

import email
import email.message
from dataclasses import replace

import pytest

from gateway.core.address import parse_mailbox
from gateway.core.reply import Reply, reply
from gateway.message.blob import MemoryBlob
from gateway.message.dsn import DEFAULT_LIMIT, Notice, Original, Report, compose

BODY = b"From: a@b.example\r\nSubject: hi\r\n\r\nsecret body\r\n"
ORIGINAL = Original("0123456789ABCDEF", 1_800_000_000.0, "", "", b"Received: x\r\n", MemoryBlob(BODY), 0)
REPORT = Report(parse_mailbox("to@x.example"), "", "failed", reply(550, "5.1.1", "No such user"), "mx.x.example")
SENDER = parse_mailbox("from@b.example")


def dsn(
    *reports: Report, original: Original = ORIGINAL, to: str = "from@b.example", hostname: str = "mail.example.org"
) -> Notice:
    return compose(original, reports or (REPORT,), parse_mailbox(to), hostname, "FEDCBA9876543210", 1_800_000_100.0)


def parts(notice: Notice) -> tuple[email.message.Message, list[email.message.Message]]:
    message = email.message_from_bytes(notice.octets)
    assert not message.defects
    found = message.get_payload()
    assert isinstance(found, list)
    return message, found


def status_of(notice: Notice) -> list[email.message.Message]:
    found = parts(notice)[1][1].get_payload()
    assert isinstance(found, list)
    return found


def test_a_failure_is_a_report_of_three_parts() -> None:
    notice = dsn()
    message, (text, status, returned) = parts(notice)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert {
        name: message[name] for name in ("From", "To", "Subject", "Auto-Submitted", "Message-ID", "MIME-Version")
    } == {
        "From": "Mail Delivery System <mailer-daemon@mail.example.org>",
        "To": "<from@b.example>",
        "Subject": "Undelivered mail returned to sender",
        "Auto-Submitted": "auto-replied",
        "Message-ID": "<FEDCBA9876543210@mail.example.org>",
        "MIME-Version": "1.0",
    }
    assert "<to@x.example>: mx.x.example said: 550 5.1.1 No such user" in " ".join(str(text.get_payload()).split())
    assert status.get_content_type() == "message/delivery-status"
    assert returned.get_content_type() == "message/rfc822"
    assert (notice.smtputf8, notice.has_8bit) == (False, False)
    assert b"secret body" in notice.octets


def test_the_status_part_has_the_fields_of_rfc_3464() -> None:
    other = Report(parse_mailbox("b@x.example"), "rfc822;B@y.example", "failed", Reply(550, "", ("no",)))
    about, first, second = status_of(dsn(REPORT, other, original=replace(ORIGINAL, envid="E+1")))
    assert dict(about.items()) == {
        "Original-Envelope-Id": "E+1",
        "Reporting-MTA": "dns; mail.example.org",
        "X-Smarthost-Queue-ID": "0123456789ABCDEF",
        "Arrival-Date": "Fri, 15 Jan 2027 08:00:00 +0000",
    }
    assert dict(first.items()) == {
        "Final-Recipient": "rfc822; to@x.example",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.x.example",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
    }
    assert second["Original-Recipient"] == "rfc822;B@y.example"
    assert second["Status"] == "5.0.0"
    assert second["Remote-MTA"] is None


@pytest.mark.parametrize(
    ("action", "answer", "status", "subject"),
    [
        ("failed", reply(451, "4.4.7", "expired"), "5.4.7", "Undelivered mail returned to sender"),
        ("delayed", reply(451, "4.4.1", "down"), "4.4.1", "Delivery is delayed"),
        ("delayed", Reply(451, "", ("down",)), "4.0.0", "Delivery is delayed"),
        ("delivered", reply(250, "2.1.5", "ok"), "2.1.5", "Mail was delivered"),
        ("relayed", Reply(250, "", ("ok",)), "2.0.0", "Mail was relayed onward"),
    ],
)
def test_the_status_fits_the_action(action: str, answer: Reply, status: str, subject: str) -> None:
    notice = dsn(
        replace(REPORT, action=action, reply=answer, retry_until=1_800_086_400.0 if action == "delayed" else None)
    )
    message, (_, _, returned) = parts(notice)
    recipient = status_of(notice)[1]
    assert (recipient["Action"], recipient["Status"], message["Subject"]) == (action, status, subject)
    assert (recipient["Will-Retry-Until"] is not None) is (action == "delayed")
    assert (returned.get_content_type() == "message/rfc822") is (action == "failed")
    assert (b"secret body" in notice.octets) is (action == "failed")


@pytest.mark.parametrize(
    ("ret", "size", "is_full"),
    [
        ("", 100, True),
        ("", DEFAULT_LIMIT + 1, False),
        ("FULL", DEFAULT_LIMIT + 1, True),
        ("HDRS", 10, False),
        ("FULL", 1024 * 1024 + 1, False),
    ],
)
def test_what_is_returned_follows_ret_and_size(ret: str, size: int, is_full: bool) -> None:
    body = BODY + (b"y" * 70 + b"\r\n") * (size // 72 + 1)
    notice = dsn(original=replace(ORIGINAL, ret=ret, blob=MemoryBlob(body)))
    returned = parts(notice)[1][2]
    assert returned.get_content_type() == ("message/rfc822" if is_full else "text/rfc822-headers")
    assert b"Received: x\r\nFrom: a@b.example\r\nSubject: hi\r\n" in notice.octets
    assert (b"secret body" in notice.octets) is is_full


def test_what_stands_before_the_offset_is_not_returned() -> None:
    notice = dsn(original=replace(ORIGINAL, blob=MemoryBlob(b"X-Old: 1\r\n" + BODY), offset=10))
    assert b"X-Old" not in notice.octets
    assert b"Received: x\r\nFrom: a@b.example\r\n" in notice.octets


def test_utf8_addresses_make_a_global_report() -> None:
    notice = dsn(replace(REPORT, recipient=parse_mailbox("jürgen@x.example")), to="ü@b.example")
    _, (_, status, returned) = parts(notice)
    assert (notice.smtputf8, notice.has_8bit) == (True, True)
    assert status.get_content_type() == "message/global-delivery-status"
    assert returned.get_content_type() == "message/global"
    assert "Final-Recipient: utf-8; jürgen@x.example\r\n".encode() in notice.octets
    assert "To: <ü@b.example>\r\n".encode() in notice.octets


def test_an_8bit_original_makes_an_8bit_report() -> None:
    notice = dsn(original=replace(ORIGINAL, blob=MemoryBlob(BODY + b"\xff\r\n")))
    message, (text, _, returned) = parts(notice)
    assert (notice.smtputf8, notice.has_8bit) == (False, True)
    assert [part["Content-Transfer-Encoding"] for part in (message, text, returned)] == ["8bit", "7bit", "8bit"]


@pytest.mark.parametrize("body", [BODY, BODY[:-2], b"\r\nno header\r\n", b"Subject: x", b"", b"--FEDCBA9876543210\r\n"])
@pytest.mark.parametrize("action", ["failed", "delayed"])
def test_line_ends_are_crlf_and_lines_are_legal(body: bytes, action: str) -> None:
    long = Reply(550, "5.1.1", ("x" * 480,) * 20)
    notice = dsn(replace(REPORT, action=action, reply=long), original=replace(ORIGINAL, blob=MemoryBlob(body)))
    assert notice.octets.endswith(b"--\r\n")
    assert notice.octets.count(b"\r") == notice.octets.count(b"\n") == notice.octets.count(b"\r\n")
    assert max(map(len, notice.octets.split(b"\r\n"))) <= 998
    assert len(parts(notice)[1]) == 3


def test_the_boundary_is_at_most_seventy_characters() -> None:
    """RFC 2046 5.1.1."""
    boundary = parts(dsn(hostname="h" * 60 + ".example.org"))[0].get_boundary()
    assert boundary is not None
    assert len(boundary) <= 70


def test_the_returned_message_keeps_its_last_line_end() -> None:
    """RFC 2046 5.1.1: the CRLF before a delimiter belongs to the delimiter."""
    assert BODY + b"\r\n--" in dsn().octets
