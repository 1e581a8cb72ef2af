"""What other programs do to a user's folders is taken in; what a crash left there is not."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import StoreError
from gateway.core.mailflags import DRAFT, FLAGGED, SEEN
from gateway.mailbox import index as index_room
from gateway.mailbox import maildir
from gateway.mailbox.foreign import MAX_TAKEN
from gateway.mailbox.maintenance import Maintenance
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import FlagChange
from gateway.servers.summarised import open_store, summarised
from tests.support.clock import settle

BOB = "bob@example.org"
LF = b"Subject: from elsewhere\n\nline one\nline two\n"
CRLF = LF.replace(b"\n", b"\r\n")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MessageStore]:
    opened = open_store(tmp_path)
    opened.create(BOB, "Work")
    yield opened
    opened.close()


@pytest.fixture
def root(tmp_path: Path, store: MessageStore) -> Path:
    return tmp_path / "example.org" / "bob" / "Maildir"


def append(store: MessageStore, name: str = "INBOX", flags: int = 0) -> int:
    return store.append(BOB, name, [CRLF], flags, ["$Work"], 1000.0)[1]


def rows(store: MessageStore, name: str = "INBOX") -> dict[int, int]:
    found = store.open_box(BOB, name, takes_recent=False).rows
    return dict(zip(found.uids, found.flags, strict=True))


def put(path: Path, octets: bytes = LF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path


@pytest.mark.parametrize(
    "place", ["new/1.M1P1.host", "cur/1.M1P1.host:2,FS", "cur/1.M1P1.host", "new/odd ,=name\udcff"]
)
def test_a_message_that_another_program_brought(store: MessageStore, root: Path, place: str) -> None:
    first = append(store)
    assert rows(store) == {first: rows(store)[first]}
    settle(root.parent)
    path = put(root / place)
    os.utime(path, (5000.0, 5000.0))
    flags = FLAGGED | SEEN if place.endswith("FS") else 0
    assert list(rows(store).items())[1:] == [(2, flags)]
    _, (_, message) = store.snapshot(BOB)
    assert (message.size, message.internal_date) == (len(CRLF), 5000.0)
    with store.reading.open_message(BOB, message) as file:
        assert file.read() == CRLF
    assert not path.exists()
    assert f",S={len(CRLF)},W={len(CRLF)},U=2:2," in message.file
    assert store.usage(BOB) == (2 * len(CRLF), 2)
    settle(root.parent)
    assert len(rows(store)) == 2
    box = store.open_box(BOB, "INBOX", takes_recent=False).box
    assert b"from elsewhere" in store.reading.details(BOB, box, [2]).found[2].envelope
    assert [path.name for path in (root / "tmp").iterdir()] == []


def test_flags_and_removals_of_another_program(store: MessageStore, root: Path) -> None:
    uids = [append(store, flags=SEEN) for _ in range(3)]
    before = store.open_box(BOB, "INBOX", takes_recent=False).rows
    settle(root.parent)
    names = maildir.listing(root, "cur")
    paths = {maildir.uid_of(base): root / "cur" / name for base, name in names.items()}
    paths[uids[0]].rename(root / "cur" / paths[uids[0]].name.replace(":2,S", ":2,FS"))
    paths[uids[1]].unlink()
    settle(root.parent)
    changes, _ = store.changes(
        BOB, store.open_box(BOB, "INBOX", takes_recent=False).box.id, before.modseq, takes_recent=False
    ) or (None, 0)
    assert changes is not None
    assert [row[0] for row in changes.rows] == [uids[0]]
    assert changes.vanished == [uids[1]]
    keyword = before.flags[0] & ~SEEN
    assert keyword  # it stays, since names do not tell keywords
    assert changes.rows[0][1] == keyword | SEEN | FLAGGED
    assert store.usage(BOB) == (2 * len(CRLF), 2)


def test_flags_of_both_sides_at_once_are_all_kept(store: MessageStore, root: Path) -> None:
    uid = append(store, flags=SEEN)
    box = store.open_box(BOB, "INBOX", takes_recent=False).box
    (name,) = maildir.listing(root, "cur").values()
    (root / "cur" / name).rename(root / "cur" / name.replace(":2,S", ":2,F"))
    store.set_flags(BOB, box, [uid], FlagChange(1, DRAFT), [])  # before anybody has looked
    assert rows(store)[uid] & 31 == FLAGGED | DRAFT
    store.set_flags(BOB, box, [uid], FlagChange(1, SEEN), [])
    assert rows(store)[uid] & 31 == FLAGGED | DRAFT | SEEN
    assert next(iter(maildir.listing(root, "cur").values())).endswith(":2,DFS")


def test_nothing_is_listed_unless_another_program_changed_something(
    store: MessageStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [append(store) for _ in range(5)]
    settle(root.parent)
    rows(store)
    store.open_box(BOB, "Work", takes_recent=False)
    listed: list[Path] = []
    listing = maildir.listing
    monkeypatch.setattr(maildir, "listing", lambda folder, part: listed.append(folder) or listing(folder, part))
    box = store.open_box(BOB, "INBOX", takes_recent=False).box
    append(store)
    store.set_flags(BOB, box, uids[:2], FlagChange(1, SEEN), [])
    store.copy(BOB, box, uids[:1], "Work", moves=False)
    store.copy(BOB, box, uids[1:2], "Work", moves=True)
    store.expunge(BOB, uids[2:3])
    assert len(rows(store)) == 4
    assert len(rows(store, "Work")) == 2
    assert listed == []
    settle(root.parent)
    put(root / "cur" / "1.x.y:2,")
    assert len(rows(store)) == 5
    assert listed


def test_many_come_at_once_in_their_order(store: MessageStore, root: Path) -> None:
    for number in range(250):
        os.utime(put(root / "new" / f"{number}.x.y", b"X: %d\n\n" % number), (10.0 + number, 10.0 + number))
    for _ in range(250):  # a look takes in some, and on a slow disk few
        messages = store.snapshot(BOB)[1]
        assert [message.internal_date for message in messages] == [10.0 + number for number in range(len(messages))]
        if len(messages) == 250:
            return
    raise AssertionError(f"{len(messages)} of 250 were taken in")


def test_links_folders_and_hidden_files_are_left_alone(store: MessageStore, root: Path, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", b"not mail")
    (root / "new" / "1.x.y").symlink_to(secret)
    (root / "new" / "folder").mkdir()
    put(root / "new" / ".hidden")
    os.mkfifo(root / "cur" / "fifo")
    assert rows(store) == {}
    assert secret.read_bytes() == b"not mail"


def test_a_file_too_large_for_a_message_is_left_and_told(store: MessageStore, root: Path) -> None:
    append(store)
    settle(root.parent)
    for place in ("new/1.M1P1.host", "cur/2.M1P1.host:2,S"):
        os.truncate(put(root / place), MAX_TAKEN + 1)
    put(root / "new" / "3.M1P1.host")
    assert len(rows(store)) == 2
    found = Maintenance(root.parent.parent.parent, summarised).check(BOB, mends=True, is_deep=True)
    assert [text.partition(" could not")[0] for text in found] == [
        "INBOX: cur/2.M1P1.host:2,S", "INBOX: new/1.M1P1.host",
    ]  # fmt: skip


def test_mailboxes_of_another_program(store: MessageStore, root: Path) -> None:
    put(root / ".Caf&AOk-.2026" / "cur" / "1.x.y:2,S")
    (root / ".no&way" / "cur").mkdir(parents=True)
    boxes, subscribed = store.boxes(BOB)
    assert {"Café/2026", "Café"} <= {box.name for box in boxes}
    assert "Café/2026" in subscribed
    assert not any("way" in box.name for box in boxes)
    assert rows(store, "Café/2026") == {1: SEEN}


def test_a_folder_that_is_gone_may_come_back(store: MessageStore, root: Path) -> None:
    uids = [append(store, "Work") for _ in range(3)]
    before = rows(store, "Work")
    (root / ".Work").rename(root / ".Play")
    settle(root.parent)
    assert len(rows(store, "Play" if "Play" in {box.name for box in store.boxes(BOB)[0]} else "")) == 3
    with pytest.raises(StoreError, match="gone"):
        append(store, "Work")
    assert list(rows(store, "Work")) == uids
    (root / ".Play").rename(root / ".Work")
    settle(root.parent)
    store.boxes(BOB)
    assert len(rows(store, "Work")) == 3
    assert len(maildir.listing(root / ".Work", "cur")) == 3
    assert before


def test_no_file_goes_because_its_folder_went_and_came_back(store: MessageStore, root: Path, tmp_path: Path) -> None:
    for _ in range(5):
        append(store)
    rows(store)
    root.rename(tmp_path / "aside")
    assert len(rows(store)) == 5
    for part in ("cur", "new", "tmp"):
        (root / part).mkdir(parents=True)
    settle(root.parent)
    assert rows(store) == {}  # this is what another program did
    shutil.rmtree(root)
    (tmp_path / "aside").rename(root)
    settle(root.parent)
    assert len(rows(store)) == 5
    assert len(maildir.listing(root, "cur")) == 5


def test_a_name_that_changes_while_it_is_listed_is_no_removal(
    store: MessageStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [append(store) for _ in range(3)]
    settle(root.parent)
    rows(store)
    listing = maildir.listing
    (name, *_) = listing(root, "cur").values()

    def changing(folder: Path, part: str) -> dict[str, str]:
        """As a stranger's rename at each moment would have it."""
        found = listing(folder, part)
        if part == "cur":
            (root / "cur" / "0.stranger").touch()
            (root / "cur" / "0.stranger").unlink()
            found.pop(name.partition(":")[0], None)
        return found

    monkeypatch.setattr(maildir, "listing", changing)
    (root / "cur" / "0.other:2,").write_bytes(LF)
    for _ in range(3):
        assert set(uids) <= set(rows(store))
    monkeypatch.undo()
    settle(root.parent)
    assert set(uids) <= set(rows(store))
    assert name in maildir.listing(root, "cur").values()


