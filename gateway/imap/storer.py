"""STORE, as it is answered: what the client has to hear of the flags it has set, and no more."""

from collections.abc import Iterable, Sequence

from gateway.core.mailflags import bits_of
from gateway.imap.command import Store
from gateway.imap.ports import Out
from gateway.imap.view import View

BATCH = 500  # responses that are sent at once
_RECENT = frozenset({"\\recent"})


class Storer:
    """Made before the flags are set, of a view that knows all that others did until then."""

    def __init__(self, out: Out, view: View, command: Store, places: Sequence[int]) -> None:
        self._out = out
        self._view = view
        self._command = command
        self._places = places
        self._expected = self._expectations() if command.is_silent else {}

    def changing(self) -> Sequence[int]:
        """UIDs of messages that may have other flags afterwards. Of the others nothing has to be asked, unless the
        client wants to know who changed them.
        """
        view, command = self._view, self._command
        uids, flags, places = view.uids, view.flags, self._places
        known = {word.lower(): 1 << bit for bit, word in view.keywords.items()}
        bits, keywords = bits_of(command.flags)
        for word in keywords:
            bits |= known.get(word.lower(), 0)
        is_new = command.how >= 0 and any(word.lower() not in known for word in keywords)
        if is_new or command.unchanged_since is not None:
            return [uids[at] for at in places]
        if command.how == 0:
            return [uids[at] for at in places if flags[at] != bits]
        after = bits if command.how > 0 else 0
        return [uids[at] for at in places if flags[at] & bits != after]

    def _expectations(self) -> dict[int, frozenset[str] | None]:
        """By place, the flags that the client will think each message has; None where it has not heard of the last
        change.
        """
        view, how = self._view, self._command.how
        wanted = _lower(self._command.flags)
        found: dict[int, frozenset[str] | None] = {}
        for at in self._places:
            has = _lower(view.flag_names(at))
            after = wanted if how == 0 else has | wanted if how > 0 else has - wanted
            found[at] = None if view.is_untold(view.uids[at]) else after - _RECENT
        return found

    async def tell(self, conflicts: set[int], *, with_modseq: bool, with_uid: bool) -> None:
        """RFC 3501 6.4.6: the new flags, unless the client wants none; with CONDSTORE it hears the modseq anyway."""
        view = self._view
        places = [at for at in self._places if view.uids[at] not in conflicts]
        for start in range(0, len(places), BATCH):
            some = places[start : start + BATCH]
            if not self._command.is_silent:
                view.heard(view.uids[at] for at in some)
                lines = view.flags_responses(some, with_uid=with_uid, with_modseq=with_modseq)
            else:
                view.heard(view.uids[at] for at in some if self._expected[at] == _lower(view.flag_names(at)) - _RECENT)
                form = b"* %d FETCH (UID %d MODSEQ (%d))\r\n"
                lines = [form % (at + 1, view.uids[at], view.modseqs[at]) for at in some] if with_modseq else []
            await self._out.send(b"".join(lines))


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
