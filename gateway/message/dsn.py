"""Delivery status notifications: composing the report (RFC 3461, 3462, 3464; RFC 6533 for non-ASCII addresses)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway.core.address import Mailbox
from gateway.core.reply import Reply
from gateway.message.blob import Blob
from gateway.message.header import MAX_HEADER, parse_header

FULL_LIMIT = 1024 * 1024  # octets of a message that are sent back on RET=FULL
MAX_DIAGNOSTIC = 800  # characters of a reply in one line
DEFAULT_LIMIT = 50 * 1024  # and where the sender said nothing


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient's part. remote: the host that gave the reply, "" for ourselves."""

    recipient: Mailbox
    orcpt: str
    action: str
    reply: Reply
    remote: str = ""
    retry_until: float | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """The message reported on."""

    queue_id: str
    arrival: float
    envid: str
    ret: str
    header: bytes
    blob: Blob
    offset: int


@dataclass(frozen=True, slots=True)
class Notice:
    """octets: the whole DSN, CRLF line ends."""

    octets: bytes
    smtputf8: bool
    has_8bit: bool


_SUBJECTS = {
    "failed": "Undelivered mail returned to sender",
    "delayed": "Delivery is delayed",
    "delivered": "Mail was delivered",
    "relayed": "Mail was relayed onward",
}
_INTRO = {
    "failed": "Your message could not be delivered to one or more recipients.\r\nIt is returned below.",
    "delayed": "Your message has not been delivered yet. You need not send it again:\r\ndelivery is still being tried.",
    "delivered": "Your message was delivered to these recipients.",
    "relayed": "Your message was handed to a system that gives no delivery reports.",
}


def compose(
    original: Original, reports: Sequence[Report], to: Mailbox, hostname: str, notice_id: str, now: float
) -> Notice:
    """All reports have one action. `notice_id` names the DSN itself and makes its boundary."""
    action = reports[0].action
    returned, is_full = _returned(original, action)
    is_global = not all(report.recipient.is_ascii for report in reports) or not to.is_ascii
    boundary = f"=_{notice_id}"
    status_type = "message/global-delivery-status" if is_global else "message/delivery-status"
    if is_full:
        returned_type = "message/global" if is_global else "message/rfc822"
    else:
        returned_type = "message/global-headers" if is_global else "text/rfc822-headers"
    returned_8bit = not returned.isascii()
    text = _text(reports, action, hostname).encode()
    status = _status(original, reports, hostname).encode()
    parts = [
        _part(boundary, "text/plain; charset=utf-8", "Notification", text, not text.isascii()),
        _part(boundary, status_type, "Delivery report", status, not status.isascii()),
        _part(boundary, returned_type, "Undelivered message", returned, returned_8bit),
    ]
    header = (
        f"Date: {format_datetime(datetime.fromtimestamp(now, UTC))}\r\n"
        f"From: Mail Delivery System <mailer-daemon@{hostname}>\r\n"
        f"To: <{to}>\r\n"
        f"Subject: {_SUBJECTS[action]}\r\n"
        f"Message-ID: <{notice_id}@{hostname}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n'
    ).encode()
    has_8bit = not all(part.isascii() for part in parts) or not header.isascii()
    if has_8bit:
        header += b"Content-Transfer-Encoding: 8bit\r\n"
    octets = b"".join([header, b"\r\n", *parts, f"--{boundary}--\r\n".encode()])
    return Notice(octets, is_global, has_8bit)


def _text(reports: Sequence[Report], action: str, hostname: str) -> str:
    lines = [f"This is the mail system at {hostname}.", "", *_INTRO[action].split("\r\n"), ""]
    for report in reports:
        by = f"{report.remote} said: " if report.remote else ""
        first, *others = report.reply.lines
        said = f"{report.reply.code} {report.reply.status} {first}".replace("  ", " ")[:MAX_DIAGNOSTIC]
        lines += [f"<{report.recipient}>: {by}{said}", *(f"    {line[:MAX_DIAGNOSTIC]}" for line in others), ""]
    return "\r\n".join(lines)


def _status(original: Original, reports: Sequence[Report], hostname: str) -> str:
    lines = []
    if original.envid:
        lines.append(f"Original-Envelope-Id: {original.envid}")
    lines += [
        f"Reporting-MTA: dns; {hostname}",
        f"X-Smarthost-Queue-ID: {original.queue_id}",
        f"Arrival-Date: {format_datetime(datetime.fromtimestamp(original.arrival, UTC))}",
        "",
    ]
    for report in reports:
        if report.orcpt:
            lines.append(f"Original-Recipient: {report.orcpt}")
        kind = "rfc822" if report.recipient.is_ascii else "utf-8"
        lines += [
            f"Final-Recipient: {kind}; {report.recipient}",
            f"Action: {report.action}",
            f"Status: {_enhanced(report)}",
        ]
        if report.remote:
            lines.append(f"Remote-MTA: dns; {report.remote}")
        lines.append(f"Diagnostic-Code: smtp; {str(report.reply)[:MAX_DIAGNOSTIC]}")
        if report.retry_until is not None:
            lines.append(f"Will-Retry-Until: {format_datetime(datetime.fromtimestamp(report.retry_until, UTC))}")
        lines.append("")
    return "\r\n".join(lines)


def _enhanced(report: Report) -> str:
    """The status must fit the action: a failure that was deferred to its end is 5.x.x here (RFC 3464 2.3.4)."""
    wanted = {"failed": "5", "delayed": "4"}.get(report.action, "2")
    status = report.reply.status or f"{wanted}.0.0"
    return status if status[0] == wanted else wanted + status[1:]


def _returned(original: Original, action: str) -> tuple[bytes, bool]:
    """The original or its header, and whether it is whole."""
    size = len(original.header) + original.blob.size - original.offset
    limit = {"FULL": FULL_LIMIT, "HDRS": 0}.get(original.ret, DEFAULT_LIMIT)
    if action == "failed" and size <= limit:
        with original.blob.open() as file:
            file.seek(original.offset)
            return original.header + file.read(), True
    head = original.blob.head(original.offset + MAX_HEADER)[original.offset :]
    end = parse_header(head).end
    return original.header + head[:end], False


def _part(boundary: str, media_type: str, description: str, content: bytes, has_8bit: bool) -> bytes:
    encoding = "8bit" if has_8bit else "7bit"
    head = (
        f"--{boundary}\r\nContent-Description: {description}\r\nContent-Type: {media_type}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode()
    return head + content + b"\r\n"  # RFC 2046 5.1.1: this CRLF belongs to the delimiter
