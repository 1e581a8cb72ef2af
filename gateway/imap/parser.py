"""Commands from their octets (RFC 3501 9 and the documents that `command` names)."""

import re
from collections.abc import Callable

from gateway.imap.command import (
    Append,
    Authenticate,
    Command,
    Copy,
    Enable,
    ExpungeUids,
    GetQuota,
    Id,
    List,
    Login,
    OnMailbox,
    Rename,
    Resync,
    Select,
    Simple,
    Status,
    Tagged,
)
from gateway.imap.fetching import read_fetch, read_store
from gateway.imap.searching import read_search
from gateway.imap.syntax import FLAG, MAX_MODSEQ, TAG, BadCommand, Reader
from gateway.imap.wire import RawCommand


def parse_command(raw: RawCommand, *, is_utf8: bool = False) -> Tagged:
    """is_utf8: names of mailboxes are in UTF-8. Raises BadCommand."""
    reader = Reader(raw, is_utf8=is_utf8)
    tag = reader.match(TAG, "a tag").decode("ascii")
    try:
        reader.space()
        verb = reader.word()
        is_uid = verb == "UID"
        if is_uid:
            reader.space()
            verb = reader.word()
            read = _UID_READERS.get(verb)
        else:
            read = _READERS.get(verb)
        if read is None:
            raise BadCommand(f"unknown command {verb[:40]}")
        command = read(reader, verb, is_uid)
        reader.end()
    except BadCommand as error:
        raise type(error)(str(error), tag) from None
    return Tagged(tag, command)


Read = Callable[[Reader, str, bool], Command]


def _simple(reader: Reader, verb: str, is_uid: bool) -> Command:
    return Simple(verb)


