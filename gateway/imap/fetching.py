"""FETCH and STORE as they are written (RFC 3501 6.4.5, 6.4.6, RFC 7162 3.1.3, 3.1.4)."""

import re

from gateway.imap.command import MACROS, WHOLE, Fetch, FetchItem, Item, Section, Store
from gateway.imap.syntax import FETCH, MAX_MODSEQ, BadCommand, Reader
from gateway.imap.wire import astring

MAX_ITEMS = 200


def read_fetch(reader: Reader, verb: str, is_uid: bool) -> Fetch:
    reader.space()
    numbers = reader.set()
    reader.space()
    items: list[FetchItem] = []
    if reader.peek() == b"(":
        reader.want(b"(")
        while True:
            items += _fetch_items(reader, in_list=True)
            if len(items) > MAX_ITEMS:
                raise BadCommand("too many items")
            if reader.take(b")"):
                break
            reader.space()
    else:
        items += _fetch_items(reader, in_list=False)
    changed_since, with_vanished = None, False
    if reader.take(b" "):
        reader.want(b"(")
        while True:
            word = reader.word()
            if word == "CHANGEDSINCE":
                reader.space()
                changed_since = reader.number(MAX_MODSEQ)
            elif word == "VANISHED" and is_uid:
                with_vanished = True
            else:
                raise BadCommand(f"unknown modifier {word[:40]}")
            if reader.take(b")"):
                break
            reader.space()
    if with_vanished and changed_since is None:
        raise BadCommand("VANISHED needs CHANGEDSINCE")
    return Fetch(numbers, tuple(dict.fromkeys(items)), is_uid, changed_since, with_vanished)


def _fetch_items(reader: Reader, *, in_list: bool) -> list[FetchItem]:
    word = reader.match(FETCH, "an item").decode("ascii").upper()
    if word in ("BODY", "BODY.PEEK") and reader.take(b"["):
        return [_section(reader, peek=word == "BODY.PEEK")]
    if word in MACROS and not in_list:
        return list(MACROS[word])
    if word in WHOLE:
        return [WHOLE[word]]
    try:
        return [Item(word)]
    except ValueError:
        raise BadCommand(f"unknown item {word[:40]}") from None


_PART = re.compile(rb"[1-9][0-9]{0,8}(?:\.[1-9][0-9]{0,8}){0,40}")
_SECTION_TEXT = re.compile(rb"\.?(HEADER\.FIELDS\.NOT|HEADER\.FIELDS|HEADER|TEXT|MIME)", re.IGNORECASE)
_PARTIAL = re.compile(rb"<([0-9]{1,10})\.([1-9][0-9]{0,9})>")


def _section(reader: Reader, *, peek: bool) -> Section:
    found = reader.try_match(_PART)
    part = tuple(map(int, found[0].split(b"."))) if found else ()
    label = found[0] if found else b""
    text, fields = "", ()  # type: tuple[str, tuple[bytes, ...]]
    kind = reader.try_match(_SECTION_TEXT)
    if kind is not None:
        text = kind[1].decode("ascii").upper()
        if bool(part) != kind[0].startswith(b".") or (text == "MIME" and not part):
            raise BadCommand("no section")
        label += (b"." if part else b"") + text.encode()
        if text.startswith("HEADER.FIELDS"):
            reader.space()
            fields = tuple(reader.list_of(reader.astring, limit=200))
            label += b" (" + b" ".join(map(astring, fields)) + b")"
    reader.want(b"]")
    cut = reader.try_match(_PARTIAL)
    partial = (int(cut[1]), int(cut[2])) if cut else None
    tail = b"<%d>" % partial[0] if partial else b""
    return Section(b"BODY[" + label + b"]" + tail, part, text, fields, partial, peek)


_STORE = re.compile(rb"([+-]?)FLAGS(\.SILENT)?", re.IGNORECASE)


def read_store(reader: Reader, verb: str, is_uid: bool) -> Store:
    reader.space()
    numbers = reader.set()
    reader.space()
    unchanged_since = None
    if reader.take(b"("):
        if reader.word() != "UNCHANGEDSINCE":
            raise BadCommand("UNCHANGEDSINCE is wanted")
        reader.space()
        unchanged_since = reader.number(MAX_MODSEQ)
        reader.want(b")")
        reader.space()
    found = reader.try_match(_STORE)
    if found is None:
        raise BadCommand("FLAGS is wanted")
    reader.space()
    if reader.peek() == b"(":
        flags = reader.flags()
    else:
        names = [reader.flag()]
        while reader.take(b" "):
            names.append(reader.flag())
        flags = tuple(dict.fromkeys(names))
    how = {b"+": 1, b"-": -1, b"": 0}[found[1]]
    return Store(numbers, how, flags, found[2] is not None, is_uid, unchanged_since)
