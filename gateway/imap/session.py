"""One IMAP session (RFC 3501): a command comes in, untagged responses and a tagged one go out. No sockets, no clock.

The driver reads commands and holds connection, TLS and sign-in; here is what they mean once somebody has signed in. A
command that fails says NO or BAD with a reason and leaves the session as it was.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from gateway.core.foldernames import SEPARATOR
from gateway.core.mailflags import MAX_KEYWORDS, SYSTEM
from gateway.imap.command import (
    Append,
    Command,
    Copy,
    Enable,
    ExpungeUids,
    Fetch,
    GetQuota,
    Id,
    Item,
    List,
    OnMailbox,
    Rename,
    Resync,
    Search,
    Select,
    SequenceSet,
    Simple,
    Status,
    Store,
    Tagged,
)
from gateway.imap.fetcher import Fetcher
from gateway.imap.finder import Finder
from gateway.imap.listing import list_responses, status_response
from gateway.imap.names import encode_name
from gateway.imap.ports import Account, Box, Gone, MailboxThere, NoMailbox, NoRoom, NotDone, Out, Unavailable
from gateway.imap.search import asks_modseq
from gateway.imap.storer import Storer
from gateway.imap.view import View, set_of
from gateway.imap.wire import astring, string

# What works, and no more; STARTTLS, LOGINDISABLED and AUTH= are the driver's to say.
CAPABILITIES = (
    "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN UIDPLUS MOVE UNSELECT SPECIAL-USE CREATE-SPECIAL-USE"
    " LIST-EXTENDED LIST-STATUS STATUS=SIZE ESEARCH QUOTA QUOTA=RES-STORAGE WITHIN CONDSTORE QRESYNC UTF8=ACCEPT"
)
ID_RESPONSE = b'* ID ("name" "Smarthost")\r\n'
_USES = frozenset({"\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash"})


class No(Exception):
    """The text of a tagged NO, with its code."""


class Bad(Exception):
    """Of a tagged BAD."""


class ImapSession:
    """append_limit: octets of one message."""

    def __init__(self, account: Account, out: Out, append_limit: int) -> None:
        self._account = account
        self._out = out
        self._append_limit = append_limit
        self._view: View | None = None
        self.is_over = False
        self.is_utf8 = False
        self._with_modseq = False
        self._with_vanished = False
        self._tag = b""  # of the command that runs
        self._ahead = b""  # untagged responses that go out together with the tagged one
        self._is_fresh = False  # the view has just been made or refreshed, at the end of this command

    @property
    def capabilities(self) -> str:
        return f"{CAPABILITIES} APPENDLIMIT={self._append_limit}"

    @property
    def box(self) -> Box | None:
        """The mailbox that is selected."""
        return None if self._view is None else self._view.box

    # --- a command ------------------------------------------------------------------------------------------------

    async def run(self, tagged: Tagged) -> None:
        """Answers it whole. CAPABILITY, LOGOUT, STARTTLS, sign-in and IDLE are the driver's."""
        tag = self._tag = tagged.tag.encode()
        self._ahead, self._is_fresh = b"", False
        command = tagged.command
        try:
            done = await self._done(command)
        except No as error:
            await self._finish(command, tag + b" NO " + str(error).encode())
        except Bad as error:
            await self._finish(command, tag + b" BAD " + str(error).encode())
        except NoMailbox:
            code = "TRYCREATE" if isinstance(command, Append | Copy) else "NONEXISTENT"
            await self._finish(command, tag + f" NO [{code}] There is no such mailbox".encode())
        except MailboxThere:
            await self._finish(command, tag + b" NO [ALREADYEXISTS] There is such a mailbox already")
        except NotDone as error:
            await self._finish(command, tag + f" NO [CANNOT] {error}".encode("ascii", "replace"))
        except NoRoom:
            await self._finish(command, tag + b" NO [OVERQUOTA] The mailbox is full")
        except Gone:
            await self._finish(command, tag + b" NO [EXPUNGEISSUED] Another session has removed it")
        except Unavailable:
            await self._out.send(
                self._ahead + tag + b" NO [UNAVAILABLE] The store cannot do that now; try again later\r\n"
            )
        else:
            await self._finish(command, tag + b" OK " + done.encode())

    async def _done(self, command: Command) -> str:
        """Runs it; the text of the tagged OK."""
        run = _RUN.get(type(command))
        if run is None:
            raise Bad("That command has no place here")
        return await run(self, command)

    async def _finish(self, command: Command, line: bytes) -> None:
        """What others did goes before the tagged response, expunges only where numbers may change (7.4.1)."""
        if not self._is_fresh:
            await self._refresh()
        news = self._news(with_expunges=not _is_by_number(command))
        await self._out.send(self._ahead + b"".join(news) + line + b"\r\n")

    def _news(self, *, with_expunges: bool) -> list[bytes]:
        view = self._view
        if view is None:
            return []
        return view.tell(with_expunges=with_expunges, with_modseq=self._with_modseq, as_vanished=self._with_vanished)

    async def _refresh(self) -> None:
        """Takes in what has happened. Where the mailbox is gone the session ends (RFC 2180 3.3): a client that believes
        it selected comes back and looks.
        """
        view = self._view
        if view is None:
            return
        try:
            changes, first = await self._account.changes(view.box, view.modseq, takes_recent=not view.is_read_only)
            view.keywords = await self._account.keywords(view.box) if changes.rows else view.keywords
        except Gone:
            self._view = None
            self.is_over = True
            await self._out.send(b"* BYE The mailbox is gone\r\n")
            return
        except Unavailable:  # what the client knows stays true; it is told the rest later
            return
        view.take(changes, first)
        if view.keywords != view.told_keywords:
            await self._out.send(_flags_line(view))

    async def idle_news(self) -> None:
        """During IDLE, and for NOOP of a client that waits."""
        await self._refresh()
        news = self._news(with_expunges=True)
        if news:
            await self._out.send(b"".join(news))
        if self._view is not None:
            self._view.join(self._account.together, (self._account.name, self._view.box.id))

    def _selected(self) -> View:
        if self._view is None:
            raise Bad("No mailbox is selected")
        return self._view

    def _writable(self) -> View:
        view = self._selected()
        if view.is_read_only:
            raise No("[READ-ONLY] The mailbox was opened for reading")
        return view

    # --- any state ------------------------------------------------------------------------------------------------

    async def _simple(self, command: Simple) -> str:
        match command.verb:
            case "NOOP" | "CHECK":
                return "Done"
            case "NAMESPACE":
                await self._out.send(b'* NAMESPACE (("" "%b")) NIL NIL\r\n' % SEPARATOR.encode())
                return "Done"
            case "UNSELECT":
                self._selected()
                self._view = None
                return "Closed"
            case "CLOSE":
                view = self._selected()
                self._view = None
                if not view.is_read_only:
                    await self._account.expunge(view.box, None)
                return "Closed"
            case "EXPUNGE":
                await self._account.expunge(self._writable().box, None)
                return await self._expunged()
        raise Bad("That command has no place here")

    async def _id(self, command: Id) -> str:
        await self._out.send(ID_RESPONSE)
        return "Nice to meet you"

    async def _enable(self, command: Enable) -> str:
        on = []
        for name in command.names:
            match name:
                case "CONDSTORE":
                    self._with_modseq = True
                case "QRESYNC":
                    self._with_modseq = self._with_vanished = True
                case "UTF8=ACCEPT":
                    self.is_utf8 = True
                case _:
                    continue
            on.append(name)
        await self._out.send(b"* ENABLED" + b"".join(b" " + name.encode() for name in on) + b"\r\n")
        return "Enabled"

    # --- mailboxes ------------------------------------------------------------------------------------------------

    async def _on_mailbox(self, command: OnMailbox) -> str:
        name = command.name
        match command.verb:
            case "CREATE":
                if command.uses and (len(command.uses) > 1 or command.uses[0] not in _USES):
                    raise No("[USEATTR] No mailbox is for that here")
                await self._account.create(name, command.uses[0] if command.uses else "")
            case "DELETE":
                await self._account.delete(name)
                if self._view is not None and self._view.box.name == name:
                    self._view = None
            case "SUBSCRIBE" | "UNSUBSCRIBE":
                await self._account.subscribe(name, is_on=command.verb == "SUBSCRIBE")
            case "GETQUOTAROOT":
                if not await self._account.status([name]):
                    raise NoMailbox
                limit = (await self._account.usage())[2]
                await self._out.send(b"* QUOTAROOT %b%b\r\n" % (self._wire(name), b' ""' if limit else b""))
                await self._quota()
        return "Done"

    async def _rename(self, command: Rename) -> str:
        await self._account.rename(command.name, command.other)
        return "Renamed"

    async def _get_quota(self, command: GetQuota) -> str:
        if command.root or not await self._quota():
            raise No("[NONEXISTENT] There is no such quota root")
        return "Done"

    async def _quota(self) -> bool:
        """False: there is no limit, so no quota root (RFC 9208 3.1; Thunderbird gives up at an empty list)."""
        octets, _, limit = await self._account.usage()
        if limit:
            await self._out.send(b'* QUOTA "" (STORAGE %d %d)\r\n' % (-(-octets // 1024), limit // 1024))
        return bool(limit)

    async def _list(self, command: List) -> str:
        boxes, subscribed = await self._account.boxes()
        found = list_responses(command, boxes, subscribed, is_utf8=self.is_utf8)
        lines = [line for _, line in found]
        if command.status:
            told = await self._account.status([name for name, _ in found])
            lines += [status_response(one, command.status, is_utf8=self.is_utf8) for one in told]
        await self._out.send(b"".join(lines))
        return "Listed"

    async def _status(self, command: Status) -> str:
        found = await self._account.status([command.name])
        if not found:
            raise NoMailbox
        self._with_modseq |= "HIGHESTMODSEQ" in command.items
        await self._out.send(status_response(found[0], command.items, is_utf8=self.is_utf8))
        return "Done"

    def _wire(self, name: str) -> bytes:
        octets = encode_name(name, is_utf8=self.is_utf8)
        return astring(octets) if octets.isascii() else string(octets)

    async def _append(self, command: Append) -> str:
        at = command.date or datetime.now(UTC)
        validity, uid = await self._account.append(command.name, command.message, command.flags, at)
        return f"[APPENDUID {validity} {uid}] Appended"

    # --- SELECT ---------------------------------------------------------------------------------------------------

    async def _select(self, command: Select) -> str:
        if self._view is not None:
            self._view = None
            self._ahead = b"* OK [CLOSED] The mailbox before it is closed\r\n"
        self._with_modseq |= command.with_modseq
        if command.resync is not None and not self._with_vanished:
            raise Bad("QRESYNC is not enabled")
        opened = await self._account.open(command.name, takes_recent=not command.is_read_only)
        view = self._view = View(opened, is_read_only=command.is_read_only)
        box = view.box
        lines = [
            _flags_line(view),
            b"* %d EXISTS\r\n* %d RECENT\r\n" % (len(view), view.recent_count),
            b"* OK [UIDVALIDITY %d] UIDs are valid\r\n" % box.uidvalidity,
            b"* OK [UIDNEXT %d] The next UID\r\n" % view.uidnext,
            b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % view.modseq,
        ]
        unseen = view.first_unseen
        if unseen is not None:
            lines.insert(2, b"* OK [UNSEEN %d] First unseen\r\n" % unseen)
        if command.resync is not None and command.resync.validity == box.uidvalidity:
            lines += await self._resync(view, command.resync)
        self._ahead += b"".join(lines)
        self._is_fresh = True
        return f"[READ-{'ONLY' if view.is_read_only else 'WRITE'}] Opened"

    async def _resync(self, view: View, known: Resync) -> list[bytes]:
        """RFC 7162 3.2.5: what has gone and what has changed since the client was last here."""
        gone = await self._vanished_since(view, known.modseq, known.uids)
        lines = [b"* VANISHED (EARLIER) %b\r\n" % set_of(gone)] if gone else []
        wanted = None if known.uids is None else set(view.chosen(known.uids, is_uid=True) or ())
        changed = [
            at for at in range(len(view)) if view.modseqs[at] > known.modseq and (wanted is None or at in wanted)
        ]
        return lines + view.flags_responses(changed, with_uid=True, with_modseq=True)

    async def _vanished_since(self, view: View, modseq: int, among: SequenceSet | None) -> list[int]:
        """UIDs, of those that the client asks about (all of them, if it does not say)."""
        changes, _ = await self._account.changes(view.box, modseq, takes_recent=False)
        found = list(changes.vanished)
        if changes.is_whole:  # too long ago: all that are not there
            there = {uid for uid, _, _ in changes.rows}
            found = [uid for uid in range(1, view.uidnext) if uid not in there]
        if among is None:
            return found
        largest = view.uidnext - 1
        ranges = [tuple(sorted(largest if end == 0 else end for end in each)) for each in among.ranges]
        return [uid for uid in found if any(low <= uid <= high for low, high in ranges)]

    # --- messages -------------------------------------------------------------------------------------------------

    def _places(self, view: View, numbers: SequenceSet, *, is_uid: bool) -> list[int]:
        found = view.chosen(numbers, is_uid=is_uid)
        if found is None:
            raise Bad("There is no message of that number")
        return found

    async def _fetch(self, command: Fetch) -> str:
        view = self._selected()
        self._with_modseq |= command.changed_since is not None or Item.MODSEQ in command.items
        if command.with_vanished:
            if not self._with_vanished:
                raise Bad("QRESYNC is not enabled")
            gone = await self._vanished_since(view, command.changed_since or 0, command.numbers)
            if gone:
                await self._out.send(b"* VANISHED (EARLIER) %b\r\n" % set_of(gone))
        places = self._places(view, command.numbers, is_uid=command.is_uid)
        if command.changed_since is not None:
            places = [at for at in places if view.modseqs[at] > command.changed_since]
        fetcher = Fetcher(self._account, self._out, view, command, self._refresh, with_modseq=self._with_modseq)
        await fetcher.run(places)
        if fetcher.has_missing:
            raise No("[EXPUNGEISSUED] Some messages are gone")
        return "Fetched"

    async def _search(self, command: Search) -> str:
        finder = Finder(self._account, self._selected())
        self._with_modseq |= asks_modseq(command.key)
        found = await finder.found(command)
        self._ahead = finder.response(command, found, self._tag)
        return "Found"

    async def _store(self, command: Store) -> str:
        view = self._writable()
        places = self._places(view, command.numbers, is_uid=command.is_uid)
        self._with_modseq |= command.unchanged_since is not None
        await self._refresh()  # what others did until now is told, however silent this is
        storer = Storer(self._out, view, command, places)
        uids, conflicts = storer.changing(), set[int]()
        if uids:
            how, flags, since = command.how, command.flags, command.unchanged_since
            conflicts |= {*await self._account.set_flags(view.box, uids, how, flags, since)}
            await self._refresh()
        self._is_fresh = True
        await storer.tell(conflicts, with_modseq=self._with_modseq, with_uid=command.is_uid or self._with_vanished)
        if conflicts:
            numbers = [uid if command.is_uid else view.number(uid) for uid in conflicts]
            told = set_of(sorted(number for number in numbers if number is not None)).decode()
            return f"[MODIFIED {told}] Some were changed by others"
        return "Stored"

    async def _copy(self, command: Copy) -> str:
        view = self._writable() if command.moves else self._selected()
        places = self._places(view, command.numbers, is_uid=command.is_uid)
        if not places:
            return "No messages"
        uids = [view.uids[at] for at in places]
        validity, pairs = await self._account.copy(view.box, uids, command.name, moves=command.moves)
        if not pairs:
            return "No messages"
        source, target = (set_of(sorted(each[side] for each in pairs)).decode() for side in (0, 1))
        code = f"[COPYUID {validity} {source} {target}]"
        if not command.moves:
            return f"{code} Copied"
        await self._out.send(f"* OK {code} Moved\r\n".encode())
        return "Moved"

    async def _expunge_uids(self, command: ExpungeUids) -> str:
        view = self._writable()
        places = self._places(view, command.numbers, is_uid=True)
        await self._account.expunge(view.box, [view.uids[at] for at in places])
        return await self._expunged()

    async def _expunged(self) -> str:
        """RFC 7162 3.2.7: who knows of QRESYNC is told how far that was."""
        await self._refresh()
        self._is_fresh = True
        view = self._view
        return f"[HIGHESTMODSEQ {view.modseq}] Expunged" if view is not None and self._with_vanished else "Expunged"


def _flags_line(view: View) -> bytes:
    """What flags there are; \\* says that there may be more keywords."""
    view.told_keywords = view.keywords
    names = " ".join([*SYSTEM, *view.keywords.values()]).encode()
    permanent = b"" if view.is_read_only else names + (b" \\*" if len(view.keywords) < MAX_KEYWORDS else b"")
    return b"* FLAGS (%b)\r\n* OK [PERMANENTFLAGS (%b)] Kept\r\n" % (names, permanent)


def _is_by_number(command: Command) -> bool:
    """RFC 3501 7.4.1: during these nothing may be expunged from under the client."""
    return isinstance(command, Fetch | Store | Search) and not command.is_uid


_RUN: dict[type, Callable[..., Awaitable[str]]] = {
    Simple: ImapSession._simple,
    Id: ImapSession._id,
    Enable: ImapSession._enable,
    OnMailbox: ImapSession._on_mailbox,
    Rename: ImapSession._rename,
    GetQuota: ImapSession._get_quota,
    List: ImapSession._list,
    Status: ImapSession._status,
    Append: ImapSession._append,
    Select: ImapSession._select,
    Fetch: ImapSession._fetch,
    Search: ImapSession._search,
    Store: ImapSession._store,
    Copy: ImapSession._copy,
    ExpungeUids: ImapSession._expunge_uids,
}
