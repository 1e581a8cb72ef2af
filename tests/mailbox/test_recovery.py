"""An index that is damaged is made anew from the files, by whoever meets it first; what it still tells is kept."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.mailflags import FLAGGED, SEEN
from gateway.mailbox import maildir, recovery
from gateway.mailbox.index import Index
from gateway.mailbox.schema import IndexTooNew
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import FlagChange
from gateway.servers.summarised import open_store

CAROL = "carol@example.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
    for number in range(5):
        opened.deliver(
            CAROL, lambda number=number: [b"Subject: %d\r\n\r\nx\r\n" % number], f"d{number}", 1000.0 + number
        )  # type: ignore[misc]
    box = opened.open_box(CAROL, "INBOX", takes_recent=False).box
    opened.set_flags(CAROL, box, [2], FlagChange(1, SEEN | FLAGGED), ["$Work"])
    opened.expunge(CAROL, [3])
    opened.create(CAROL, "Läden/2026", "\\Important")
    opened.copy(CAROL, box, [2], "Läden/2026", moves=False)
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path, store: MessageStore) -> Path:
    return tmp_path / "example.org" / "carol" / "index.db"


def contents(store: MessageStore, name: str = "INBOX") -> dict[int, tuple[int, list[str]]]:
    opened = store.open_box(CAROL, name, takes_recent=False)
    words = opened.keywords
    return {
        uid: (flags & 31, [word for bit, word in words.items() if flags >> bit & 1])
        for uid, flags in zip(opened.rows.uids, opened.rows.flags, strict=True)
    }


def use(store: MessageStore) -> None:
    """Damage is met where it lies."""
    contents(store)
    store.append(CAROL, "INBOX", [b"A: b\r\n\r\n"], 0, [], 0.0)
    store.usage(CAROL)


def overwrite_all(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


def overwrite_most(path: Path) -> None:
    octets = path.read_bytes()
    path.write_bytes(octets[:4096] + b"\xff" * (len(octets) - 4096))


def break_a_name(path: Path) -> None:
    """SQLite's complaint of it is no UTF-8."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql=CAST(x'43524541544520ff' AS TEXT) WHERE name='subscription'")
        connection.commit()


@pytest.mark.parametrize("damage", [overwrite_all, overwrite_header, overwrite_most, break_a_name])
def test_a_damaged_index_is_made_anew_from_the_files(
    store: MessageStore, tmp_path: Path, path: Path, damage: Callable[[Path], None]
) -> None:
    before = store.open_box(CAROL, "INBOX", takes_recent=False).box
    store.close()
    damage(path)
    with pytest.raises(sqlite3.DatabaseError):
        use(store)
    found = contents(store)
    assert {uid: flags for uid, (flags, _) in found.items() if uid <= 5} == {1: 0, 2: SEEN | FLAGGED, 4: 0, 5: 0}
    assert [flags for flags, _ in contents(store, "Läden/2026").values()] == [SEEN | FLAGGED]
    after = store.open_box(CAROL, "INBOX", takes_recent=False).box
    assert after.uidvalidity > before.uidvalidity
    assert after.id != before.id
    assert store.changes(CAROL, before.id, 0, takes_recent=False) is None
    assert list(path.parent.glob("index.db.broken-*"))
    assert store.append(CAROL, "INBOX", [b"A: b\r\n\r\n"], 0, [], 0.0)[1] == max(found) + 1
    assert store.reading.details(CAROL, after, [1]).found[1].header == b"Subject: 0\r\n\r\n"


def test_what_can_still_be_read_is_kept(store: MessageStore, path: Path) -> None:
    before = contents(store), contents(store, "Läden/2026"), store.usage(CAROL), store.snapshot(CAROL)[1]
    names = {box.name: box.special for box in store.boxes(CAROL)[0]}
    store.subscribe(CAROL, "Junk", is_on=False)
    subscribed = store.boxes(CAROL)[1]
    assert recovery.rebuild(path)
    assert (contents(store), contents(store, "Läden/2026"), store.usage(CAROL), store.snapshot(CAROL)[1]) == before
    assert {box.name: box.special for box in store.boxes(CAROL)[0]} == names
    assert store.boxes(CAROL)[1] == subscribed
    assert not store.deliver(CAROL, lambda: [b"A: b\r\n\r\n"], "d1", 0.0)


def test_files_with_one_uid_both_stay(store: MessageStore, path: Path) -> None:
    root = path.parent / "Maildir"
    base, name = next(iter(maildir.listing(root, "cur").items()))
    (root / "cur" / f"1.twin.host{base[base.index(',') :]}:2,").write_bytes((root / "cur" / name).read_bytes())
    (root / "cur" / "2.size.host,S=9,W=9,U=77:2,").write_bytes(b"A: b\n\nwrong size and ends\n")
    recovery.rebuild(path)
    assert len(contents(store)) == 6
    assert 77 not in contents(store)
    octets, count = store.usage(CAROL)
    assert count == 7
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sum(size) FROM msg").fetchone() == (octets,)


def test_an_index_that_is_gone_is_made_anew_too(store: MessageStore, path: Path) -> None:
    before = set(contents(store))
    store.close()
    path.unlink()
    recovery.rebuild(path)
    assert set(contents(store)) == before


def test_who_comes_second_leaves_it(store: MessageStore, path: Path) -> None:
    inode = path.stat().st_ino
    assert recovery.rebuild(path, inode)
    assert not recovery.rebuild(path, inode)
    assert len(list(path.parent.glob("index.db.broken-*[!lm]"))) == 1


def test_the_newest_damaged_indexes_stay(store: MessageStore, path: Path) -> None:
    for number in range(7):
        broken = path.with_name(f"index.db.broken-100000000{number}-ab")
        broken.write_bytes(b"x")
        broken.with_name(f"{broken.name}-wal").write_bytes(b"x")
    recovery.rebuild(path)
    kept = sorted(each.name for each in path.parent.glob("index.db.broken-*[!lm]"))
    assert kept[:2] == ["index.db.broken-1000000005-ab", "index.db.broken-1000000006-ab"]
    assert len(kept) == 3
    assert sorted(each.name for each in path.parent.glob("index.db.broken-1000*-wal")) == [f"{n}-wal" for n in kept[:2]]


def test_an_index_of_a_newer_program_is_left_alone(store: MessageStore, path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(IndexTooNew, match="99 is newer"):
        contents(store)
    assert not list(path.parent.glob("index.db.broken-*"))


def test_an_index_that_was_replaced_takes_no_more(store: MessageStore, path: Path) -> None:
    """A change that began before is ended first; one that comes after is refused, and done on the new one instead."""
    index = Index(path)
    done: list[str] = []
    with index.change():
        thread = threading.Thread(target=lambda: (recovery.rebuild(path), done.append("rebuilt")))
        thread.start()
        thread.join(0.3)
        assert done == []
    thread.join(20)
    assert done == ["rebuilt"]
    with pytest.raises(sqlite3.OperationalError, match="made anew"), index.change():
        pass
    index.close()
    assert store.deliver(CAROL, lambda: [b"A: b\r\n\r\n"], "after", 0.0)


def test_an_index_with_odd_values_is_read_as_far_as_it_goes(store: MessageStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE msg SET idate = 'x' WHERE uid = 1")
        connection.execute("UPDATE msg SET emailid = CAST(x'ff' AS TEXT) WHERE uid = 2")
        connection.execute("DELETE FROM quota")
        connection.commit()
    assert recovery.rebuild(path)
    assert len(contents(store)) == 4
    assert store.usage(CAROL)[1] == 5
