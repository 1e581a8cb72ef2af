"""UIDs, flags and modseqs of a mailbox's messages, 20 octets a message, which sessions that see the same have together.

A session changes only what it has to itself (`own`). When it waits it lets go of that for what another session has, if
both are the same to the last number (`Together`): nobody ever sees more than what it worked out for itself.
"""

from array import array
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Numbers:
    """In the order of UIDs. modseq: of the mailbox when they were given to others."""

    __slots__ = ("__weakref__", "flags", "is_shared", "modseq", "modseqs", "uids")

    def __init__(self, uids: "array[int]", flags: "array[int]", modseqs: "array[int]", *, is_shared: bool) -> None:
        self.uids, self.flags, self.modseqs = uids, flags, modseqs
        self.is_shared = is_shared
        self.modseq = 0

    def own(self) -> "Numbers":
        """The same, for one session to change."""
        if not self.is_shared:
            return self
        return Numbers(self.uids[:], self.flags[:], self.modseqs[:], is_shared=False)

    def are(self, other: "Numbers") -> bool:
        return self.uids == other.uids and self.modseqs == other.modseqs and self.flags == other.flags


class Together:
    """The newest numbers of each mailbox that anybody has who waits, kept no longer than that."""

    def __init__(self) -> None:
        self._newest: WeakValueDictionary[Hashable, Numbers] = WeakValueDictionary()

    def join(self, key: Hashable, numbers: Numbers, modseq: int) -> Numbers:
        """key: of the mailbox. What others have, where that is the same; else these, which others may have now."""
        newest = self._newest.get(key)
        if newest is not None and (newest is numbers or newest.are(numbers)):
            return newest
        numbers.is_shared, numbers.modseq = True, modseq
        if newest is None or newest.modseq <= modseq:
            self._newest[key] = numbers
        return numbers
