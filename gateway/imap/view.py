"""What one session sees of its mailbox: which message has which number, and what it was told (RFC 3501 5.2, 7.4.1).

Numbers change only when the session is told so. What others do is gathered, and told where the standard allows it: an
expunge never while a command by message numbers runs. In order, one told list of changes makes one view of the next.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence

from gateway.core.mailflags import names_of
from gateway.imap.command import STAR, SequenceSet
from gateway.imap.numbers import Numbers, Together
from gateway.imap.ports import Box, Changes, OpenedBox

MAX_NAMES = 1000  # of kinds of flags that a view remembers


class _Names(dict[int, bytes]):
    """Names of flags, by their number, as they are told."""

    def __init__(self, keywords: Mapping[int, str]) -> None:
        super().__init__()
        self.keywords = keywords

    def __missing__(self, flags: int) -> bytes:
        if len(self) >= MAX_NAMES:
            self.clear()
        found = self[flags] = " ".join(names_of(flags, self.keywords)).encode()
        return found


class View:
    """The mailbox as it was when it was opened, and as it was told since."""

    def __init__(self, opened: OpenedBox, *, is_read_only: bool) -> None:
        rows = opened.rows
        self.box: Box = opened.box
        self.is_read_only = is_read_only
        self._hold(Numbers(rows.uids, rows.flags, rows.modseqs, is_shared=True))
        self.modseq, self.uidnext = rows.modseq, rows.uidnext
        self.keywords: Mapping[int, str] = opened.keywords
        self.told_keywords: Mapping[int, str] = {}  # those that the client was told of
        self._recent = set(rows.uids[bisect_left(rows.uids, opened.first_recent) :])
        self._names = _Names(self.keywords)
        self._vanished: list[int] = []  # not told yet
        self._changed: set[int] = set()  # the same, of flags
        self._told_count = len(rows.uids)

    def __len__(self) -> int:
        return len(self.uids)

    def _hold(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self.uids, self.flags, self.modseqs = numbers.uids, numbers.flags, numbers.modseqs

    def join(self, together: Together, key: Hashable) -> None:
        """Has its numbers together with those who see the same, until there is a change."""
        self._hold(together.join(key, self._numbers, self.modseq))

    # --- numbers --------------------------------------------------------------------------------------------------

    def number(self, uid: int) -> int | None:
        """From 1."""
        at = bisect_left(self.uids, uid)
        return at + 1 if at < len(self.uids) and self.uids[at] == uid else None

    def spans(self, numbers: SequenceSet, *, is_uid: bool) -> list[tuple[int, int]] | None:
        """Places, from 0, as first and one behind the last, in order and apart. None: a number that there is not, which
        only UIDs may have.
        """
        found: list[tuple[int, int]] = []
        uids = self.uids
        largest = (uids[-1] if uids else 0) if is_uid else len(uids)
        for first, last in numbers.ranges:
            low, high = sorted(largest if end == STAR else end for end in (first, last))
            if is_uid:
                if STAR in (first, last) and uids:
                    low = min(low, largest)  # n:* names the last one, however large n is
                found.append((bisect_left(uids, low), bisect_left(uids, high + 1)))
            elif uids or STAR not in (first, last):  # in an empty mailbox * is nothing, and no error
                if not 1 <= low <= high <= len(uids):
                    return None
                found.append((low - 1, high))
        return _merged(found)

    def chosen(self, numbers: SequenceSet, *, is_uid: bool) -> list[int] | None:
        """The same, each place by itself."""
        spans = self.spans(numbers, is_uid=is_uid)
        return None if spans is None else [at for first, end in spans for at in range(first, end)]

    def flag_names(self, at: int) -> list[str]:
        names = names_of(self.flags[at], self.keywords)
        return [*names, "\\Recent"] if self.uids[at] in self._recent else names

    def flags_of(self, places: Iterable[int]) -> list[bytes]:
        """The names of each one's flags, in wire form."""
        if self._names.keywords is not self.keywords:
            self._names = _Names(self.keywords)
        names, flags, recent = self._names, self.flags, self._recent
        if not recent:
            return [names[flags[at]] for at in places]
        uids = self.uids
        return [(names[flags[at]] + b" \\Recent").lstrip() if uids[at] in recent else names[flags[at]] for at in places]

    def is_recent(self, at: int) -> bool:
        return self.uids[at] in self._recent

    @property
    def recent_count(self) -> int:
        return len(self._recent)

    @property
    def first_unseen(self) -> int | None:
        return next((at + 1 for at, flags in enumerate(self.flags) if not flags & 8), None)

    # --- changes --------------------------------------------------------------------------------------------------

    def take(self, changes: Changes, first_recent: int) -> None:
        """What has happened since; it is told later."""
        if changes.rows:
            self._hold(self._numbers.own())
        for uid, flags, modseq in changes.rows:
            at = bisect_left(self.uids, uid)
            if at < len(self.uids) and self.uids[at] == uid:
                if self.modseqs[at] >= modseq:
                    continue
                self.modseqs[at] = modseq
                if self.flags[at] != flags:
                    self.flags[at] = flags
                    self._changed.add(uid)
            elif not self.uids or uid > self.uids[-1]:
                self.uids.append(uid)
                self.flags.append(flags)
                self.modseqs.append(modseq)
                if uid >= first_recent:
                    self._recent.add(uid)
        if changes.is_whole:
            there = {uid for uid, _, _ in changes.rows}
            self._vanished += [uid for uid in self.uids if uid not in there]
        self._vanished += [uid for uid in changes.vanished if self.number(uid) is not None]
        self.modseq, self.uidnext = max(self.modseq, changes.modseq), changes.uidnext

    def heard(self, uids: Iterable[int]) -> None:
        """The client knows the flags of these messages as they are."""
        self._changed.difference_update(uids)

    def is_untold(self, uid: int) -> bool:
        """Have its flags changed since they were told?"""
        return uid in self._changed

    def tell(self, *, with_expunges: bool, with_modseq: bool, as_vanished: bool) -> list[bytes]:
        """Untagged responses, and from now on the numbers are those that they make. as_vanished: QRESYNC is on."""
        out: list[bytes] = []
        if with_expunges and self._vanished:
            out += self._tell_vanished(as_vanished=as_vanished)
        if len(self.uids) != self._told_count:
            self._told_count = len(self.uids)
            out.append(b"* %d EXISTS\r\n* %d RECENT\r\n" % (len(self.uids), len(self._recent)))
        untold = sorted(self._changed.difference(self._vanished))
        places = [number - 1 for uid in untold if (number := self.number(uid)) is not None]
        out += self.flags_responses(places, with_uid=with_modseq, with_modseq=with_modseq)
        self._changed.clear()
        return out

    def _tell_vanished(self, *, as_vanished: bool) -> list[bytes]:
        gone = sorted({uid for uid in self._vanished if self.number(uid) is not None})
        self._vanished.clear()
        self._hold(self._numbers.own())
        out: list[bytes] = []
        told: list[int] = []
        # From the end, so that no number that is told has moved.
        for uid in reversed(gone):
            at = bisect_left(self.uids, uid)
            del self.uids[at], self.flags[at], self.modseqs[at]
            self._recent.discard(uid)
            self._changed.discard(uid)
            if at < self._told_count:  # else the client has never heard of it
                out.append(b"* %d EXPUNGE\r\n" % (at + 1))
                told.append(uid)
        self._told_count -= len(told)
        return [b"* VANISHED %b\r\n" % set_of(reversed(told))] if as_vanished and told else out

    def flags_responses(self, places: Sequence[int], *, with_uid: bool, with_modseq: bool) -> list[bytes]:
        form = b"* %d FETCH (" + with_uid * b"UID %d " + b"FLAGS (%b)" + with_modseq * b" MODSEQ (%d)" + b")\r\n"
        columns: list[Sequence[int] | Sequence[bytes]] = [[at + 1 for at in places], self.flags_of(places)]
        if with_uid:
            columns.insert(1, [self.uids[at] for at in places])
        if with_modseq:
            columns.append([self.modseqs[at] for at in places])
        return [form % row for row in zip(*columns, strict=True)]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if out and first <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        elif first < end:
            out.append((first, end))
    return out


def set_of(numbers: Iterable[int]) -> bytes:
    """The shortest set of them. numbers: in order, once each."""
    out: list[bytes] = []
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            out.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
        first = last = number
    if first:
        out.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
    return b",".join(out)
