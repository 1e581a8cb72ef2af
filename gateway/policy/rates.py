"""`rate(key, window, of)`: how much of something has come by a key within a window, before what is judged now.

Which rates a policy asks for is known when it is loaded; only those are counted.
"""

from dataclasses import dataclass

from gateway.core.address import Mailbox
from gateway.core.ports import client_network
from gateway.core.verdict import Stage
from gateway.policy.context import Context
from gateway.policy.durations import parse_window

KEYS = ("client", "network", "sender", "user", "recipient")
OF = ("recipients", "messages", "connections", "auth_failures")
MAX_WINDOW_S = 86400.0
HOMES = {"sender": Stage.SENDER, "recipient": Stage.RECIPIENT}  # others are known from connect on


@dataclass(frozen=True, slots=True)
class Rate:
    key: str
    window_s: float
    of: str


def parse_rate(key: str, window: str, of: str) -> Rate:
    """Raises ValueError."""
    if key not in KEYS:
        raise ValueError(f"the key is one of {', '.join(KEYS)}")
    if of not in OF:
        raise ValueError(f"what is counted is one of {', '.join(OF)}")
    if of in ("connections", "auth_failures") and key not in ("client", "network"):
        raise ValueError(f"{of} are counted by client or network")
    seconds = parse_window(window)
    if not 1 <= seconds <= MAX_WINDOW_S:
        raise ValueError("a window is 1s to 1d")
    return Rate(key, seconds, of)


def check_rate(key: str, window: str, of: str) -> None:
    parse_rate(key, window, of)


def counter_of(rate: Rate, context: Context) -> str | None:
    """The name of the shared counter; None where there is no such key, as of a user who has not signed in."""
    by = _who(rate.key, context)
    return None if by is None else f"rate:{rate.of}:{rate.window_s:g}:{rate.key}:{by}"


def _who(key: str, context: Context) -> str | None:
    ip = context.session.client_ip
    match key:
        case "client":
            return ip
        case "network":
            return client_network(ip)
        case "user":
            return context.session.user
        case "sender":
            mailbox = context.reverse_path.mailbox if context.reverse_path is not None else None
            return _lower(mailbox)
        case _:
            return _lower(context.recipient)


def _lower(mailbox: Mailbox | None) -> str | None:
    return None if mailbox is None else str(mailbox).lower()
