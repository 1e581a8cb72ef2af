"""Which senders a recipient has welcomed or blocked: by a link in a digest, or by the command line.

A sender is an address or, as `@example.net`, a domain with all its addresses. What is said for an address goes before
what is said for its domain, and the newest word counts.
"""

from collections.abc import Mapping
from typing import Protocol

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox, parse_domain, parse_mailbox

MAX_CHOICES = 1000  # of one recipient: the oldest go


class ChoiceStore(Protocol):
    def choices(self, recipient: str) -> Mapping[str, bool]:
        """Welcome (True) or blocked (False), by sender."""

    def choose(self, recipient: str, sender: str, *, is_welcome: bool, limit: int) -> None:
        """limit: of one recipient's choices; the oldest beyond it go."""

    def forget_choice(self, recipient: str, sender: str) -> bool: ...


def parse_sender(text: str) -> str:
    """`local@domain` or `@domain`, as it is kept. Raises ValueError."""
    text = text.strip()
    if text.startswith("@"):
        return f"@{parse_domain(text[1:]).ascii}"
    return str(parse_mailbox(text)).lower()


class Choices:
    def __init__(self, directory: AccountDirectory, store: ChoiceStore) -> None:
        self._directory = directory
        self._store = store

    def of(self, recipient: Mailbox) -> Mapping[str, bool]:
        return self._store.choices(self._directory.chooser(recipient))

    def welcome(self, recipient: Mailbox, sender: str) -> None:
        """sender: as of `parse_sender`. Raises ValueError."""
        self._choose(recipient, sender, is_welcome=True)

    def block(self, recipient: Mailbox, sender: str) -> None:
        """The same."""
        self._choose(recipient, sender, is_welcome=False)

    def forget(self, recipient: Mailbox, sender: str) -> bool:
        """False: there was nothing to forget."""
        return self._store.forget_choice(self._directory.chooser(recipient), parse_sender(sender))

    def _choose(self, recipient: Mailbox, sender: str, *, is_welcome: bool) -> None:
        chooser = self._directory.chooser(recipient)
        self._store.choose(chooser, parse_sender(sender), is_welcome=is_welcome, limit=MAX_CHOICES)
