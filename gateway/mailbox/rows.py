"""The messages of a mailbox as numbers: UIDs in order, with the flags and the modseq of each."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from gateway.mailbox.values import Changes


class Rows:
    """What the index said up to `modseq`: 20 octets a message. Who was given them as they are now (`shared`) keeps them
    so, since what changes is a copy.
    """

    __slots__ = ("_is_shared", "flags", "modseq", "modseqs", "uidnext", "uids")

    def __init__(self) -> None:
        self._is_shared = False
        self.uids = array("I")
        self.flags = array("q")
        self.modseqs = array("q")
        self.modseq = 0
        self.uidnext = 1

    def __len__(self) -> int:
        return len(self.uids)

    def shared(self) -> "Rows":
        """As they are now; not to be changed."""
        found = Rows()
        found.uids, found.flags, found.modseqs = self.uids, self.flags, self.modseqs
        found.modseq, found.uidnext = self.modseq, self.uidnext
        self._is_shared = found._is_shared = True
        return found

    def place(self, uid: int) -> int | None:
        """Where it is, from 0."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else None

    def apply(self, changes: Changes) -> None:
        if self._is_shared and (changes.is_whole or changes.vanished or changes.rows):
            self.uids, self.flags, self.modseqs = self.uids[:], self.flags[:], self.modseqs[:]
            self._is_shared = False
        if changes.is_whole:
            there = {uid for uid, _, _ in changes.rows}
            self._remove([uid for uid in self.uids if uid not in there])
        self._remove(changes.vanished)
        if changes.rows and (not self.uids or changes.rows[0][0] > self.uids[-1]):
            for told, column in zip(
                (self.uids, self.flags, self.modseqs), zip(*changes.rows, strict=True), strict=True
            ):
                told.extend(column)
        else:
            for uid, flags, modseq in changes.rows:
                self._put(uid, flags, modseq)
        self.modseq, self.uidnext = changes.modseq, changes.uidnext

    def _put(self, uid: int, flags: int, modseq: int) -> None:
        at = bisect_left(self.uids, uid)
        if at < len(self.uids) and self.uids[at] == uid:
            self.flags[at], self.modseqs[at] = flags, modseq
            return
        self.uids.insert(at, uid)
        self.flags.insert(at, flags)
        self.modseqs.insert(at, modseq)

    def _remove(self, uids: Iterable[int]) -> None:
        places = sorted((at for uid in uids if (at := self.place(uid)) is not None), reverse=True)
        if len(places) > 1000:
            gone = set(places)
            kept = [at for at in range(len(self.uids)) if at not in gone]
            self.uids = array("I", (self.uids[at] for at in kept))
            self.flags = array("q", (self.flags[at] for at in kept))
            self.modseqs = array("q", (self.modseqs[at] for at in kept))
        else:
            for at in places:
                del self.uids[at], self.flags[at], self.modseqs[at]
