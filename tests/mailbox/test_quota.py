"""Limits of accounts: who may still store what, who is told, and what frees room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.mailflags import DELETED
from gateway.mailbox.quota import OverQuota, used
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import FlagChange
from gateway.servers.summarised import open_store

GINA = "gina@example.org"
LIMIT = 10_000


class Quotas:
    def __init__(self) -> None:
        self.limits = {GINA: LIMIT}

    def limit(self, account: str) -> int:
        return self.limits.get(account, 0)

    def warning(self, account: str, used: int, limit: int) -> bytes:
        return b"Subject: warning %d of %d\r\n\r\n" % (used, limit)


@pytest.fixture
def quotas() -> Quotas:
    return Quotas()


@pytest.fixture
def store(tmp_path: Path, quotas: Quotas) -> Iterator[MessageStore]:
    opened = open_store(tmp_path, quotas)
    yield opened
    opened.close()


def message(size: int) -> bytes:
    return b"A: b\r\n\r\n" + b"x" * (size - 8)


def append(store: MessageStore, size: int, account: str = GINA) -> int:
    return store.append(account, "INBOX", [message(size)], 0, [], 0.0)[1]


def deliver(store: MessageStore, size: int, name: str) -> bool:
    return store.deliver(GINA, lambda: [message(size)], name, 0.0)


def warnings(store: MessageStore) -> int:
    box = store.open_box(GINA, "INBOX", takes_recent=False)
    details = store.reading.details(GINA, box.box, list(box.rows.uids)).found
    return sum(found.header.startswith(b"Subject: warning") for found in details.values())


def test_a_user_s_own_copies_end_at_the_limit(store: MessageStore, tmp_path: Path) -> None:
    first = append(store, 4000)
    append(store, 3000)
    before = store.usage(GINA)
    assert before == (7000, 2)
    with pytest.raises(OverQuota):
        append(store, 3001)
    box = store.open_box(GINA, "INBOX", takes_recent=False).box
    with pytest.raises(OverQuota):
        store.copy(GINA, box, [first], "Sent", moves=False)
    assert store.usage(GINA) == before
    assert list((tmp_path / "example.org" / "gina" / "Maildir" / "tmp").iterdir()) == []
    assert store.copy(GINA, box, [first], "Trash", moves=True)[1]  # what moves takes no room
    assert append(store, 3000)
    assert used(tmp_path, GINA) == store.usage(GINA)[0]


def test_a_delivery_may_go_a_little_beyond(store: MessageStore) -> None:
    assert deliver(store, 7900, "d1")
    assert deliver(store, 3000, "d2")
    with pytest.raises(OverQuota):
        deliver(store, 300, "d3")
    box = store.open_box(GINA, "INBOX", takes_recent=False).box
    store.expunge(GINA, [1])
    assert deliver(store, 300, "d3")
    assert not deliver(store, 300, "d3")
    assert box.name == "INBOX"


def test_the_user_is_told_once_at_each_level_and_again_after_a_fall(store: MessageStore) -> None:
    deliver(store, 7900, "d1")
    assert warnings(store) == 0
    deliver(store, 200, "d2")
    assert warnings(store) == 1
    append(store, 200)
    assert warnings(store) == 1
    deliver(store, 1500, "d3")
    assert warnings(store) == 2
    assert store.expunge(GINA, [1]) == 1
    append(store, 10)
    assert warnings(store) == 2
    append(store, 7000)
    assert warnings(store) == 3


def test_limits_are_of_accounts(store: MessageStore, quotas: Quotas) -> None:
    other = "henry@example.org"
    append(store, 20_000, other)
    assert store.usage(other) == (20_000, 1)
    quotas.limits[GINA] = 0
    append(store, 20_000)
    quotas.limits[GINA] = 5
    with pytest.raises(OverQuota):
        append(store, 10)
    box = store.open_box(GINA, "INBOX", takes_recent=False)
    store.set_flags(GINA, box.box, list(box.rows.uids), FlagChange(1, DELETED), [])
    assert store.expunge_deleted(GINA, box.box) == 1
    assert used(Path("/nowhere"), GINA) == 0
