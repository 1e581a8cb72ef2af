"""Trace fields: Received and Return-Path (RFC 5321 4.4), and Date and Message-ID for submissions (RFC 6409 8)."""

import functools
import re
from datetime import UTC, datetime
from email.utils import format_datetime

from gateway.core.address import ReversePath
from gateway.core.transaction import Session

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9.:\[\]_-]")


@functools.lru_cache(maxsize=4)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC))


def received(
    session: Session, hostname: str, queue_id: str, recipient: str, now: float, *, smtputf8: bool = False
) -> bytes:
    """recipient: the only one's address, or "" where there are several (who else got it is nobody's business)."""
    name = session.client_name or "unknown"
    tls = f"\r\n\t(using {session.tls.version} with cipher {session.tls.cipher})" if session.tls else ""
    to = f"\r\n\tfor <{recipient}>" if recipient and recipient.isascii() else ""
    return (
        f"Received: from {_plain(session.helo)} ({_plain(name)} [{_literal(session.client_ip)}]){tls}\r\n"
        f"\tby {hostname} (Smarthost) with {session.protocol(smtputf8=smtputf8)} id {queue_id}{to};\r\n"
        f"\t{_date(int(now))}\r\n"
    ).encode("ascii")


def received_by_lmtp(
    name: str, ip: str, hostname: str, identity: str, recipient: str, now: float, *, is_tls: bool
) -> bytes:
    """name: what the client called itself by LHLO. RFC 3848: LMTPS is LMTP in TLS."""
    to = f"\r\n\tfor <{recipient}>" if recipient.isascii() else ""
    return (
        f"Received: from {_plain(name)} ([{_literal(ip)}])\r\n"
        f"\tby {hostname} (Smarthost) with {'LMTPS' if is_tls else 'LMTP'} id {identity}{to};\r\n"
        f"\t{_date(int(now))}\r\n"
    ).encode("ascii")


def return_path(reverse_path: ReversePath) -> bytes:
    return f"Return-Path: <{reverse_path}>\r\n".encode()


def delivered_to(address: str) -> bytes:
    return f"Delivered-To: {address}\r\n".encode()


def released(queue_id: str, by: str, hostname: str, now: float) -> bytes:
    """On what was kept and goes on its way after all. by: in ASCII."""
    return f"X-Smarthost-Released: {queue_id} by {by} at {hostname}; {_date(int(now))}\r\n".encode("ascii", "replace")


def date_field(now: float) -> bytes:
    return f"Date: {_date(int(now))}\r\n".encode("ascii")


def message_id_field(queue_id: str, hostname: str) -> bytes:
    return f"Message-ID: <{queue_id}@{hostname}>\r\n".encode("ascii")


def _plain(name: str) -> str:
    return _NOT_PLAIN.sub("?", name)[:255] or "?"


def _literal(ip: str) -> str:
    return f"IPv6:{ip}" if ":" in ip else ip
