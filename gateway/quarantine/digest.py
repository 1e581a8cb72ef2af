"""The daily digest: one message to each recipient with what was kept since the last, and links to act on each.

Text and HTML say the same. Nothing of the kept messages stands in it but who they say they are from, their subjects
and their dates, all as text.
"""

from binascii import b2a_qp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from gateway.message import trace
from gateway.quarantine.rendering import Shown
from gateway.quarantine.store import Kept

_STYLE = "font-family:sans-serif;font-size:14px;border-collapse:collapse"
_CELL = "padding:6px 10px;border-bottom:1px solid #ddd;vertical-align:top;text-align:left"
_NOT_YOURS = "only the postmaster can release it"


@dataclass(frozen=True, slots=True)
class Entry:
    """release, block: addresses of pages, "" where there is none."""

    kept: Kept
    shown: Shown
    release: str = ""
    block: str = ""

    @property
    def arrived(self) -> str:
        return datetime.fromtimestamp(self.kept.message.created).astimezone().strftime("%Y-%m-%d %H:%M")


@dataclass(frozen=True, slots=True)
class Digest:
    """domain: whose postmaster writes; more: kept messages that are not listed; has_links: can the recipient act?
    is_nearly_full: soon nothing more is kept, and what would be is refused for now.
    """

    recipient: str
    domain: str
    entries: Sequence[Entry]
    more: int
    has_links: bool
    is_nearly_full: bool = False

    @property
    def count(self) -> int:
        return len(self.entries) + self.more


def compose(digest: Digest, queue_id: str, hostname: str, now: float) -> bytes:
    """The whole message, without a trace."""
    what = "message was" if digest.count == 1 else "messages were"
    boundary = f"digest-{queue_id}"
    head = (
        f"From: Mail quarantine <postmaster@{digest.domain}>\r\nTo: <{digest.recipient}>\r\n"
        f"Subject: {digest.count} {what} kept back for you\r\n"
        "Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'
    )
    fields = trace.date_field(now) + trace.message_id_field(queue_id, hostname) + head.encode()
    texts = (("plain", "\n".join(_text(digest))), ("html", "\n".join(_html(digest))))
    parts = (_part(boundary, subtype, text + "\n") for subtype, text in texts)
    return fields + b"\r\n" + b"".join(parts) + f"--{boundary}--\r\n".encode()


def _part(boundary: str, subtype: str, text: str) -> bytes:
    head = (
        f"--{boundary}\r\nContent-Type: text/{subtype}; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    encoded = b2a_qp(text.encode("utf-8", "replace"), istext=True, quotetabs=False)
    return head.encode() + encoded.replace(b"\n", b"\r\n")


def _intro(digest: Digest) -> str:
    what = "This message was" if digest.count == 1 else f"These {digest.count} messages were"
    return f"{what} kept back for {digest.recipient} and not delivered."


def _outro(digest: Digest) -> Iterator[str]:
    if digest.more:
        yield f"{digest.more} more are not listed here; postmaster@{digest.domain} has them."
    if digest.is_nearly_full:
        yield "Your quarantine is nearly full: what would be kept is put off until there is room; ask to empty it."
    if digest.has_links:
        yield "To release a message, or to block its sender for good, open its link and press the button there."
    yield f"What nobody asks for is deleted in time. Questions: postmaster@{digest.domain}"


def _text(digest: Digest) -> Iterator[str]:
    yield _intro(digest)
    for entry in digest.entries:
        yield ""
        yield f"From:     {_inert(entry.shown.author) or '(nobody)'}"
        yield f"Subject:  {_inert(entry.shown.subject) or '(none)'}"
        yield f"Arrived:  {entry.arrived}, kept because: {entry.kept.rule}"
        if not entry.kept.is_self_released:
            yield f"          {_NOT_YOURS} (number {entry.kept.message.queue_id})"
        if entry.release:
            yield f"Release:  {entry.release}"
        if entry.block:
            yield f"Block:    {entry.block}"
    yield ""
    yield from _outro(digest)


def _html(digest: Digest) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>Kept back</title></head>'
    yield f'<body style="{_STYLE}"><p>{escape(_intro(digest))}</p>'
    yield f'<table style="{_STYLE}">'
    heads = ("Arrived", "From", "Subject", "Kept because", "")
    yield "<tr>" + "".join(f'<th style="{_CELL}">{head}</th>' for head in heads) + "</tr>"
    for entry in digest.entries:
        yield "<tr>"
        shown = entry.shown
        fields = (_inert(shown.author) or "(nobody)", _inert(shown.subject) or "(none)")
        for text in (entry.arrived, *fields, entry.kept.rule):
            yield f'<td style="{_CELL}">{escape(text)}</td>'
        yield f'<td style="{_CELL}">{_actions(entry)}</td>'
        yield "</tr>"
    yield "</table>"
    yield from (f"<p>{escape(line)}</p>" for line in _outro(digest))
    yield "</body></html>"


def _inert(text: str) -> str:
    """Of a kept message: no mail program makes a link of it."""
    return text.replace("://", ": //")


def _actions(entry: Entry) -> str:
    found = [
        f'<a href="{escape(address)}">{word}</a>'
        for word, address in (("Release", entry.release), ("Block sender", entry.block))
        if address
    ]
    if not entry.kept.is_self_released:
        found.insert(0, escape(f"{_NOT_YOURS} (number {entry.kept.message.queue_id})"))
    return "<br>".join(found)
