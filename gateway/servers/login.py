"""Signing in, for every protocol: passwords checked off the event loop, guessing slowed and then locked out.

Attempts count before the password is looked at, so a hundred connections at once guess no faster than one. The count
is by client address and by account; an address that signed in to the account lately is not shut out by others'
guesses.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.accounts.credentials import CredentialChecker
from gateway.accounts.directory import AccountStore
from gateway.core.ports import Counters, client_key

MAX_DELAY_S = 4.0
KNOWN_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class LoginLimits:
    by_address: int = 30
    by_account: int = 20
    window_s: float = 900.0


@dataclass(frozen=True, slots=True)
class SignedIn:
    account: str


@dataclass(frozen=True, slots=True)
class WrongPassword:
    """Also: no such account, or a disabled one. Nobody is told which."""


@dataclass(frozen=True, slots=True)
class LockedOut:
    """Too many failures of late; the password was not looked at."""


LoginResult = SignedIn | WrongPassword | LockedOut


class LoginGuard:
    def __init__(
        self,
        accounts: AccountStore,
        checker: CredentialChecker,
        counters: Counters,
        limits: LoginLimits,
        local_domains: Iterable[str],
    ) -> None:
        self._accounts = accounts
        self._checker = checker
        self._counters = counters
        self._limits = limits
        self._domains = tuple(local_domains)

    async def check(self, user: str, password: str, client_ip: str) -> LoginResult:
        account = self._account_name(user)
        limits, counters = self._limits, self._counters
        by_address = client_key("login", client_ip)
        by_account = f"login:{account}"
        known = client_key(f"known:{account}", client_ip)
        failures = counters.hit(by_address, limits.window_s)
        if failures > limits.by_address:
            return LockedOut()
        account_failures = counters.hit(by_account, limits.window_s)
        if account_failures > limits.by_account and not counters.count(known):
            counters.hit(by_address, limits.window_s, -1)
            return LockedOut()
        found = self._accounts.account(account)
        stored = None if found is None else found.password_hash
        if await self._checker.verify(account, stored, password):
            counters.hit(by_address, limits.window_s, -1)
            counters.hit(by_account, limits.window_s, -1)
            counters.hit(known, KNOWN_S)
            return SignedIn(account)
        await asyncio.sleep(min(MAX_DELAY_S, 0.25 * 2 ** min(failures - 1, 8)))
        return WrongPassword()

    def _account_name(self, user: str) -> str:
        """Lower case; a name without a domain is of the only local domain, if there is one only."""
        name = user.strip().lower()
        if "@" not in name and len(self._domains) == 1:
            return f"{name}@{self._domains[0]}"
        return name
