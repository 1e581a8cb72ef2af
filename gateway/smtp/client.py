"""The client side of SMTP without sockets: reading replies, the server's extensions, and the octets of a transaction.

`delivery.relay` owns the connection and the clock. Commands of a transaction go out in one piece where the server
offers PIPELINING (RFC 2920), the content by BDAT where it offers CHUNKING (RFC 3030).
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.core.address import Mailbox, ReversePath
from gateway.core.reply import Reply, reply
from gateway.smtp.grammar import encode_xtext

MAX_REPLY_LINE = 4096  # octets; RFC 5321 says 512, servers are chattier
MAX_REPLY = 64 * 1024
MAX_REPLY_LINES = 200
BDAT_CHUNK = 256 * 1024

_LINE = re.compile(rb"([2-5]\d\d)([ -])?(.*)", re.DOTALL)
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)(.*)", re.DOTALL)


class ReplyError(Exception):
    """The server does not speak SMTP, or without end."""


class ReplyReader:
    """Octets in, whole replies out, one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[str] = []
        self._code = b""
        self._status = ""
        self._octets = 0

    def feed(self, octets: bytes) -> list[Reply]:
        """Raises ReplyError."""
        self._buffer += octets
        replies: list[Reply] = []
        while (end := self._buffer.find(b"\n")) >= 0:
            line, self._buffer = self._buffer[:end].rstrip(b"\r"), self._buffer[end + 1 :]
            whole = self._line(line)
            if whole is not None:
                replies.append(whole)
        if len(self._buffer) > MAX_REPLY_LINE:
            raise ReplyError("reply line without end")
        return replies

    def _line(self, line: bytes) -> Reply | None:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_REPLY_LINE:
            raise ReplyError("no SMTP reply, or a line without end")
        self._octets += len(line)
        if self._lines and self._code != match[1]:
            raise ReplyError("one reply with two codes")  # RFC 5321 4.2.1
        self._code = match[1]
        if len(self._lines) >= MAX_REPLY_LINES or self._octets > MAX_REPLY:
            raise ReplyError("reply without end")
        text = match[3].decode("utf-8", "replace")
        if not (text.isascii() and text.isprintable()):
            text = "".join(char if " " <= char <= "~" else "?" for char in text)
        status = _STATUS.fullmatch(text)
        if status is not None and status[1][0] == match[1].decode()[0]:
            self._status, text = self._status or status[1], status[2]
        self._lines.append(text)
        if match[2] == b"-":
            return None
        whole = Reply(int(match[1]), self._status, tuple(self._lines))
        self._lines, self._status, self._octets = [], "", 0
        return whole

    @property
    def is_clean(self) -> bool:
        """Nothing is left over: before STARTTLS anything else is an injection (CVE-2011-0411, client side)."""
        return not self._buffer and not self._lines


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the server offers; keywords in upper case with their parameters."""

    offered: dict[str, str]

    def has(self, keyword: str) -> bool:
        return keyword in self.offered

    @property
    def size_limit(self) -> int:
        """Octets; 0: none told."""
        text = self.offered.get("SIZE", "")
        return int(text) if text.isdigit() else 0

    @property
    def auth_mechanisms(self) -> frozenset[str]:
        return frozenset(self.offered.get("AUTH", "").upper().split())


NO_EXTENSIONS = Extensions({})


def parse_extensions(answer: Reply) -> Extensions:
    """From a 250 to EHLO; the first line is the greeting."""
    offered: dict[str, str] = {}
    for line in answer.lines[1:]:
        keyword, _, parameters = line.replace("=", " ", 1).partition(" ")  # "AUTH=PLAIN" of old servers
        key = keyword.upper()
        offered[key] = f"{offered[key]} {parameters}" if key in offered else parameters.strip()
    return Extensions(offered)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A transaction as one server shall get it. recipients: (mailbox, orcpt, notify)."""

    reverse_path: ReversePath
    recipients: tuple[tuple[Mailbox, str, frozenset[str]], ...]
    size: int
    body: str
    smtputf8: bool
    ret: str
    envid: str
    has_8bit: bool


def unfit(outgoing: Outgoing, extensions: Extensions) -> Reply | None:
    """Why this server cannot take the message at all, known before MAIL."""
    limit = extensions.size_limit
    if limit and outgoing.size > limit:
        return reply(552, "5.3.4", f"Message of {outgoing.size} octets, the next host takes {limit}")
    if needs_smtputf8(outgoing) and not extensions.has("SMTPUTF8"):
        return reply(550, "5.6.7", "The next host does not offer SMTPUTF8")
    return None


def needs_smtputf8(outgoing: Outgoing) -> bool:
    """RFC 6531: declared so, and not only out of habit: some address or header needs it."""
    if not outgoing.smtputf8:
        return False
    mailbox = outgoing.reverse_path.mailbox
    addresses = [box for box, _, _ in outgoing.recipients] + ([mailbox] if mailbox is not None else [])
    return not all(address.is_ascii for address in addresses) or outgoing.has_8bit


def needs_7bit(outgoing: Outgoing, extensions: Extensions) -> bool:
    """RFC 6152 3: declared 8BITMIME and really 8-bit, and the server does not offer it: convert or return."""
    return outgoing.body == "8BITMIME" and outgoing.has_8bit and not extensions.has("8BITMIME")


def mail_command(outgoing: Outgoing, extensions: Extensions) -> bytes:
    words = [f"MAIL FROM:<{outgoing.reverse_path}>"]
    if extensions.has("SIZE"):
        words.append(f"SIZE={outgoing.size}")
    if outgoing.body and outgoing.has_8bit and extensions.has("8BITMIME"):
        words.append("BODY=8BITMIME")
    if needs_smtputf8(outgoing):
        words.append("SMTPUTF8")
    if extensions.has("DSN"):
        if outgoing.ret:
            words.append(f"RET={outgoing.ret}")
        if outgoing.envid:
            words.append(f"ENVID={encode_xtext(outgoing.envid)}")
    return (" ".join(words) + "\r\n").encode()


def rcpt_command(mailbox: Mailbox, orcpt: str, notify: frozenset[str], extensions: Extensions) -> bytes:
    words = [f"RCPT TO:<{mailbox}>"]
    if extensions.has("DSN"):
        if notify:
            words.append(f"NOTIFY={','.join(sorted(notify))}")
        if orcpt:
            kind, _, address = orcpt.partition(";")
            words.append(f"ORCPT={kind};{encode_xtext(address)}")
    return (" ".join(words) + "\r\n").encode()


def stuff_dots(octets: Iterable[bytes]) -> Iterator[bytes]:
    """RFC 5321 4.5.2 over pieces of any size, then the final dot. The message must end in CRLF."""
    tail = b"\r\n"  # the last two octets sent, as if a line had just ended
    for piece in octets:
        if not piece:
            continue
        joined = tail + piece
        yield joined.replace(b"\r\n.", b"\r\n..")[2:]
        tail = joined[-2:]
    yield b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n"


def auth_plain(username: str, password: str) -> bytes:
    secret = b64encode(f"\0{username}\0{password}".encode()).decode()
    return f"AUTH PLAIN {secret}\r\n".encode()


def auth_login(username: str, password: str) -> tuple[bytes, bytes, bytes]:
    """Command and the two responses, each sent after a 334."""
    return (
        b"AUTH LOGIN\r\n",
        b64encode(username.encode()) + b"\r\n",
        b64encode(password.encode()) + b"\r\n",
    )
