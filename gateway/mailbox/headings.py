"""The fields that people search for, as they are read: kept of each message once somebody searches its mailbox.

To look through them is then SQLite's walk over a narrow table. Messages have them in the order of UIDs, up to the
mailbox's mark `headed`; who never searches pays nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.mailbox.index import Index
from gateway.mailbox.values import Details
from gateway.message.header import Header, decode_text, parse_header

FIELDS = {"subject": "subject", "from": "sender", "to": "recipient", "cc": "cc", "bcc": "bcc"}  # columns, by names
COUNT = 500  # messages that are headed at once
MAX_KEPT = 4000  # octets of one field; a message with a longer one is looked at itself


@dataclass(frozen=True, slots=True)
class Searched:
    """UIDs. found: for each pair of field and text, in order; doubtful: those of which nothing is kept; mark: the same
    of all from here on.
    """

    found: Sequence[Sequence[int]]
    doubtful: frozenset[int]
    mark: int


def missing(index: Index, box: int) -> list[int]:
    """UIDs of the next COUNT messages that are not headed, in order."""
    rows = index.connection.execute(
        "SELECT uid FROM msg WHERE box = ? AND uid >= (SELECT headed FROM box WHERE id = ?) ORDER BY uid LIMIT ?",
        [box, box, COUNT],
    )
    return [uid for (uid,) in rows]


def keep(index: Index, box: int, uids: Sequence[int], found: Mapping[int, Details]) -> None:
    """uids: of `missing`, all of which are headed now; found: their headers. Within a change."""
    rows = []
    for uid in uids:
        octets = _octets(parse_header(found[uid].header)) if uid in found else None
        rows.append([octets is not None, *(octets or [None] * len(FIELDS)), box, uid])
    index.connection.executemany(
        f"INSERT OR REPLACE INTO heading(box, uid, is_whole, {', '.join(FIELDS.values())})"  # noqa: S608  # constants
        f" SELECT box, uid, ?{', ?' * len(FIELDS)} FROM msg WHERE box = ? AND uid = ?",
        rows,
    )
    index.connection.execute("UPDATE box SET headed = max(headed, ?) WHERE id = ?", [uids[-1] + 1, box])


def _octets(header: Header) -> list[bytes | None] | None:
    """Of each field, None where there is none; None: one is too long."""
    found: list[bytes | None] = []
    for name in FIELDS:
        fields = header.all(name)
        octets = None
        if fields:
            octets = "\n".join(decode_text(field.value).lower() for field in fields[:COUNT]).encode(
                "utf-8", "surrogatepass"
            )
            if len(octets) > MAX_KEPT or len(fields) > COUNT:
                return None
        found.append(octets)
    return found


def search(index: Index, box: int, wanted: Sequence[tuple[str, str]]) -> Searched:
    """wanted: names of FIELDS and texts, in lower case; "" for that the field is there."""
    execute = index.connection.execute
    mark = execute("SELECT headed FROM box WHERE id = ?", [box]).fetchone()
    doubtful = execute("SELECT uid FROM heading WHERE box = ? AND NOT is_whole", [box])
    found = [
        execute(
            f"SELECT uid FROM heading WHERE box = ? AND instr({FIELDS[name]}, ?) ORDER BY uid",  # noqa: S608  # constant
            [box, text.encode("utf-8", "surrogatepass")],
        ).fetchall()
        for name, text in wanted
    ]
    return Searched(
        [[uid for (uid,) in rows] for rows in found], frozenset(uid for (uid,) in doubtful), mark[0] if mark else 0
    )


def forget(index: Index, box: int) -> None:
    """All are headed anew. Within a change."""
    index.connection.execute("DELETE FROM heading WHERE box = ?", [box])
    index.connection.execute("UPDATE box SET headed = 1 WHERE id = ?", [box])
