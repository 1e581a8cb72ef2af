"""recipient.over_quota: may the mailbox have no more mail?"""

import asyncio
import time
from collections.abc import Callable

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox, parse_mailbox
from gateway.policy.context import Context, Need
from gateway.policy.values import Found

BELIEVED_S = 10.0
MAX_KEPT = 10_000


class Fullness:
    """limit(account), used(account): octets; the first 0 where there is none. used blocks."""

    def __init__(self, directory: AccountDirectory, limit: Callable[[str], int], used: Callable[[str], int]) -> None:
        self._directory = directory
        self._limit = limit
        self._used = used
        self._known: dict[str, tuple[bool, float]] = {}

    async def fetch(self, need: Need, context: Context) -> Found:
        account = None if context.recipient is None else self._account(context.recipient)
        limit = 0 if account is None else self._limit(account)
        if account is None or not limit:
            return False
        is_full, until = self._known.get(account, (False, 0.0))
        if time.monotonic() >= until:
            is_full = await asyncio.to_thread(self._used, account) >= limit
            if len(self._known) >= MAX_KEPT:
                self._known.clear()
            self._known[account] = is_full, time.monotonic() + BELIEVED_S
        return is_full

    def _account(self, recipient: Mailbox) -> str | None:
        """The one that the mail ends in; where an alias leads to several, one that is full keeps it from none."""
        if not self._directory.is_local(recipient.domain):
            return None
        targets = self._directory.expand(recipient)
        return self._directory.account_of(parse_mailbox(targets[0])) if len(targets) == 1 else None
