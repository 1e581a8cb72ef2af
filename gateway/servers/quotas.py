"""The limits of accounts as they are configured, and what a user is told when mail gets near one."""

from collections.abc import Callable

from gateway.accounts.directory import AccountStore
from gateway.core.ident import new_id
from gateway.message import trace

_GIB, _MIB = 1024**3, 1024**2


class AccountQuotas:
    """`mailbox.quota.Quotas`. default: octets of an account that has no limit of its own; 0: none. clock: seconds
    since the epoch.
    """

    def __init__(self, accounts: AccountStore, default: int, hostname: str, clock: Callable[[], float]) -> None:
        self._accounts = accounts
        self._default = default
        self._hostname = hostname
        self._clock = clock

    def limit(self, account: str) -> int:
        found = self._accounts.account(account)
        return self._default if found is None or found.quota is None else found.quota

    def warning(self, account: str, used: int, limit: int) -> bytes:
        domain, now = account.rpartition("@")[2], self._clock()
        head = (
            f"Return-Path: <>\r\nFrom: Mail system <postmaster@{domain}>\r\nTo: <{account}>\r\n"
            f"Subject: Your mailbox is {used * 100 // limit} % full\r\nAuto-Submitted: auto-generated\r\n"
            "X-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
        )
        text = (
            f"Your mail takes {size_text(used)} of the {size_text(limit)} that you have here.\r\n\r\n"
            "When it is full, mail to you is put off and in the end returned to its senders, and\r\n"
            "your mail program can store nothing more. Please delete what you do not need, and\r\n"
            f"empty the trash. Questions: postmaster@{domain}\r\n"
        )
        fields = trace.date_field(now) + trace.message_id_field(new_id(), self._hostname)
        return fields + head.encode("ascii", "replace") + b"\r\n" + text.encode("ascii", "replace")


def size_text(octets: int) -> str:
    if octets >= _GIB:
        return f"{octets / _GIB:.1f} GB"
    return f"{octets / _MIB:.1f} MB" if octets >= _MIB else f"{-(-octets // 1024)} kB"
