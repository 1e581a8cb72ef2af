"""The tree of a user's mailboxes in the index: made, renamed, deleted, subscribed (RFC 3501 6.3.3 to 6.3.7).

UIDVALIDITY grows with each mailbox that is made, so a name that comes again never has an old one's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX, SEPARATOR, normal_name
from gateway.core.mailflags import DELETED, SEEN
from gateway.mailbox.index import BOX, Index
from gateway.mailbox.values import Box

MAX_BOXES = 1000
MAX_SUBSCRIPTIONS = 2000  # also to what is not there (RFC 3501 6.3.6)


class BoxExists(StoreError):
    pass


class NoSuchBox(StoreError):
    pass


class BoxRefused(StoreError):
    """The text says why."""


@dataclass(frozen=True, slots=True)
class BoxStatus:
    box: Box
    messages: int
    unseen: int
    deleted: int
    recent: int
    octets: int


def all_boxes(index: Index) -> list[Box]:
    rows = index.connection.execute(f"SELECT {BOX} FROM box ORDER BY name")  # noqa: S608  # a constant
    return [Box(*row) for row in rows]


def subscriptions(index: Index) -> set[str]:
    return {name for (name,) in index.connection.execute("SELECT name FROM subscription")}


def subscribe(index: Index, name: str, *, is_on: bool) -> None:
    sql = "INSERT OR IGNORE INTO subscription VALUES(?)" if is_on else "DELETE FROM subscription WHERE name = ?"
    with index.change():
        (count,) = index.connection.execute("SELECT count(*) FROM subscription").fetchone()
        if is_on and count >= MAX_SUBSCRIPTIONS:
            raise BoxRefused(f"a user has at most {MAX_SUBSCRIPTIONS} subscriptions")
        index.connection.execute(sql, [name])


def create(index: Index, name: str, special: str = "") -> Box:
    """With the levels above it. Raises BoxExists, BoxRefused."""
    with index.change():
        if index.box(name) is not None:
            raise BoxExists(f"{name} is there already")
        _insert_above(index, name)
        _insert(index, name, special)
        if special:
            index.connection.execute("UPDATE box SET special = '' WHERE special = ? AND name <> ?", [special, name])
    return index.wanted_box(name)


def take_in(index: Index, name: str) -> None:
    """One that another program made. Raises BoxRefused."""
    with index.change():
        if index.box(name) is None:
            _insert_above(index, name)
            _insert(index, name, "")
            index.connection.execute("INSERT OR IGNORE INTO subscription VALUES(?)", [name])


def _insert(index: Index, name: str, special: str) -> None:
    _check(name)
    execute = index.connection.execute
    (count,) = execute("SELECT count(*) FROM box").fetchone()
    if count >= MAX_BOXES:
        raise BoxRefused(f"a user has at most {MAX_BOXES} mailboxes")
    (validity,) = execute(
        "UPDATE last SET validity = max(validity + 1, CAST(strftime('%s') AS INTEGER)) RETURNING validity"
    ).fetchone()
    execute("INSERT INTO box(name, uidvalidity, special) VALUES(?, ?, ?)", [name, validity, special])


def delete(index: Index, name: str) -> Box:
    """Within a change. Raises NoSuchBox, BoxRefused. Mailboxes below it stay."""
    if name == INBOX:
        raise BoxRefused("INBOX is always there")
    box = index.box(name)
    if box is None:
        raise NoSuchBox(f"no mailbox {name}")
    execute = index.connection.execute
    octets, messages = execute("SELECT coalesce(sum(size), 0), count(*) FROM msg WHERE box = ?", [box.id]).fetchone()
    forget(index, box.id)
    execute("DELETE FROM box WHERE id = ?", [box.id])
    execute("UPDATE quota SET octets = octets - ?, messages = messages - ?", [octets, messages])
    return box


def forget(index: Index, box: int) -> None:
    """All that is known of what was in it. Within a change."""
    for table in ("meta", "heading", "keyword", "expunged", "doomed", "msg"):
        index.connection.execute(f"DELETE FROM {table} WHERE box = ?", [box])  # noqa: S608  # a constant


def rename(index: Index, name: str, other: str) -> list[tuple[str, str]]:
    """Old and new names of all that move: those below go along. Within a change. Raises NoSuchBox, BoxExists,
    BoxRefused.
    """
    if other == name or other.startswith(f"{name}{SEPARATOR}"):
        raise BoxRefused("a mailbox cannot be below itself")
    there = [box.name for box in all_boxes(index)]
    moved = [
        (each, other + each[len(name) :]) for each in there if each == name or each.startswith(f"{name}{SEPARATOR}")
    ]
    if not moved:
        raise NoSuchBox(f"no mailbox {name}")
    taken = {other, *(new for _, new in moved)} & ({*there} - {old for old, _ in moved})
    if taken:
        raise BoxExists(f"{min(taken)} is there already")
    for old, new in moved:
        _check(new)
        index.connection.execute("UPDATE box SET name = ? WHERE name = ?", [new, old])
        index.connection.execute("UPDATE OR IGNORE subscription SET name = ? WHERE name = ?", [new, old])
    _insert_above(index, other)
    return moved


def _insert_above(index: Index, name: str) -> None:
    levels = name.split(SEPARATOR)
    for depth in range(1, len(levels)):
        above = SEPARATOR.join(levels[:depth])
        if index.box(above) is None:
            _insert(index, above, "")


def _check(name: str) -> None:
    try:
        is_normal = normal_name(name) == name
    except ValueError as error:
        raise BoxRefused(f"no name of a mailbox: {error}") from error
    if not is_normal:
        raise BoxRefused("the name is not in its normal form")


def status(index: Index, names: Sequence[str]) -> list[BoxStatus]:
    """Of those that are there."""
    found = []
    for name in names:
        box = index.box(name)
        if box is None:
            continue
        row = index.connection.execute(
            "SELECT count(*), coalesce(sum(flags & ? = 0), 0), coalesce(sum(flags & ? <> 0), 0),"
            " coalesce(sum(uid >= ?), 0), coalesce(sum(size), 0) FROM msg WHERE box = ?",
            [SEEN, DELETED, box.recent, box.id],
        ).fetchone()
        found.append(BoxStatus(box, *row))
    return found
