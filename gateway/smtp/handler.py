"""What one SMTP connection is given: its limits, and the Handler that judges and stores (see `servers.smtp`)."""

from dataclasses import dataclass
from typing import Protocol

from gateway.core.ports import EarlyTalk
from gateway.core.reply import Reply
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.smtp.data import ContentFacts
from gateway.smtp.grammar import MailArguments, RcptArguments
from gateway.smtp.sasl import Credentials


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits of one session; sizes in octets, times in seconds."""

    hostname: str = "localhost"
    size: int = 50 * 1024 * 1024
    line: int = 8192
    recipients: int = 100
    commands: int = 2000
    errors: int = 20
    messages: int = 1000
    idle_s: float = 300.0
    data_s: float = 1800.0


class Content(Protocol):
    """Where the octets of one message go. Nothing is kept until the handler's `message` says so."""

    async def write(self, octets: bytes) -> None:
        """Raises StorageFull when there is no room."""

    def discard(self) -> None: ...


class Handler(Protocol):
    """What a connection asks of its driver. None as an answer to connected, helo and mail means: no objection."""

    async def connected(self, session: Session, early_talk: EarlyTalk) -> Reply | None: ...
    async def helo(self, session: Session) -> Reply | None: ...
    async def authenticate(self, session: Session, method: str, credentials: Credentials) -> Session | Reply: ...
    async def impersonate(self, session: Session, ip: str | None, port: int | None, name: str | None) -> Session:
        """The session of the client that a proxy names; None: it does not know, so nobody is trusted or signed in."""

    async def mail(self, session: Session, arguments: MailArguments) -> Reply | None: ...
    async def rcpt(self, session: Session, envelope: Envelope, arguments: RcptArguments) -> Recipient | Reply: ...
    def reset(self) -> None: ...
    def content(self) -> Content: ...
    async def message(self, session: Session, envelope: Envelope, content: Content, facts: ContentFacts) -> Reply: ...
    def failed(self, session: Session, verb: str, error: Exception) -> Reply: ...
    def refused(self, session: Session, verb: str, answer: Reply) -> Reply:
        """A limit, a guard or a breach of protocol refused `verb`; the answer may be given a decision id."""

    def closed(self, session: Session) -> None: ...
