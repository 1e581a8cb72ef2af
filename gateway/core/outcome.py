"""Outbound fact: what became of one recipient in one delivery attempt."""

from dataclasses import dataclass

from gateway.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Delivered:
    """remote: the host that took it, or "" for the local store; relayed_dsn: the next hop promised DSN itself."""

    reply: Reply
    remote: str = ""
    relayed_dsn: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """host_down: the destination's trouble, so all its mail waits.

    again_in_s: no attempt was made and none is counted; come back after so many seconds.
    """

    reply: Reply
    remote: str = ""
    host_down: bool = False
    again_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    reply: Reply
    remote: str = ""


Outcome = Delivered | Deferred | Failed
