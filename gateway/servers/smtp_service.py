"""What all SMTP sessions of a process share."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from gateway.accounts.directory import AccountDirectory
from gateway.checks.memory import Memory
from gateway.checks.senderauth import Dmarc
from gateway.core.ports import Counters
from gateway.message.blob import Blob
from gateway.policy.rules import Policy
from gateway.queue.intake import Intake
from gateway.servers.facts import FactSource
from gateway.servers.login import LoginGuard
from gateway.smtp.handler import Content
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder


class SpooledContent(Content, Protocol):
    def end_line(self) -> bytes:
        """The CRLF that the message's last line lacks, or nothing."""

    def blob(self) -> Blob: ...


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    hostname: str
    answer_early: bool = False
    hops: int = 50
    message_stage_s: float = 60.0
    shadow_lookups: int = 0


@dataclass(slots=True)
class SmtpService:
    """What all sessions of a process share. `policy` and `shadow` are replaced whole at a reload; a session keeps those
    it began with.
    """

    settings: SmtpSettings
    policy: Policy
    shadow: Policy | None
    source: FactSource
    memory: Memory
    authentication: Dmarc
    directory: AccountDirectory
    intake: Intake
    login: LoginGuard
    trusted: Container[str]
    upstream: Container[str]
    counters: Counters
    metrics: Metrics
    recorder: Recorder
    new_content: Callable[[], SpooledContent]
    has_room: Callable[[], bool]
    wake_runner: Callable[[], None]
    on_broken: Callable[[], None]