def _id(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    if reader.peek() != b"(":
        if reader.nstring() is not None:
            raise BadCommand("NIL or a list is wanted")
        return Id(())
    found = reader.list_of(reader.nstring, may_be_empty=True, limit=60)
    texts = [(each or b"")[:1024].decode("utf-8", "replace") for each in found]
    return Id(tuple(zip(texts[::2], texts[1::2], strict=False)))


def _authenticate(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    mechanism = reader.word()
    initial = reader.match(_LIST_OR_EQUALS, "an initial response") if reader.take(b" ") else None
    return Authenticate(mechanism, initial)


_LIST_OR_EQUALS = re.compile(rb"[A-Za-z0-9+/=]+")


def _login(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    user = reader.text()
    reader.space()
    return Login(user, reader.text())


def _enable(reader: Reader, verb: str, is_uid: bool) -> Command:
    names = []
    while reader.take(b" "):
        names.append(reader.word())
    if not names:
        raise BadCommand("what shall be enabled?")
    return Enable(tuple(names))


def _select(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    name = reader.mailbox()
    with_modseq, resync = False, None
    if reader.take(b" "):
        reader.want(b"(")
        while True:
            word = reader.word()
            if word == "CONDSTORE":
                with_modseq = True
            elif word == "QRESYNC":
                resync = _resync(reader)
            else:
                raise BadCommand(f"unknown parameter {word[:40]}")
            if reader.take(b")"):
                break
            reader.space()
    return Select(name, verb == "EXAMINE", with_modseq or resync is not None, resync)


def _resync(reader: Reader) -> Resync:
    reader.space()
    reader.want(b"(")
    validity = reader.number()
    reader.space()
    modseq = reader.number(MAX_MODSEQ)
    uids, sample = None, None
    if reader.take(b" "):
        if reader.peek() != b"(":
            uids = reader.set()
        if uids is None or reader.take(b" "):
            reader.want(b"(")
            numbers = reader.set()
            reader.space()
            sample = numbers, reader.set()
            reader.want(b")")
    reader.want(b")")
    return Resync(validity, modseq, uids, sample)


def _on_mailbox(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    name = reader.mailbox(may_end_in_separator=verb == "CREATE")
    uses: tuple[str, ...] = ()
    if verb == "CREATE" and reader.take(b" "):
        reader.want(b"(")
        if reader.word() != "USE":
            raise BadCommand("USE is wanted")
        reader.space()
        uses = tuple(reader.list_of(lambda: reader.match(FLAG, "a use").decode(), limit=10))
        reader.want(b")")
    return OnMailbox(verb, name, uses)


def _rename(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    name = reader.mailbox()
    reader.space()
    return Rename(name, reader.mailbox())


def _get_quota(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    return GetQuota(reader.text())


_SELECTIONS = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
_RETURNS = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE"})
STATUS_ITEMS = frozenset({"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "SIZE", "DELETED"})


def _list(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    selection: tuple[str, ...] = ()
    if reader.peek() == b"(":
        selection = reader.words(may_be_empty=True)
        if not set(selection) <= _SELECTIONS:
            raise BadCommand("an unknown option of selection")
        if set(selection) == {"RECURSIVEMATCH"} or set(selection) == {"RECURSIVEMATCH", "REMOTE"}:
            raise BadCommand("RECURSIVEMATCH needs another option")
        reader.space()
    reference = reader.pattern(reader.astring())
    reader.space()
    if reader.peek() == b"(":
        patterns = tuple(reader.list_of(reader.list_pattern, limit=50))
    else:
        patterns = (reader.list_pattern(),)
    returns, status = _returns(reader) if reader.take(b" ") else (frozenset(), ())
    return List(reference, patterns, frozenset(selection), returns, status, verb == "LSUB")


def _returns(reader: Reader) -> tuple[frozenset[str], tuple[str, ...]]:
    if reader.word() != "RETURN":
        raise BadCommand("RETURN is wanted")
    reader.space()
    reader.want(b"(")
    found: set[str] = set()
    status: tuple[str, ...] = ()
    if reader.take(b")"):
        return frozenset(), ()
    while True:
        word = reader.word()
        if word == "STATUS":
            reader.space()
            status = _status_items(reader)
        elif word in _RETURNS:
            found.add(word)
        else:
            raise BadCommand(f"unknown option {word[:40]}")
        if reader.take(b")"):
            return frozenset(found), status
        reader.space()


def _status_items(reader: Reader) -> tuple[str, ...]:
    items = reader.words()
    if not set(items) <= STATUS_ITEMS:
        raise BadCommand("an unknown item of STATUS")
    return tuple(dict.fromkeys(items))


def _status(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    name = reader.mailbox()
    reader.space()
    return Status(name, _status_items(reader))


def _append(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    name = reader.mailbox()
    reader.space()
    flags: tuple[str, ...] = ()
    when = None
    if reader.peek() == b"(":
        flags = reader.flags()
        reader.space()
    if reader.peek() == b'"':
        when = reader.date_time()
        reader.space()
    if not reader.take_word("UTF8"):
        return Append(name, flags, when, reader.literal())
    reader.want(b"(")  # RFC 6855 4
    message = reader.literal()
    reader.want(b")")
    return Append(name, flags, when, message)


def _copy(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    numbers = reader.set()
    reader.space()
    return Copy(numbers, reader.mailbox(), is_uid, verb == "MOVE")


def _expunge_uids(reader: Reader, verb: str, is_uid: bool) -> Command:
    reader.space()
    return ExpungeUids(reader.set())


_READERS: dict[str, Read] = {
    **dict.fromkeys(
        ("CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "CHECK", "CLOSE", "UNSELECT", "IDLE", "NAMESPACE", "EXPUNGE"),
        _simple,
    ),
    **dict.fromkeys(("CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE", "GETQUOTAROOT"), _on_mailbox),
    "ID": _id, "AUTHENTICATE": _authenticate, "LOGIN": _login, "ENABLE": _enable, "SELECT": _select,
    "EXAMINE": _select, "RENAME": _rename, "GETQUOTA": _get_quota, "LIST": _list, "LSUB": _list, "STATUS": _status,
    "APPEND": _append, "SEARCH": read_search, "FETCH": read_fetch, "STORE": read_store, "COPY": _copy, "MOVE": _copy,
}  # fmt: skip
_UID_READERS: dict[str, Read] = {
    "SEARCH": read_search, "FETCH": read_fetch, "STORE": read_store, "COPY": _copy, "MOVE": _copy,
    "EXPUNGE": _expunge_uids,
}  # fmt: skip
