"""Who gets a message in the end: aliases expanded, redirections followed, blind copies; and from whom it then comes.

What an address of ours hands on elsewhere gets a reverse-path of ours that holds the sender's (`accounts.srs`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox, ReversePath, parse_mailbox
from gateway.core.transaction import Recipient
from gateway.core.verdict import AddHeader, Bcc, Redirect, RequireTls, TagSubject
from gateway.queue.handling import Handling, Part, effects_of
from gateway.queue.store import NewRecipient

_NEVER = frozenset({"NEVER"})


@dataclass(frozen=True, slots=True)
class Way:
    """Who gets a message from one and the same reverse-path. part: of those that it was addressed to."""

    part: Part
    reverse_path: ReversePath
    recipients: tuple[NewRecipient, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    """origin: the recipient that leads there; via: the address of ours that hands the message on elsewhere."""

    to: NewRecipient
    origin: Recipient
    via: Mailbox | None


class Expansion:
    def __init__(self, directory: AccountDirectory, *, rewrites: bool) -> None:
        """rewrites: the reverse-path of what is handed on."""
        self._directory = directory
        self._rewrites = rewrites

    def ways(self, part: Part, reverse_path: ReversePath, via: Mailbox | None = None) -> list[Way]:
        """At least one; those that nothing is rewritten for come first. via: who hands on what nobody else does."""
        targets = self._targets(part, via)
        found: dict[ReversePath, list[_Target]] = {}
        for target in sorted(targets, key=lambda each: each.via is not None):
            found.setdefault(self._reverse_path(reverse_path, target.via), []).append(target)
        if len(found) == 1:
            ((path, _),) = found.items()
            return [Way(part, path, tuple(each.to for each in targets))]
        return [
            Way(
                Part(tuple(dict.fromkeys(each.origin for each in group)), part.handling),
                path,
                tuple(each.to for each in group),
            )
            for path, group in found.items()
        ]

    def copies(self, parts: tuple[Part, ...]) -> Part | None:
        """Who gets a blind copy, but for those who get the message anyway; a copy's failure bothers nobody."""
        effects = effects_of(parts)
        wanted = dict.fromkeys(effect.address for effect in effects if isinstance(effect, Bcc))
        if not wanted:
            return None
        delivered = (part for part in parts if part.handling.disposition is None)
        reached = {str(each.to.forward_path).lower() for part in delivered for each in self._targets(part)}
        found: dict[str, _Target] = {}
        self._expand(tuple(Recipient(parse_mailbox(address), "", _NEVER) for address in wanted), found)
        copies = [each.to for each in found.values() if str(each.to.forward_path).lower() not in reached]
        if not copies:
            return None
        kept = tuple(e for e in dict.fromkeys(effects) if isinstance(e, AddHeader | TagSubject | RequireTls))
        return Part(tuple(Recipient(to.forward_path, to.orcpt, to.notify) for to in copies), Handling(kept))

    def first_of_ours(self, parts: Iterable[Part]) -> Mailbox | None:
        """Whom a message reached that is handed on by no alias."""
        paths = (recipient.forward_path for part in parts for recipient in part.recipients)
        return next((path for path in paths if self._directory.is_local(path.domain)), None)

    def leaves(self, way: Way) -> bool:
        """Does any of it go to another host?"""
        if way.part.handling.route:
            return True
        return any(not self._directory.is_local(to.forward_path.domain) for to in way.recipients)

    def _reverse_path(self, path: ReversePath, via: Mailbox | None) -> ReversePath:
        if via is None or path.mailbox is None or not self._rewrites or self._directory.is_local(path.mailbox.domain):
            return path
        return ReversePath(self._directory.rewritten(path.mailbox, via.domain))

    def _targets(self, part: Part, via: Mailbox | None = None) -> list[_Target]:
        """The last redirect takes the place of all of the part's recipients."""
        found: dict[str, _Target] = {}
        redirects = [effect.address for effect in part.handling.effects if isinstance(effect, Redirect)]
        if not redirects:
            self._expand(part.recipients, found, is_routed=bool(part.handling.route), via=via)
            return list(found.values())
        first = part.recipients[0]
        orcpt = first.orcpt or f"rfc822;{first.forward_path}"
        wanted = Recipient(parse_mailbox(redirects[-1]), orcpt, first.notify)
        via = self.first_of_ours([part])
        self._expand((wanted,), found, is_routed=bool(part.handling.route), via=via)
        return [_Target(each.to, first, each.via) for each in found.values()]

    def _expand(
        self,
        recipients: tuple[Recipient, ...],
        found: dict[str, _Target],
        *,
        is_routed: bool = False,
        via: Mailbox | None = None,
    ) -> None:
        """is_routed: the host at the route's end knows what the addresses mean. via: who hands on what all of them
        get.
        """
        for recipient in recipients:
            path = recipient.forward_path
            is_ours = self._directory.is_local(path.domain)
            targets = self._directory.expand(path) if is_ours and not is_routed else ()
            for target in targets or (str(path),):
                # RFC 3461 5.2.7.1: an alias keeps the original recipient and what the sender wants to hear.
                orcpt = recipient.orcpt or ("" if target == str(path) else f"rfc822;{path}")
                mailbox = parse_mailbox(target)
                is_here = self._directory.is_local(mailbox.domain)
                to = NewRecipient(mailbox, orcpt, recipient.notify)
                key = target.lower() if is_ours else target
                found.setdefault(key, _Target(to, recipient, None if is_here else (path if is_ours else via)))
