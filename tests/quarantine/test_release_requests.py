"""Releases: scanned, marked, and of the message that was asked for, whatever happens meanwhile."""

import asyncio
import threading

import pytest

from gateway.core.errors import StorageFull
from gateway.policy.context import MessageFacts
from gateway.quarantine.links import LinkAction, Opened, Stale
from gateway.quarantine.release import ReleaseSettings, Scanned
from gateway.quarantine.store import BY_RECIPIENT
from tests.quarantine.world import ALICE, BOB, CAREFUL, World


async def clean(message: MessageFacts) -> Scanned:
    return Scanned()


async def infected(message: MessageFacts) -> Scanned:
    return Scanned("EICAR")


async def partial(message: MessageFacts) -> Scanned:
    return Scanned(is_partial=True)


async def down(message: MessageFacts) -> Scanned:
    raise OSError("nobody answers")


def settle(world: World, scan: object, settings: ReleaseSettings = CAREFUL) -> list[str]:
    """The results."""

    async def story() -> None:
        releaser = world.releaser(scan, settings)  # type: ignore[arg-type]
        await releaser.take()
        await releaser.settle_all()

    asyncio.run(story())
    return [result for _, result, _ in world.seen.results]


def test_what_is_clean_goes_and_says_so(world: World) -> None:
    queue_id = world.put(ALICE, BOB)
    world.ask(queue_id)
    assert settle(world, clean) == ["released"]
    assert world.released() == [ALICE, BOB]
    ((header, info),) = world.sql("SELECT header, info FROM message")
    assert isinstance(header, bytes)
    assert header.startswith(b"X-Smarthost-Released: " + queue_id.encode() + b" by postmaster at gw.test; ")
    assert isinstance(info, str)
    assert "kept_by" not in info
    assert "self_release" not in info
    assert world.sql("SELECT * FROM release") == []


@pytest.mark.parametrize(
    ("scan", "by", "is_despite", "fails_open", "result"),
    [
        (infected, "postmaster", False, False, "refused"),
        (infected, "postmaster", True, False, "released"),
        (infected, BY_RECIPIENT, False, True, "refused"),
        (partial, BY_RECIPIENT, False, False, "refused"),
        (partial, "postmaster", False, False, "released"),
        (down, "postmaster", False, False, "waiting"),
        (down, "postmaster", True, False, "released"),
        (down, BY_RECIPIENT, False, True, "released"),
    ],
)
def test_who_may_have_what(
    world: World, scan: object, by: str, is_despite: bool, fails_open: bool, result: str
) -> None:
    world.ask(world.put(), by, is_despite=is_despite)
    assert settle(world, scan, ReleaseSettings(fails_open)) == [result]
    assert world.released() == ([ALICE] if result == "released" else [])
    assert len(world.sql("SELECT * FROM release")) == (result == "waiting")


def test_a_row_that_is_anothers_by_now_is_not_released(world: World) -> None:
    first = world.put()
    world.ask(first)

    async def slow(message: MessageFacts) -> Scanned:
        await asyncio.to_thread(world.delete, first)
        await asyncio.to_thread(world.put, BOB, subject="EICAR")
        return Scanned()

    assert settle(world, slow) == []
    assert world.released() == []
    ((state,),) = world.sql("SELECT state FROM recipient")
    assert state == 4


def test_a_scan_that_hangs_keeps_nobody_waiting(world: World) -> None:
    hanging = world.put(subject="hang")
    other = world.put(BOB)

    async def scan(message: MessageFacts) -> Scanned:
        if b"hang" in message.blob.head(999):
            await asyncio.sleep(99)
        return Scanned()

    async def story() -> None:
        releaser = world.releaser(scan)
        world.ask(hanging)
        task = asyncio.create_task(releaser.run())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(world.ask, other)
        async with asyncio.timeout(10):
            while not world.seen.results:
                await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(story())
    assert world.seen.results == [(other, "released", "")]


def test_what_fails_here_is_tried_again_later_and_not_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*arguments: object) -> bool:
        raise StorageFull("the disk is full")

    world.ask(world.put())
    monkeypatch.setattr(world.queue, "readmit", full)
    assert settle(world, clean) == ["waiting"]
    assert settle(world, clean) == ["waiting"]
    assert len(world.seen.errors) == 1
    monkeypatch.undo()
    world.sql("UPDATE release SET due = 0")
    assert settle(world, clean) == ["waiting", "released"]


def test_what_the_operator_asks_meanwhile_is_not_lost(world: World) -> None:
    queue_id = world.put()
    world.ask(queue_id, BY_RECIPIENT)

    async def scan(message: MessageFacts) -> Scanned:
        if not world.seen.results:
            await asyncio.to_thread(world.ask, queue_id, is_despite=True)
        return Scanned("EICAR")

    assert settle(world, scan) == ["refused"]
    assert settle(world, scan) == ["refused", "released"]


def test_a_link_does_not_undo_what_the_operator_asked(world: World) -> None:
    queue_id = world.put()
    world.ask(queue_id, is_despite=True)
    assert isinstance(world.link_desk.act(world.token(LinkAction.RELEASE, queue_id)), Opened)
    (request,) = world.store.requests(10)
    assert (request.by, request.is_despite) == ("postmaster", True)


def test_who_presses_twice_at_once_releases_once(world: World) -> None:
    token = world.token(LinkAction.RELEASE, world.put())
    found: list[Opened | Stale] = []
    threads = [threading.Thread(target=lambda: found.append(world.link_desk.act(token))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Opened) for each in found) == 1
    assert len(world.store.requests(10)) == 1


def test_a_link_for_what_only_the_postmaster_releases_does_nothing(world: World) -> None:
    token = world.token(LinkAction.RELEASE, world.put(is_self_released=False))
    assert world.link_desk.act(token) is Stale.GONE
    assert world.store.requests(10) == []


def test_a_block_that_failed_can_be_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.token(LinkAction.BLOCK, world.put())

    def broken(*arguments: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(world.choices, "block", broken)
    with pytest.raises(StorageFull):
        world.link_desk.act(token)
    monkeypatch.undo()
    assert isinstance(world.link_desk.act(token), Opened)
    assert world.link_desk.act(token) is Stale.USED
