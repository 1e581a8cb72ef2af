"""POP3 without sockets (RFC 1939, 2449 CAPA, 2595 STLS, 3206 response codes, 5034 AUTH): command lines in, answers out.

The driver owns the socket, TLS, the password check and the store; it does what an Action asks and tells the result.
The maildrop is a snapshot taken at login; DELE takes effect at QUIT only. USER and PASS want TLS.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

MAX_LINE = 512  # octets with CRLF; RFC 2449 4 says 255, passwords may be longer
MAX_ERRORS = 10
SASL = ("PLAIN", "LOGIN")


@dataclass(frozen=True, slots=True)
class Item:
    """One message of the maildrop."""

    uid: int
    size: int


@dataclass(frozen=True, slots=True)
class Say:
    """A whole answer."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Say +OK, then shake hands."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class SignIn:
    """Check and call `signed_in` or `not_signed_in`."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Exchange by this mechanism (RFC 5034), then as `SignIn`; `authentication_failed` when it comes to nothing.
    initial: the first response in base64, None where there is none.
    """

    mechanism: str
    initial: str | None


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Send the message by dot-stuffed lines after the first line; lines: of the body only so many, None: whole."""

    item: Item
    first: bytes
    lines: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    """Remove these UIDs (none outside the transaction state), say goodbye and close. Failure: `not_removed`."""

    uids: tuple[int, ...]
    octets: bytes


Action = Say | StartTls | SignIn | Authenticate | Retrieve | Finish


class State(Enum):
    AUTHORIZATION = auto()
    TRANSACTION = auto()


@dataclass(slots=True)
class Pop3Session:
    hostname: str
    is_tls: bool
    can_start_tls: bool
    state: State = State.AUTHORIZATION
    user: str = ""
    errors: int = 0
    uidvalidity: int = 0
    items: list[Item] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)  # numbers, from 1

    def greeting(self) -> bytes:
        return _ok(f"{self.hostname} POP3 ready")

    def command(self, line: bytes) -> Action:
        """line: without its CRLF."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._error("not UTF-8")
        verb, _, argument = text.partition(" ")
        handler = _HANDLERS[self.state].get(verb.upper())
        if handler is None:
            return self._error("unknown command, or not at this point")
        # A password may hold blanks, also at its end (RFC 1939 7).
        action: Action = handler(self, argument if verb.upper() == "PASS" else argument.strip())
        return action

    def secured(self) -> None:
        """TLS is up: what was said in clear is forgotten (RFC 2595 4)."""
        self.is_tls = True
        self.user = ""

    def signed_in(self, uidvalidity: int, items: list[Item]) -> Say:
        self.state = State.TRANSACTION
        self.uidvalidity, self.items = uidvalidity, items
        return Say(_ok(f"{len(items)} messages"))

    def not_signed_in(self, *, is_locked: bool) -> Say:
        self.errors += 1
        self.user = ""
        if is_locked:
            return Say(b"-ERR [SYS/TEMP] too many failed logins, try again later\r\n")
        return Say(b"-ERR [AUTH] wrong user or password\r\n")

    def authentication_failed(self, reason: str) -> Say:
        return self._error(reason)

    def in_use(self) -> Say:
        return self._error("[IN-USE] another session has the maildrop; try again in a minute")

    @property
    def is_hopeless(self) -> bool:
        return self.errors >= MAX_ERRORS

    def _error(self, text: str) -> Say:
        self.errors += 1
        return Say(f"-ERR {text}\r\n".encode())

    # --- before sign-in -------------------------------------------------------------------------------------------

    def _capa(self, argument: str) -> Action:
        words = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
        if self.is_tls:
            words += ["USER", f"SASL {' '.join(SASL)}"]
        elif self.can_start_tls:
            words.append("STLS")
        return Say(_ok("Capability list follows") + "".join(f"{word}\r\n" for word in words).encode() + b".\r\n")

    def _stls(self, argument: str) -> Action:
        if self.is_tls or not self.can_start_tls:
            return self._error("TLS is active already or not offered")
        return StartTls(_ok("Begin TLS negotiation"))

    def _user(self, argument: str) -> Action:
        if not self.is_tls:
            return self._error("[AUTH] TLS first: STLS")
        if not argument:
            return self._error("USER wants a name")
        self.user = argument
        return Say(_ok("now the password"))

    def _pass(self, argument: str) -> Action:
        if not self.is_tls:
            return self._error("[AUTH] TLS first: STLS")
        if not self.user or not argument:
            return self._error("USER first, then PASS with the password")
        return SignIn(self.user, argument)

    def _auth(self, argument: str) -> Action:
        if not self.is_tls:
            return self._error("[AUTH] TLS first: STLS")
        if not argument:
            return Say(_ok("mechanisms follow") + "".join(f"{name}\r\n" for name in SASL).encode() + b".\r\n")
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in SASL:
            return self._error(f"there is {' and '.join(SASL)}")
        return Authenticate(mechanism.upper(), initial or None)

    def _quit_early(self, argument: str) -> Action:
        return Finish((), _ok("bye"))

    # --- the maildrop ---------------------------------------------------------------------------------------------

    def _left(self) -> list[tuple[int, Item]]:
        return [(number, item) for number, item in enumerate(self.items, 1) if number not in self.deleted]

    def _find(self, argument: str) -> tuple[int, Item] | None:
        if not (argument.isascii() and argument.isdigit()) or len(argument) > 9:
            return None
        number = int(argument)
        if not 1 <= number <= len(self.items) or number in self.deleted:
            return None
        return number, self.items[number - 1]

    def _stat(self, argument: str) -> Action:
        left = self._left()
        return Say(_ok(f"{len(left)} {sum(item.size for _, item in left)}"))

    def _list(self, argument: str) -> Action:
        return self._listing(argument, lambda item: str(item.size))

    def _uidl(self, argument: str) -> Action:
        return self._listing(argument, lambda item: f"{self.uidvalidity:08x}{item.uid:08x}")

    def _listing(self, argument: str, show: Callable[[Item], str]) -> Action:
        if argument:
            found = self._find(argument)
            return self._error("no such message") if found is None else Say(_ok(f"{found[0]} {show(found[1])}"))
        left = self._left()
        lines = "".join(f"{number} {show(item)}\r\n" for number, item in left)
        return Say(_ok(f"{len(left)} messages") + lines.encode() + b".\r\n")

    def _retr(self, argument: str) -> Action:
        found = self._find(argument)
        if found is None:
            return self._error("no such message")
        return Retrieve(found[1], _ok(f"{found[1].size} octets"), None)

    def _top(self, argument: str) -> Action:
        number, _, lines = argument.partition(" ")
        found = self._find(number)
        if found is None or not (lines.isascii() and lines.isdigit()) or len(lines) > 9:
            return self._error("TOP wants a message number and a number of lines")
        return Retrieve(found[1], _ok("top of message follows"), int(lines))

    def _dele(self, argument: str) -> Action:
        found = self._find(argument)
        if found is None:
            return self._error("no such message")
        self.deleted.add(found[0])
        return Say(_ok(f"message {found[0]} will go at QUIT"))

    def _rset(self, argument: str) -> Action:
        self.deleted.clear()
        return Say(_ok("nothing will go"))

    def _noop(self, argument: str) -> Action:
        return Say(_ok(""))

    def _quit(self, argument: str) -> Action:
        return Finish(tuple(self.items[number - 1].uid for number in sorted(self.deleted)), _ok("bye"))


