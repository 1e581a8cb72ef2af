"""Arguments of MAIL and RCPT (RFC 5321 4.1.2, 4.1.1.11; RFC 1870, 3461, 4954, 6152, 3030, 6531).

Pure: octets in, values out. A breach is a GrammarError carrying the reply for it; nothing here decides policy.
Source routes are read and ignored, as RFC 5321 appendix C allows.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from gateway.core.address import (
    NULL_REVERSE_PATH,
    Mailbox,
    ReversePath,
    parse_mailbox,
)
from gateway.core.reply import Reply, reply

# Path = "<" [ A-d-l ":" ] Mailbox ">"; the local part may be a quoted string that holds ">" and blanks.
_PATH = re.compile(
    r"""<(?P<route>@[^,:>"\s]+(?:,@[^,:>"\s]+)*:)?
        (?P<box>(?:"(?:[^"\\]|\\.)*"|[^"<>\s@]+)(?:@(?:\[[^\]\s>]*\]|[^\s<>@"\[\]]+))?|)>
        (?P<rest>$|\ .*)""",
    re.VERBOSE | re.DOTALL,
)
# esmtp-param = esmtp-keyword ["=" esmtp-value]
_PARAMETER = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[!-<>-~\u0080-\U0010ffff]+))?")
_ATOM = re.compile(r"[A-Za-z0-9-]+")
_XTEXT_HEX = re.compile(r"\+([0-9A-F]{2})")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")

BODIES = frozenset({"7BIT", "8BITMIME", "BINARYMIME"})
NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})
MAX_SIZE_DIGITS = 20  # RFC 1870 5

SYNTAX_MAIL = reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
SYNTAX_RCPT = reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")


class GrammarError(ValueError):
    """The argument breaks the grammar; `reply` says so to the peer."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(str(answer))
        self.reply = answer


@dataclass(frozen=True, slots=True)
class MailArguments:
    reverse_path: ReversePath
    size: int | None = None
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class RcptArguments:
    """forward_path: None is the bare `<postmaster>` of RFC 5321 4.1.1.3."""

    forward_path: Mailbox | None
    orcpt: str = ""
    notify: frozenset[str] = frozenset()


@lru_cache(maxsize=2048)
def parse_mail(argument: str, *, esmtp: bool) -> MailArguments:
    """`FROM:<path> [params]`. Raises GrammarError. Cached: pools of senders repeat themselves."""
    path, parameters = _split(argument, "FROM:", SYNTAX_MAIL)
    smtputf8 = any(key == "SMTPUTF8" for key, _ in parameters)
    reverse_path = NULL_REVERSE_PATH if path == "" else ReversePath(_mailbox(path, smtputf8, "5.1.7"))
    if parameters and not esmtp:
        raise GrammarError(SYNTAX_MAIL)
    size: int | None = None
    body = ret = envid = ""
    for key, value in parameters:
        match key:
            case "SIZE":
                if not (value.isascii() and value.isdigit()) or len(value) > MAX_SIZE_DIGITS:
                    raise GrammarError(reply(501, "5.5.4", "SIZE takes a number of octets"))
                size = int(value)
            case "BODY":
                body = value.upper()
                if body not in BODIES or body == "BINARYMIME":
                    raise GrammarError(reply(501, "5.5.4", "BODY is one of 7BIT, 8BITMIME"))
            case "SMTPUTF8":
                if value:
                    raise GrammarError(reply(501, "5.5.4", "SMTPUTF8 takes no value"))
            case "RET":
                ret = value.upper()
                if ret not in ("FULL", "HDRS"):
                    raise GrammarError(reply(501, "5.5.4", "RET is one of FULL, HDRS"))
            case "ENVID":
                envid = _xtext(value, "ENVID", 100)
            case "AUTH":
                _xtext(value, "AUTH", 500)  # RFC 4954 5: read and, with no trust in it, treated as <>
            case _:
                raise GrammarError(reply(555, "5.5.4", f"MAIL parameter {key[:40]} is not known here"))
    return MailArguments(reverse_path, size, body, smtputf8, ret, envid)


@lru_cache(maxsize=8192)
def parse_rcpt(argument: str, *, esmtp: bool, smtputf8: bool) -> RcptArguments:
    """`TO:<path> [params]`. Raises GrammarError."""
    path, parameters = _split(argument, "TO:", SYNTAX_RCPT)
    if path == "":
        raise GrammarError(reply(501, "5.1.3", "A recipient cannot be the null path"))
    forward_path = None if path.lower() == "postmaster" else _mailbox(path, smtputf8, "5.1.3")
    if parameters and not esmtp:
        raise GrammarError(SYNTAX_RCPT)
    orcpt = ""
    notify: frozenset[str] = frozenset()
    for key, value in parameters:
        match key:
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                orcpt = _orcpt(value)
            case _:
                raise GrammarError(reply(555, "5.5.4", f"RCPT parameter {key[:40]} is not known here"))
    return RcptArguments(forward_path, orcpt, notify)


def parse_helo(argument: str) -> str:
    """The domain or address literal a client names itself by; lenient in form, strict in characters and length."""
    name = argument.strip(" ")
    if not name or len(name) > 255 or not name.isascii() or not name.isprintable() or " " in name:
        raise GrammarError(reply(501, "5.5.4", "Syntax: EHLO or HELO hostname"))
    return name


def _split(argument: str, keyword: str, syntax: Reply) -> tuple[str, list[tuple[str, str]]]:
    if argument[: len(keyword)].upper() != keyword:
        raise GrammarError(syntax)
    # RFC 5321 3.3 allows no blank after the colon; every MTA takes one, and old devices send it.
    text = argument[len(keyword) :].strip(" ")
    match = _PATH.match(text)
    if match is None:
        raise GrammarError(syntax)
    return match["box"], _parameters(match["rest"], syntax)


def _parameters(text: str, syntax: Reply) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise GrammarError(syntax)
        key = match["key"].upper()
        if any(key == other for other, _ in found):
            raise GrammarError(reply(501, "5.5.4", f"Parameter {key[:40]} given twice"))
        found.append((key, match["value"] or ""))
    return found


def _mailbox(path: str, smtputf8: bool, status: str) -> Mailbox:
    if "@" not in path.rpartition('"')[2]:
        raise GrammarError(reply(553, status, "Address needs a domain"))
    if not path.isascii():
        if not smtputf8:
            raise GrammarError(reply(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not given"))
        if any("\ud800" <= char <= "\udfff" for char in path):
            raise GrammarError(reply(553, status, "Address is not valid UTF-8"))
    try:
        return parse_mailbox(path)
    except ValueError as error:
        raise GrammarError(reply(553, status, f"Malformed address: {error}")) from None


def _notify(value: str) -> frozenset[str]:
    words = frozenset(value.upper().split(","))
    if not words <= NOTIFY or ("NEVER" in words and len(words) > 1):
        raise GrammarError(reply(501, "5.5.4", "NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY"))
    return words


def _orcpt(value: str) -> str:
    kind, semicolon, address = value.partition(";")
    if not semicolon or not _ATOM.fullmatch(kind) or len(value) > 500:
        raise GrammarError(reply(501, "5.5.4", "ORCPT is type;address, 500 octets at most"))
    if kind.lower() == "utf-8" and address.isprintable() and not address.isascii():
        return f"{kind};{address}"
    return f"{kind};{_xtext(address, 'ORCPT', 500)}"


def _xtext(value: str, key: str, limit: int) -> str:
    if not value or len(value) > limit or not _XTEXT.fullmatch(value):
        raise GrammarError(reply(501, "5.5.4", f"{key} takes xtext of at most {limit} octets"))
    text = _XTEXT_HEX.sub(lambda match: chr(int(match[1], 16)), value)
    if not text.isprintable() or not text.isascii():
        raise GrammarError(reply(501, "5.5.4", f"{key} holds what is not printable ASCII"))
    return text


def encode_xtext(text: str) -> str:
    """RFC 3461 4: "+" and "=" and all outside "!".."~" become +HH."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else "".join(f"+{b:02X}" for b in c.encode()) for c in text)
