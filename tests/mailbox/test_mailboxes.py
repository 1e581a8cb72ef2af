"""Mailboxes of the store: names, flags, copies, what has changed since, and files that other programs can read."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.errors import StoreError
from gateway.core.mailflags import DELETED, FLAGGED, MAX_KEYWORDS, SEEN, names_of
from gateway.mailbox import index as index_room
from gateway.mailbox.boxes import BoxExists, BoxRefused, NoSuchBox
from gateway.mailbox.index import KeywordsFull
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import Box, FlagChange
from gateway.servers.summarised import open_store

ALICE = "alice@example.org"
AT = 1_796_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def append(store: MessageStore, name: str = "INBOX", flags: int = 0, keywords: tuple[str, ...] = ()) -> int:
    return store.append(ALICE, name, [b"A: b\r\n", b"\r\nx\r\n"], flags, keywords, AT)[1]


def box(store: MessageStore, name: str = "INBOX") -> Box:
    return store.open_box(ALICE, name, takes_recent=False).box


def rows(store: MessageStore, name: str = "INBOX") -> dict[int, int]:
    found = store.open_box(ALICE, name, takes_recent=False).rows
    return dict(zip(found.uids, found.flags, strict=True))


def files(tmp_path: Path, folder: str = "") -> list[str]:
    return sorted(path.name for path in (tmp_path / "example.org" / "alice" / "Maildir" / folder / "cur").iterdir())


def test_flags_are_in_the_index_and_in_file_names(store: MessageStore, tmp_path: Path) -> None:
    one, two = append(store), append(store, flags=SEEN, keywords=("$Forwarded",))
    inbox = box(store)
    assert rows(store) == {one: 0, two: SEEN | 32}
    store.set_flags(ALICE, inbox, [one], FlagChange(1, FLAGGED), ["$forwarded"])
    store.set_flags(ALICE, inbox, [two], FlagChange(0, 0), [])
    assert rows(store) == {one: FLAGGED | 32, two: 0}
    assert store.keywords(ALICE, inbox.id) == {5: "$Forwarded"}
    assert sorted(name.rpartition("U=")[2] for name in files(tmp_path)) == ["1:2,F", "2:2,"]
    with pytest.raises(KeywordsFull):
        store.set_flags(ALICE, inbox, [one], FlagChange(1, 0), [f"k{number}" for number in range(60)])
    assert rows(store)[one] == FLAGGED | 32


def test_a_change_since_another_is_left_alone(store: MessageStore) -> None:
    uid, inbox = append(store), box(store)
    ((_, _, modseq),), _ = store.set_flags(ALICE, inbox, [uid], FlagChange(1, SEEN), [])
    changed, conflicts = store.set_flags(ALICE, inbox, [uid], FlagChange(1, DELETED), [], modseq - 1)
    assert (changed, conflicts) == ([], [uid])
    changed, conflicts = store.set_flags(ALICE, inbox, [uid], FlagChange(1, DELETED), [], modseq)
    assert ([each[:2] for each in changed], conflicts) == ([(uid, SEEN | DELETED)], [])


def test_a_copy_is_whole_and_a_move_takes_the_message_along(store: MessageStore, tmp_path: Path) -> None:
    one = append(store, flags=SEEN, keywords=("kw",))
    inbox = box(store)
    validity, pairs = store.copy(ALICE, inbox, [one, 99], "Archive", moves=False)
    assert pairs == [(one, 1)]
    assert validity == box(store, "Archive").uidvalidity
    assert rows(store, "Archive") == {1: SEEN | 32}
    _, pairs = store.copy(ALICE, inbox, [one], "Archive", moves=True)
    assert pairs == [(one, 2)]
    assert rows(store) == {}
    assert files(tmp_path) == []
    assert len(files(tmp_path, ".Archive")) == 2
    archive = box(store, "Archive")
    for uid, details in store.reading.details(ALICE, archive, [1, 2]).found.items():
        with store.reading.open_message(ALICE, details, archive) as file:
            assert (details.uid, file.read()) == (uid, b"A: b\r\n\r\nx\r\n")
    assert store.usage(ALICE) == (22, 2)
    with pytest.raises(NoSuchBox):
        store.copy(ALICE, archive, [1], "None", moves=True)
    assert rows(store, "Archive") == {1: SEEN | 32, 2: SEEN | 32}
    assert not (tmp_path / "example.org" / "alice" / "Maildir" / ".None").exists()


def test_copies_keep_their_keywords_where_the_other_mailbox_has_given_all_away(store: MessageStore) -> None:
    uids = [append(store, keywords=(f"own{number}",)) for number in range(4)]
    for number in range(MAX_KEYWORDS):
        (uid,) = rows(store, "Archive") or [append(store, "Archive")]
        store.set_flags(ALICE, box(store, "Archive"), [uid], FlagChange(0, 0), [f"idle{number}"])
    store.set_flags(ALICE, box(store, "Archive"), [uid], FlagChange(0, 0), [])
    store.copy(ALICE, box(store), uids, "Archive", moves=False)
    words = store.keywords(ALICE, box(store, "Archive").id)
    told = [names_of(flags, words) for flags in rows(store, "Archive").values()]
    assert told == [[], ["own0"], ["own1"], ["own2"], ["own3"]]


@pytest.mark.parametrize("gap", [False, True])
def test_many_are_flagged_copied_and_expunged_as_each_by_itself(store: MessageStore, tmp_path: Path, gap: bool) -> None:
    uids = [append(store, flags=SEEN * (number % 2)) for number in range(12)]
    if gap:
        store.expunge(ALICE, [uids.pop(5)])
    before = store.usage(ALICE)
    inbox = box(store)
    changed, conflicts = store.set_flags(ALICE, inbox, uids, FlagChange(1, SEEN), [])
    assert [uid for uid, _, _ in changed] == [uid for uid in uids if uid % 2]
    assert len({modseq for _, _, modseq in changed}) == 1
    assert conflicts == []
    assert all(name.endswith(":2,S") for name in files(tmp_path))
    _, pairs = store.copy(ALICE, inbox, uids, "Archive", moves=False)
    assert pairs == list(zip(uids, range(1, len(uids) + 1), strict=True))
    assert rows(store, "Archive") == {uid: SEEN for _, uid in pairs}
    assert store.usage(ALICE) == (2 * before[0], 2 * before[1])
    assert store.expunge(ALICE, reversed(uids[2:])) == len(uids) - 2
    assert list(rows(store)) == uids[:2]
    found = store.changes(ALICE, inbox.id, changed[0][2], takes_recent=False)
    assert found is not None
    assert found[0].vanished == uids[2:]
    assert len(files(tmp_path)) == 2
    assert store.usage(ALICE) == (before[0] + 2 * (before[0] // before[1]), before[1] + 2)


def test_a_copy_of_which_one_file_is_gone_leaves_nothing(store: MessageStore, tmp_path: Path) -> None:
    uids = [append(store) for _ in range(3)]
    inbox = box(store)
    folder = tmp_path / "example.org" / "alice" / "Maildir"
    (folder / "cur" / files(tmp_path)[1]).unlink()
    with pytest.raises(StoreError):
        store.copy(ALICE, inbox, uids, "Archive", moves=True)
    assert rows(store, "Archive") == {}
    assert files(tmp_path, ".Archive") == []
    assert list((folder / ".Archive" / "tmp").iterdir()) == []


def test_a_copy_onto_the_same_mailbox_gives_new_uids(store: MessageStore) -> None:
    uid = append(store)
    assert store.copy(ALICE, box(store), [uid], "INBOX", moves=False)[1] == [(1, 2)]
    assert store.copy(ALICE, box(store), [1, 2], "INBOX", moves=True)[1] == [(1, 3), (2, 4)]
    assert list(rows(store)) == [3, 4]


def test_names_and_validities(store: MessageStore, tmp_path: Path) -> None:
    store.create(ALICE, "a/b.c/Prjekté")
    assert {"a", "a/b.c", "a/b.c/Prjekté"} <= {each.name for each in store.boxes(ALICE)[0]}
    assert (tmp_path / "example.org/alice/Maildir/.a.b%2Ec.Prjekt&AOk-/maildirfolder").exists()
    with pytest.raises(BoxExists):
        store.create(ALICE, "a")
    first = box(store, "a").uidvalidity
    append(store, "a")
    store.rename(ALICE, "a", "z/y")
    assert box(store, "z/y").uidvalidity == first
    assert rows(store, "z/y") == {1: 0}
    assert box(store, "z/y/b.c/Prjekté")
    store.delete(ALICE, "z/y")
    with pytest.raises(NoSuchBox):
        box(store, "z/y")
    assert box(store, "z/y/b.c")
    store.create(ALICE, "z/y")
    assert box(store, "z/y").uidvalidity > first
    assert rows(store, "z/y") == {}
    assert store.usage(ALICE) == (0, 0)
    for wrong in ("INBOX", "none"):
        with pytest.raises((BoxRefused, NoSuchBox)):
            store.delete(ALICE, wrong)
    with pytest.raises(BoxRefused):
        store.rename(ALICE, "z", "z/x")


def test_renaming_inbox_moves_its_messages_and_leaves_it(store: MessageStore) -> None:
    append(store)
    store.rename(ALICE, "INBOX", "Old/2026")
    assert (rows(store), rows(store, "Old/2026")) == ({}, {1: 0})


def test_a_session_reads_on_when_its_mailbox_is_renamed(store: MessageStore) -> None:
    uid, old = append(store, "Sent"), box(store, "Sent")
    store.rename(ALICE, "Sent", "Gone")
    details = store.reading.details(ALICE, old, [uid]).found[uid]
    with store.reading.open_message(ALICE, details, old) as file:
        assert file.read().startswith(b"A: b")
    store.set_flags(ALICE, old, [uid], FlagChange(1, DELETED), [])
    assert store.expunge_deleted(ALICE, old) == 1


def test_what_has_changed_since_is_told_and_what_is_too_long_ago_is_told_whole(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_room, "MAX_EXPUNGED", 3)
    kept = append(store)
    inbox, opened = box(store), store.open_box(ALICE, "INBOX", takes_recent=False)
    since = opened.rows.modseq
    for _ in range(2):
        store.expunge(ALICE, [append(store)])
    found = store.changes(ALICE, inbox.id, since, takes_recent=False)
    assert found is not None
    assert (found[0].vanished, found[0].is_whole) == ([2, 3], False)
    for _ in range(8):
        store.expunge(ALICE, [append(store)])
    found = store.changes(ALICE, inbox.id, since, takes_recent=False)
    assert found is not None
    assert ([row[0] for row in found[0].rows], found[0].vanished, found[0].is_whole) == ([kept], [], True)
    assert list(rows(store)) == [kept]
    store.delete(ALICE, "Sent")
    assert store.changes(ALICE, 9999, 0, takes_recent=False) is None


def test_a_message_is_recent_to_one_session(store: MessageStore) -> None:
    append(store)
    assert store.open_box(ALICE, "INBOX", takes_recent=True).first_recent == 1
    append(store)
    assert store.open_box(ALICE, "INBOX", takes_recent=False).first_recent == 2
    assert store.open_box(ALICE, "INBOX", takes_recent=True).first_recent == 2
    assert store.open_box(ALICE, "INBOX", takes_recent=True).first_recent == 3


def test_a_full_disk_stores_nothing(store: MessageStore, tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"A: b\r\n"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.append(ALICE, "Sent", full(), 0, (), AT)
    assert rows(store, "Sent") == {}
    assert list((tmp_path / "example.org/alice/Maildir/.Sent/tmp").iterdir()) == []


# --- a process that is killed -------------------------------------------------------------------------------------


def work(folder: Path, told: int, seed: int) -> None:
    """Delivers, appends, moves and expunges without end, and says what it was told is done."""
    store, chance = open_store(folder), random.Random(seed)
    while True:
        if chance.random() < 0.5:
            uid = append(store)
        else:
            store.deliver(ALICE, lambda: [b"A: b\r\n\r\nx\r\n"], f"{os.getpid()} {time.monotonic_ns()}", 0.0)
            uid = max(rows(store))
        os.write(told, b"+%d\n" % uid)
        if chance.random() < 0.5:
            gone = chance.choice(list(rows(store)))
            os.write(told, b"?%d\n" % gone)
            if chance.random() < 0.5:
                store.copy(ALICE, box(store), [gone], "Archive", moves=True)
                os.write(told, b">%d\n" % gone)
            else:
                store.expunge(ALICE, [gone])
                os.write(told, b"-%d\n" % gone)


@pytest.mark.parametrize("batch", [0, pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.long)])
def test_a_kill_at_any_moment_loses_nothing_that_was_told(tmp_path: Path, batch: int) -> None:
    """Twenty rounds: no message lost, no UID given twice, MODSEQ only grows, each row has its file."""
    there, given, moved, modseq = set[int](), 0, 0, 0
    chance = random.Random(batch)
    for _ in range(20):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                work(tmp_path, writing, chance.randrange(1000))
            finally:
                os._exit(1)
        os.close(writing)
        time.sleep(chance.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as file:
            lines = file.read().splitlines()
        unknown: int | None = None
        for line in lines:
            uid = int(line[1:])
            match line[:1]:
                case b"+":
                    assert uid > given, "a UID was given twice"
                    given = uid
                    there.add(uid)
                case b"?":
                    unknown = uid
                case _:
                    there.discard(uid)
                    moved += line[:1] == b">"
                    unknown = None
        store = open_store(tmp_path)
        found = store.open_box(ALICE, "INBOX", takes_recent=False)
        now = set(found.rows.uids)
        assert there - {unknown} <= now, "a message that was stored is lost"
        assert len(now - there) <= 1, "more than the one that was under way"
        assert found.rows.modseq >= modseq
        modseq, there, given = found.rows.modseq, now, max(given, found.box.uidnext - 1)
        for details in store.reading.details(ALICE, found.box, sorted(now)).found.values():
            with store.reading.open_message(ALICE, details, found.box) as body:
                assert body.read() == b"A: b\r\n\r\nx\r\n"
        archived = store.open_box(ALICE, "Archive", takes_recent=False)
        assert len(archived.rows.uids) in (moved, moved + 1)
        moved = len(archived.rows.uids)
        store.close()
    assert given > 20
