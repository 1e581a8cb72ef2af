"""LIST, LSUB and STATUS as they are answered (RFC 3501 7.2; RFC 5258, 5819, 6154, 8438)."""

import re
from collections.abc import Iterable, Sequence

from gateway.core.foldernames import SEPARATOR
from gateway.imap.command import List
from gateway.imap.names import Pattern, encode_name
from gateway.imap.ports import Box, BoxStatus
from gateway.imap.wire import astring, string

_SPECIAL = re.compile(rb'[\\"]')
_SEPARATOR = b'"%b"' % SEPARATOR.encode()


def list_responses(
    command: List, boxes: Sequence[Box], subscribed: set[str], *, is_utf8: bool
) -> list[tuple[str, bytes]]:
    """Each with the name that it is about."""
    if command.patterns == ("",):  # RFC 3501 6.3.8: what is the separator?
        return [("", b'* LIST (\\Noselect) %b ""\r\n' % _SEPARATOR)]
    there = {box.name: box for box in boxes}
    if command.is_lsub or "SUBSCRIBED" in command.selection:
        names: Iterable[str] = subscribed
    elif "SPECIAL-USE" in command.selection:
        names = [box.name for box in boxes if box.special]
    else:
        names = with_parents(there)
    patterns = [Pattern(command.reference, pattern) for pattern in command.patterns]
    wanted = sorted(name for name in names if any(pattern.matches(name) for pattern in patterns))
    parents = {parent for name in there for parent in parents_of(name)}
    above = _parents_of_subscribed(command, subscribed, patterns) if _tells_children(command) else {}
    out = []
    for name in sorted({*wanted, *above}):
        attributes = _attributes(command, name, there, subscribed, parents)
        told = b"* %b (%b) %b %b%b\r\n" % (
            b"LSUB" if command.is_lsub else b"LIST",
            " ".join(attributes).encode(),
            _SEPARATOR,
            wire_name(name, is_utf8=is_utf8),
            b' ("CHILDINFO" ("SUBSCRIBED"))' if name in above and not command.is_lsub else b"",
        )
        out.append((name, told))
    return out


def _attributes(command: List, name: str, there: dict[str, Box], subscribed: set[str], parents: set[str]) -> list[str]:
    found = []
    if name not in there:
        found.append("\\Noselect" if command.is_lsub or not command.selection else "\\NonExistent")
    elif command.is_lsub and name not in subscribed:
        found.append("\\Noselect")
    if not command.is_lsub:
        found.append("\\HasChildren" if name in parents else "\\HasNoChildren")
        if name in there and there[name].special:
            found.append(there[name].special)
        if name in subscribed and ("SUBSCRIBED" in command.selection or "SUBSCRIBED" in command.returns):
            found.append("\\Subscribed")
    return found


def _tells_children(command: List) -> bool:
    return command.is_lsub or "RECURSIVEMATCH" in command.selection


def _parents_of_subscribed(command: List, subscribed: set[str], patterns: Sequence[Pattern]) -> dict[str, None]:
    """RFC 3501 6.3.9: `%` shows a level whose children are subscribed and not shown themselves."""
    hidden = [name for name in subscribed if not any(pattern.matches(name) for pattern in patterns)]
    found = (parent for name in hidden for parent in parents_of(name))
    return dict.fromkeys(parent for parent in found if any(pattern.matches(parent) for pattern in patterns))


def parents_of(name: str) -> list[str]:
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:depth]) for depth in range(1, len(levels))]


def with_parents(names: Iterable[str]) -> set[str]:
    """A level whose mailbox was deleted is there as long as any below it is."""
    return {each for name in names for each in (name, *parents_of(name))}


def status_response(status: BoxStatus, items: Sequence[str], *, is_utf8: bool) -> bytes:
    box = status.box
    values = {
        "MESSAGES": status.messages,
        "RECENT": status.recent,
        "UIDNEXT": box.uidnext,
        "UIDVALIDITY": box.uidvalidity,
        "UNSEEN": status.unseen,
        "DELETED": status.deleted,
        "SIZE": status.octets,
        "HIGHESTMODSEQ": box.modseq,
    }
    told = " ".join(f"{item} {values[item]}" for item in items).encode()
    return b"* STATUS %b (%b)\r\n" % (wire_name(box.name, is_utf8=is_utf8), told)


def wire_name(name: str, *, is_utf8: bool) -> bytes:
    octets = encode_name(name, is_utf8=is_utf8)
    if is_utf8 and not octets.isascii():
        return b'"' + _SPECIAL.sub(rb"\\\g<0>", octets) + b'"'  # RFC 6855 3: quoted strings may have UTF-8 now
    return astring(octets) if octets.isascii() else string(octets)
