"""Who exists here: local and relayed domains, accounts, aliases, plus-addressing, postmaster and abuse.

Expansion of a recipient ends at accounts or at addresses elsewhere. Pure over an AccountStore; all answers are quick.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.accounts.srs import SenderRewriting
from gateway.core.address import Domain, Mailbox, covering, parse_domain, parse_mailbox

MAX_EXPANSION = 1000  # addresses one alias may lead to
MAX_DEPTH = 10
MAX_ASKED = 20  # of those that an alias leads to, about a sender
ROLES = ("postmaster", "abuse")  # RFC 5321 4.5.1, RFC 2142: always deliverable


@dataclass(frozen=True, slots=True)
class Account:
    """address: `local@domain` in lower case; password_hash: None while disabled; quota: octets of mail, 0: any
    amount, None: as configured for all.
    """

    address: str
    password_hash: str | None
    is_disabled: bool
    created: float
    quota: int | None = None


class AccountStore(Protocol):
    def account(self, address: str) -> Account | None: ...

    def alias(self, address: str) -> tuple[str, ...]:
        """Targets, or () when there is no such alias."""

    def choices(self, recipient: str) -> Mapping[str, bool]:
        """Senders that it has welcomed (True) or blocked (False): addresses, or `@domain`, in lower case."""

    def first_account(self, domain: str) -> str | None:
        """The oldest enabled account of the domain, else of any: where postmaster goes when nobody said."""


class AliasLoop(ValueError):
    """The text names the addresses of the loop."""


class AccountDirectory:
    """`core.ports.Directory` over accounts. local, relayed, probed (some of relayed): domains in A-labels; of the last
    two one with a leading dot takes its subdomains too. delimiter: what a tag begins with, none: there are no tags.
    routing: some of local, see `where_routed`. srs: makes and reads reverse-paths of what is handed on; None: as if
    there were no such thing.
    """

    def __init__(
        self,
        store: AccountStore,
        local: Iterable[str],
        relayed: Iterable[str],
        probed: Iterable[str] = (),
        delimiter: str = "+",
        routing: Iterable[str] = (),
        srs: SenderRewriting | None = None,
    ) -> None:
        self._store = store
        self._local = frozenset(local)
        self._relayed = frozenset(relayed)
        self._probed = frozenset(probed)
        self._delimiter = delimiter
        self._routing = frozenset(routing)
        self._srs = srs

    def is_local(self, domain: Domain) -> bool:
        return domain.ascii in self._local

    def is_relayed(self, domain: Domain) -> bool:
        return not self.is_local(domain) and any(entry in self._relayed for entry in covering(domain.ascii))

    def without_tag(self, mailbox: Mailbox) -> str:
        exact = f"{mailbox.local_part.lower()}@{mailbox.domain.ascii}"
        return _without_tag(exact, self._delimiter) if self.is_local(mailbox.domain) else exact

    def is_probed(self, domain: Domain) -> bool:
        return self.is_relayed(domain) and any(entry in self._probed for entry in covering(domain.ascii))

    @property
    def local_domains(self) -> frozenset[str]:
        return self._local

    def where_routed(self, mailbox: Mailbox) -> Mailbox:
        """Where a sender-specified route within the local part leads: at a domain of `routing` both `user%domain@ours`
        and `domain!user@ours` are `user@domain`. As far as it can be followed: the mailbox itself where there is none.
        """
        while mailbox.domain.ascii in self._routing:
            host, bang, user = mailbox.local_part.partition("!")
            if not bang:
                user, _, host = mailbox.local_part.rpartition("%")
            if not user:
                break
            try:
                mailbox = Mailbox(user, parse_domain(host))
            except ValueError:
                break
        return mailbox

    def rewritten(self, sender: Mailbox, domain: Domain) -> Mailbox:
        """The reverse-path of what an address of `domain`, one of ours, hands on for the sender."""
        return sender if self._srs is None else self._srs.forward(sender, domain)

    def held_sender(self, mailbox: Mailbox) -> Mailbox | None:
        """Of a rewritten reverse-path of ours: whom a bounce is for."""
        return self._srs.reverse(mailbox) if self._srs is not None and self.is_local(mailbox.domain) else None

    def exists(self, mailbox: Mailbox) -> bool:
        """Somebody gets the mail: an alias that leads nowhere is nobody."""
        return self.expand(mailbox) != ()

    def owns(self, user: str, mailbox: Mailbox) -> bool:
        if not self.is_local(mailbox.domain):
            return False
        return self._owner(mailbox) == user or any(
            self._owner(parse_mailbox(target)) == user for target in self.expand(mailbox)
        )

    def expand(self, mailbox: Mailbox) -> tuple[str, ...]:
        """Final addresses for a recipient of a local domain, in order, once each; () when there is nobody.

        A loop contributes nothing beyond its first turn: mail for its other members still arrives.
        """
        found: dict[str, None] = {}
        self._expand(str(mailbox).lower(), mailbox, found, set(), 0)
        return tuple(found)

    def choice(self, recipient: Mailbox, sender: str) -> bool | None:
        """Where an alias leads to several, what all of them have said."""
        targets = self.expand(recipient) if self.is_local(recipient.domain) else ()
        found = {self._choice(parse_mailbox(target), sender) for target in targets[:MAX_ASKED] or (str(recipient),)}
        return found.pop() if len(found) == 1 else None

    def _choice(self, recipient: Mailbox, sender: str) -> bool | None:
        found = self._store.choices(self.chooser(recipient))
        if not found:
            return None
        try:
            sender = str(parse_mailbox(sender)).lower()
        except ValueError:
            return None
        return found.get(sender, found.get(f"@{sender.rpartition('@')[2]}"))

    def chooser(self, recipient: Mailbox) -> str:
        """Under whose name a recipient's choices are kept: where an alias leads to one account, that account's."""
        targets = self.expand(recipient) if self.is_local(recipient.domain) else ()
        mailbox = parse_mailbox(targets[0]) if len(targets) == 1 else recipient
        return self._owner(mailbox) or self.without_tag(mailbox).lower()

    def account_of(self, mailbox: Mailbox) -> str | None:
        """The account that mail for `mailbox` is stored in, with plus-addressing; None: no account of that name."""
        return self._owner(mailbox)

    def _expand(self, key: str, mailbox: Mailbox, found: dict[str, None], seen: set[str], depth: int) -> None:
        if key in seen or depth > MAX_DEPTH or len(found) >= MAX_EXPANSION:
            return
        seen.add(key)
        if not self.is_local(mailbox.domain):
            found[str(mailbox)] = None
            return
        targets = self._targets(mailbox)
        if not targets:
            if self._owner(mailbox) is not None:
                found[str(mailbox)] = None  # plus-address kept: the store may file by it
            return
        for target in targets:
            if target == self._owner(mailbox):
                found[target] = None  # an alias that keeps a copy in the account of its own name
                continue
            self._expand(target.lower(), parse_mailbox(target), found, seen, depth + 1)

    def _owner(self, mailbox: Mailbox) -> str | None:
        for address in self._candidates(mailbox):
            account = self._store.account(address)
            if account is not None:
                return address
        return None

    def _targets(self, mailbox: Mailbox) -> tuple[str, ...]:
        for address in self._candidates(mailbox):
            targets = self._store.alias(address)
            if targets:
                return targets
        if self._owner(mailbox) is not None:
            return ()
        if mailbox.local_part.lower() in ROLES:
            first = self._store.first_account(mailbox.domain.ascii)
            return () if first is None else (first,)
        held = self.held_sender(mailbox)
        return () if held is None else (str(held),)

    def _candidates(self, mailbox: Mailbox) -> tuple[str, ...]:
        """Exact first, then without the tag. Local parts here are case-insensitive, as users expect."""
        exact = f"{mailbox.local_part.lower()}@{mailbox.domain.ascii}"
        base = _without_tag(exact, self._delimiter)
        return (exact,) if base == exact else (exact, base)


def find_loop(store: AccountStore, address: str, targets: Iterable[str], delimiter: str = "+") -> None:
    """Raises AliasLoop when `address` → `targets` would lead back to `address`."""
    pending: list[tuple[str, tuple[str, ...]]] = [(target.lower(), (address, target.lower())) for target in targets]
    seen: set[str] = set()
    while pending:
        current, path = pending.pop()
        current = current if store.alias(current) else _without_tag(current, delimiter)
        if current == address:
            if len(path) == 2 and store.account(address) is not None:
                continue  # a copy in the account of the same name is no loop
            raise AliasLoop(" → ".join(path))
        if current in seen:
            continue
        seen.add(current)
        pending += [(target, (*path, target)) for target in store.alias(current)]


def _without_tag(address: str, delimiter: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{(local.partition(delimiter)[0] if delimiter else local) or local}@{domain}"
