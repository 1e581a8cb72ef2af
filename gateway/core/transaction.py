"""Session, envelope and their parts as frozen values (RFC 5321 3.3, RFC 3461 for DSN parameters)."""

from dataclasses import dataclass, field

from gateway.core.address import Mailbox, ReversePath


@dataclass(frozen=True, slots=True)
class Tls:
    version: str  # "TLSv1.3"
    cipher: str


@dataclass(frozen=True, slots=True)
class Session:
    """One connection as far as it has got. A change (HELO, STARTTLS, AUTH, XCLIENT) is a new value."""

    id: str
    listener: str  # "smtp" "submission" "submissions"
    client_ip: str
    client_port: int
    is_trusted: bool  # in [networks] trusted, and not by the address of a proxy
    client_name: str | None = None  # verified reverse name where somebody told us (XCLIENT)
    helo: str = ""
    is_esmtp: bool = False
    tls: Tls | None = None
    user: str | None = None
    auth_method: str = ""
    is_upstream: bool = False  # a hop of ours, in [networks] upstream: its clients are judged, not it

    @property
    def may_relay(self) -> bool:
        """The relay guard's view of the client: who may send to anybody."""
        return self.is_trusted or self.user is not None

    @property
    def is_submission(self) -> bool:
        return self.listener in ("submission", "submissions")

    def protocol(self, *, smtputf8: bool) -> str:
        """The `with` word of a Received field (RFC 3848; RFC 6531 3.7.3 and 4.3)."""
        if not self.is_esmtp:
            return "SMTP"
        return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if self.tls else "") + ("A" if self.user else "")


@dataclass(frozen=True, slots=True)
class Recipient:
    """orcpt: `type;xtext-decoded address` as the client gave it, or ""; notify: words of RFC 3461 4.1, empty: none
    given.
    """

    forward_path: Mailbox
    orcpt: str = ""
    notify: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Envelope:
    """body: "" "7BIT" "8BITMIME" "BINARYMIME"; ret: "" "FULL" "HDRS"; envid: decoded text, or ""."""

    reverse_path: ReversePath
    recipients: tuple[Recipient, ...] = ()
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    declared_size: int | None = field(default=None)