class TopFilter:
    """Lets through the header, the blank line and so many lines of the body (RFC 1939 TOP), over pieces of any size."""

    def __init__(self, lines: int) -> None:
        self._left = lines
        self._tail = b""
        self._in_body = False
        self.is_done = False

    def feed(self, octets: bytes) -> bytes:
        out: list[bytes] = []
        *lines, self._tail = (self._tail + octets).split(b"\r\n")
        for line in lines:
            if self._in_body:
                if not self._left:
                    self.is_done = True
                    return b"".join(out)
                self._left -= 1
            elif not line:
                self._in_body = True
            out.append(line + b"\r\n")
        return b"".join(out)


def _ok(text: str) -> bytes:
    return f"+OK {text}".rstrip().encode() + b"\r\n"


_COMMON = {"CAPA": Pop3Session._capa}
_HANDLERS = {
    State.AUTHORIZATION: {
        **_COMMON,
        "STLS": Pop3Session._stls,
        "USER": Pop3Session._user,
        "PASS": Pop3Session._pass,
        "AUTH": Pop3Session._auth,
        "QUIT": Pop3Session._quit_early,
    },
    State.TRANSACTION: {
        **_COMMON,
        "STAT": Pop3Session._stat,
        "LIST": Pop3Session._list,
        "UIDL": Pop3Session._uidl,
        "RETR": Pop3Session._retr,
        "TOP": Pop3Session._top,
        "DELE": Pop3Session._dele,
        "RSET": Pop3Session._rset,
        "NOOP": Pop3Session._noop,
        "QUIT": Pop3Session._quit,
    },
}
