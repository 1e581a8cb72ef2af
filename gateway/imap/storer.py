"""STORE, as it is answered: what the client has to hear of the flags it has set, and no more."""

from collections.abc import Iterable, Sequence

from gateway.imap.command import Store
from gateway.imap.ports import Out
from gateway.imap.view import View

BATCH = 500  # responses that are sent at once
_RECENT = frozenset({"\\recent"})


class Storer:
    """Made before the flags are set, of a view that knows all that others did until then."""

    def __init__(self, out: Out, view: View, command: Store, uids: Sequence[int]) -> None:
        self._out = out
        self._view = view
        self._is_silent = command.is_silent
        self._expected = self._expectations(command, uids)

    def _expectations(self, command: Store, uids: Sequence[int]) -> dict[int, frozenset[str] | None]:
        """The flags that the client will think each message has; None where it has not heard of the last change."""
        view = self._view
        wanted = _lower(command.flags)
        found: dict[int, frozenset[str] | None] = {}
        for uid in uids:
            number = view.number(uid)
            if number is None:
                continue
            has = _lower(view.flag_names(number - 1))
            after = wanted if command.how == 0 else has | wanted if command.how > 0 else has - wanted
            found[uid] = None if view.is_untold(uid) else after - _RECENT
        return found

    async def tell(self, conflicts: set[int], *, with_modseq: bool, with_uid: bool) -> None:
        """RFC 3501 6.4.6: the new flags, unless the client wants none; with CONDSTORE it hears the modseq anyway."""
        view = self._view
        lines = []
        for uid, flags in self._expected.items():
            number = view.number(uid)
            if number is None or uid in conflicts:
                continue
            at = number - 1
            if not self._is_silent:
                view.heard(uid)
                lines.append(view.flags_response(at, with_uid=with_uid, with_modseq=with_modseq))
            else:
                if flags == _lower(view.flag_names(at)) - _RECENT:
                    view.heard(uid)
                if with_modseq:
                    lines.append(b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (number, uid, view.modseqs[at]))
            if len(lines) >= BATCH:
                await self._out.send(b"".join(lines))
                lines.clear()
        await self._out.send(b"".join(lines))


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