def test_a_move_that_another_process_looks_at_is_one_message(
    store: MessageStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = [append(store) for _ in range(3)]
    box = store.open_box(BOB, "INBOX", takes_recent=False).box
    other = open_store(tmp_path)
    remove = MessageStore._remove_files

    def looked_at(self: MessageStore, *arguments: Any) -> None:
        put(root / "new" / "1.x.y")
        assert len(other.snapshot(BOB)[1]) == 1
        remove(self, *arguments)

    monkeypatch.setattr(MessageStore, "_remove_files", looked_at)
    store.copy(BOB, box, uids, "Work", moves=True)
    monkeypatch.undo()
    assert (len(rows(store)), len(rows(store, "Work"))) == (1, 3)
    other.close()


def test_odd_names_and_folders_shut_nobody_out(store: MessageStore, root: Path) -> None:
    append(store)
    settle(root.parent)
    rows(store)
    (name,) = maildir.listing(root, "cur").values()
    (root / "cur" / name).rename(root / "cur" / f"{name}S\udcff")
    assert [flags & 31 for flags in rows(store).values()] == [SEEN]
    assert next(iter(maildir.listing(root, "cur").values())).endswith(":2,S")
    (root / ".Odd" / "cur").mkdir(parents=True)
    (root / ".Odd" / "new").touch()
    assert "INBOX" in {box.name for box in store.boxes(BOB)[0]}


def test_a_message_restored_from_a_backup_is_there_again(store: MessageStore, root: Path) -> None:
    uid = append(store)
    (name,) = maildir.listing(root, "cur").values()
    kept = (root / "cur" / name).read_bytes()
    store.expunge(BOB, [uid])
    settle(root.parent)
    put(root / "cur" / name, kept)
    assert list(rows(store)) == [uid + 1]
    (root / "cur" / "aside").mkdir()  # listing sees the restored message once
    assert len(store.snapshot(BOB)[1]) == 1


# --- killed in the middle -----------------------------------------------------------------------------------------


def killed_at(tmp_path: Path, step: str, work: "str") -> None:
    """A child does the work and ends where that step of the index begins."""
    child = os.fork()
    if child == 0:
        try:
            store = open_store(tmp_path)
            setattr(index_room.Index, step, lambda *_: os._exit(9))
            box = store.open_box(BOB, "INBOX", takes_recent=False).box
            match work:
                case "append":
                    append(store)
                case "copy":
                    store.copy(BOB, box, [1], "Work", moves=False)
                case "delete":
                    store.delete(BOB, "Work")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize(("step", "work"), [("add", "append"), ("add_copies", "copy"), ("tell_as", "copy")])
def test_what_a_crash_left_half_done_is_no_message(
    store: MessageStore, root: Path, tmp_path: Path, step: str, work: str
) -> None:
    append(store)
    before = rows(store), rows(store, "Work")
    killed_at(tmp_path, step, work)
    folder = root / ".Work" if work == "copy" else root
    assert len(maildir.listing(folder, "cur")) == (1 if work == "copy" else 2)
    assert (rows(store), rows(store, "Work")) == before
    assert list((folder / "tmp").iterdir()) == []
    assert len(maildir.listing(folder, "cur")) == (0 if work == "copy" else 1)


def test_files_that_a_crash_kept_after_an_expunge_go(store: MessageStore, root: Path, tmp_path: Path) -> None:
    uid = append(store)
    child = os.fork()
    if child == 0:
        try:
            other = open_store(tmp_path)
            maildir.remove = lambda *_: os._exit(9)  # type: ignore[assignment]
            other.expunge(BOB, [uid])
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(maildir.listing(root, "cur")) == 1
    assert rows(store) == {}
    assert maildir.listing(root, "cur") == {}


def test_a_removal_of_a_mailbox_that_was_cut_short_is_undone_or_ended(store: MessageStore, root: Path) -> None:
    append(store, "Work")
    maildir.put_aside(root / ".Work")  # killed before the index forgot it
    store.boxes(BOB)
    assert len(rows(store, "Work")) == 1
    store.delete(BOB, "Work")
    put(root / ".Work" / "cur" / "1.x.y:2,")
    aside = maildir.put_aside(root / ".Work")  # killed after
    assert "Work" not in {box.name for box in store.boxes(BOB)[0]}
    assert not aside.exists()
