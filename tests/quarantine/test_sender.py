"""Digests: everybody hears of all that is theirs, once, whatever happens to the others'."""

import threading

import pytest

from gateway.core.errors import StorageFull
from gateway.queue.store import NewMessage
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from tests.quarantine.world import ALICE, BOB, World


def test_each_is_told_once_in_one_digest(world: World) -> None:
    world.put(ALICE, BOB)
    world.put("Alice+tag@example.org")
    assert world.sender().send() == 2
    assert sorted(world.digests()) == [ALICE, BOB]
    assert world.sender().send() == 0


def test_one_alone_can_be_told(world: World) -> None:
    world.put(ALICE, BOB)
    assert world.sender().send("ALICE@example.org") == 1
    assert world.digests() == [ALICE]


def test_an_odd_recipient_does_not_silence_the_others(world: World) -> None:
    """In lower case it has more than the octets that an address may have."""
    world.put()
    world.put("\u0130" * 120 + "@relay.test")
    assert world.sender().send_if_due() == 2
    assert world.failures == []


def test_mailboxes_of_others_are_told_apart_by_case(world: World) -> None:
    world.put("Bob@relay.test")
    world.put("bob@relay.test")
    assert world.sender().send() == 2
    assert sorted(world.digests()) == ["Bob@relay.test", "bob@relay.test"]


def test_recipients_elsewhere_are_told_nothing(world: World) -> None:
    world.put("somebody@elsewhere.test")
    assert world.sender().send() == 0
    assert world.digests() == []


def test_who_has_mail_handed_on_is_told_where_it_goes(world: World) -> None:
    world.put("carol@elsewhere.test")
    world.sql("UPDATE recipient SET orcpt = 'rfc822;carol@example.org'")
    assert world.sender().send() == 1
    assert world.digests() == ["carol@elsewhere.test"]


def test_a_clock_that_was_wrong_once_stops_nothing(world: World) -> None:
    now = world.clock.now()
    world.clock.at = now + 3650 * 86400
    assert world.sender().send_if_due() == 0
    world.clock.at = now
    world.put()
    assert world.sender().send_if_due() == 1


def test_a_day_has_one_digest(world: World) -> None:
    world.put()
    assert world.sender().send_if_due() == 1
    world.put()
    assert world.sender().send_if_due() == 0
    world.clock.advance(86400)
    assert world.sender().send_if_due() == 1


def test_two_who_send_at_once_tell_once(world: World) -> None:
    for number in range(30):
        world.put(f"u{number}@relay.test")
    stores = [SqliteQuarantine(world.path, world.spool) for _ in range(2)]
    counts = [0, 0]

    def send(which: int) -> None:
        counts[which] = world.sender(stores[which]).send()

    threads = [threading.Thread(target=send, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert sum(counts) == 30
    assert len(world.digests()) == 30


def test_a_row_that_is_anothers_by_now_is_not_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.put()
    tell = world.store.tell

    def tell_late(*arguments: object) -> bool:
        world.delete(first)
        world.put(BOB)
        return tell(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "tell", tell_late)
    assert world.sender().send() == 0
    monkeypatch.undo()
    assert world.sender().send() == 1
    assert world.digests() == [BOB]


def test_what_cannot_be_read_now_is_told_later(world: World) -> None:
    world.put()
    world.sql("UPDATE message SET body = 'ODD'")
    assert world.sender().send() == 0
    world.sql("UPDATE message SET body = ''")
    assert world.sender().send() == 1


def test_where_it_was_broken_off_it_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        world.put(f"u{number}@relay.test")
    tell, calls = world.store.tell, []

    def tell_twice(rows: object, digest: NewMessage | None) -> bool:
        calls.append(rows)
        if len(calls) == 2:
            raise StorageFull("the disk is full")
        return tell(rows, digest)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "tell", tell_twice)
    with pytest.raises(StorageFull):
        world.sender().send_if_due()
    assert world.sender().send_if_due() == 4
    assert len(world.digests()) == 5


def test_copies_of_what_was_refused_are_in_no_digest(world: World) -> None:
    world.put()
    world.sql("UPDATE message SET info = json_set(info, '$.refused', 'yes')")
    assert world.sender().send() == 0
