"""SEARCH as it is written (RFC 3501 6.4.4, RFC 4731, 5032, 7162 3.1.5)."""

from gateway.imap.command import (
    All,
    Both,
    ChangedSince,
    Either,
    HasFlag,
    HasSize,
    HasText,
    InSet,
    Not,
    OnDay,
    Search,
    SearchKey,
    Within,
)
from gateway.imap.syntax import FLAG, MAX_MODSEQ, BadCharset, BadCommand, Reader

MAX_DEPTH = 50  # of parentheses, NOT and OR
MAX_KEYS = 100


def read_search(reader: Reader, verb: str, is_uid: bool) -> Search:
    reader.space()
    returns: frozenset[str] | None = None
    if reader.take_word("RETURN"):
        words = reader.words(may_be_empty=True)
        if not set(words) <= {"MIN", "MAX", "ALL", "COUNT"}:
            raise BadCommand("an unknown option of RETURN")
        returns = frozenset(words) or frozenset({"ALL"})
        reader.space()
    if reader.take_word("CHARSET"):
        charset = reader.text().upper()
        if charset not in ("UTF-8", "US-ASCII"):
            raise BadCharset
        reader.space()
    keys = [_key(reader)]
    while reader.take(b" "):
        keys.append(_key(reader))
    return Search(keys[0] if len(keys) == 1 else Both(tuple(keys)), is_uid, returns)


_FLAG_KEYS: dict[str, HasFlag] = {
    "ANSWERED": HasFlag("\\Answered"),
    "DELETED": HasFlag("\\Deleted"),
    "DRAFT": HasFlag("\\Draft"),
    "FLAGGED": HasFlag("\\Flagged"),
    "SEEN": HasFlag("\\Seen"),
    "UNANSWERED": HasFlag("\\Answered", is_set=False),
    "UNDELETED": HasFlag("\\Deleted", is_set=False),
    "UNDRAFT": HasFlag("\\Draft", is_set=False),
    "UNFLAGGED": HasFlag("\\Flagged", is_set=False),
    "UNSEEN": HasFlag("\\Seen", is_set=False),
    "RECENT": HasFlag("\\Recent"),
    "OLD": HasFlag("\\Recent", is_set=False),
}
_DAY_KEYS = {
    "BEFORE": ("internal", -1), "ON": ("internal", 0), "SINCE": ("internal", 1),
    "SENTBEFORE": ("sent", -1), "SENTON": ("sent", 0), "SENTSINCE": ("sent", 1),
}  # fmt: skip
_FIELD_KEYS = frozenset({"BCC", "CC", "FROM", "SUBJECT", "TO"})


def _key(reader: Reader) -> SearchKey:
    reader.keys += 1
    reader.depth += 1
    if reader.keys > MAX_KEYS or reader.depth > MAX_DEPTH:
        raise BadCommand("a search is too long, or too deep")
    try:
        return _one_key(reader)
    finally:
        reader.depth -= 1


def _one_key(reader: Reader) -> SearchKey:
    if reader.peek() == b"(":
        keys = tuple(reader.list_of(lambda: _key(reader)))
        return keys[0] if len(keys) == 1 else Both(keys)
    if reader.peek() and reader.peek() in b"0123456789*":
        return InSet(reader.set(), is_uid=False)
    word = reader.word()
    if word == "ALL":
        return All()
    if word in _FLAG_KEYS:
        return _FLAG_KEYS[word]
    if word == "NEW":
        return Both((HasFlag("\\Recent"), HasFlag("\\Seen", is_set=False)))
    reader.space()
    match word:
        case "NOT":
            return Not(_key(reader))
        case "OR":
            one = _key(reader)
            reader.space()
            return Either(one, _key(reader))
        case "KEYWORD" | "UNKEYWORD":
            return HasFlag(reader.match(FLAG, "a keyword").decode(), is_set=word == "KEYWORD")
        case "UID":
            return InSet(reader.set(), is_uid=True)
        case "LARGER" | "SMALLER":
            return HasSize(word == "LARGER", reader.number(MAX_MODSEQ))
        case "OLDER" | "YOUNGER":
            return Within(word == "OLDER", reader.number())
        case "MODSEQ":
            if reader.peek() == b'"':  # a flag and its kind: all of a message's data has one number here
                reader.string()
                reader.space()
                reader.word()
                reader.space()
            return ChangedSince(reader.number(MAX_MODSEQ))
        case "HEADER":
            name = reader.text().lower()
            reader.space()
            return HasText(name, reader.text())
        case "BODY" | "TEXT":
            return HasText(word, reader.text())
    if word in _FIELD_KEYS:
        return HasText(word.lower(), reader.text())
    if word in _DAY_KEYS:
        of, how = _DAY_KEYS[word]
        return OnDay(of, how, reader.day())
    raise BadCommand(f"unknown search key {word[:40]}")
