"""Fakes of the outside world: a resolver of record lines, a clock that is moved by hand, a directory and accounts."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping

from gateway.accounts.directory import Account
from gateway.core.address import Domain, Mailbox
from gateway.core.ports import Answer, DnsFailure, NoData, NoDomain, Records
from gateway.senderauth.signing import SigningKey


class FakeClock:
    """`core.ports.Clock` that stands still until told to `advance`."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


class FakeResolver:
    """`core.ports.Resolver` over lines "name TYPE value", "name FAILS [TYPE]"; a name without a line is NXDOMAIN.

    asked: the look-ups in order.
    """

    def __init__(self, *lines: str) -> None:
        self._records: dict[tuple[str, str], list[object]] = defaultdict(list)
        self._failing: set[tuple[str, str]] = set()
        self._names: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        for line in lines:
            self.add(line)

    def add(self, line: str) -> None:
        name, kind, *rest = line.split(None, 2)
        name, value = name.lower(), rest[0] if rest else ""
        self._names.add(name)
        if kind == "FAILS":
            self._failing.update((name, rdtype) for rdtype in ([value] if value else ["MX", "A", "AAAA", "TXT"]))
        elif kind == "MX":
            preference, host = value.split()
            self._records[name, kind].append((int(preference), host.rstrip(".").lower()))
        elif kind == "TXT":
            self._records[name, kind].append(value.encode())
        elif kind in ("PTR", "CNAME"):
            self._records[name, kind].append(value.rstrip(".").lower())
        elif kind != "EXISTS":
            self._records[name, kind].append(value)

    async def lookup(self, name: str, rdtype: str) -> Answer:
        await asyncio.sleep(0)
        key = (name.lower(), rdtype)
        self.asked.append(key)
        if key in self._failing:
            return DnsFailure("SERVFAIL")
        if self._records.get(key):
            return Records(tuple(self._records[key]))
        return NoData() if key[0] in self._names else NoDomain()


class FakeKeys:
    """`senderauth.signing.SigningKeys`."""

    def __init__(self, *keys: SigningKey) -> None:
        self._keys = keys

    @property
    def are_there(self) -> bool:
        return bool(self._keys)

    def active(self, domain: str) -> tuple[SigningKey, ...]:
        return tuple(key for key in self._keys if key.domain == domain)


class FakeDirectory:
    """`core.ports.Directory`: mailboxes as `local@domain` texts in lower case."""

    def __init__(self, local: Iterable[str] = (), relayed: Iterable[str] = (), mailboxes: Iterable[str] = ()) -> None:
        self._local, self._relayed, self._mailboxes = frozenset(local), frozenset(relayed), frozenset(mailboxes)
        self.choices: dict[tuple[str, str], bool] = {}

    def is_local(self, domain: Domain) -> bool:
        return domain.ascii in self._local

    def is_relayed(self, domain: Domain) -> bool:
        return domain.ascii in self._relayed

    def exists(self, mailbox: Mailbox) -> bool:
        return str(mailbox).lower() in self._mailboxes

    def without_tag(self, mailbox: Mailbox) -> str:
        return f"{mailbox.local_part.lower().partition('+')[0]}@{mailbox.domain.ascii}"

    def is_probed(self, domain: Domain) -> bool:
        return domain.ascii.startswith("probed.")

    def choice(self, recipient: Mailbox, sender: str) -> bool | None:
        return self.choices.get((str(recipient).lower(), sender.lower()))

    def owns(self, user: str, mailbox: Mailbox) -> bool:
        return str(mailbox).lower() == user


class FakeAccounts:
    """`accounts.directory.AccountStore` in memory; accounts in the order they were made."""

    def __init__(self, accounts: Iterable[str] = (), aliases: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._accounts = {address: Account(address, "hash", False, float(n)) for n, address in enumerate(accounts)}
        self._aliases = dict(aliases or {})
        self.chosen: dict[str, dict[str, bool]] = {}

    def disable(self, address: str) -> None:
        created = self._accounts[address].created
        self._accounts[address] = Account(address, None, True, created)

    def account(self, address: str) -> Account | None:
        return self._accounts.get(address)

    def alias(self, address: str) -> tuple[str, ...]:
        return self._aliases.get(address, ())

    def choices(self, recipient: str) -> Mapping[str, bool]:
        return self.chosen.get(recipient, {})

    def first_account(self, domain: str) -> str | None:
        enabled = [found for found in self._accounts.values() if not found.is_disabled]
        enabled.sort(key=lambda found: (found.address.rpartition("@")[2] != domain, found.created))
        return enabled[0].address if enabled else None
