"""Sessions that see the same have it together, and never see what another was told."""

import asyncio
import gc
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

from gateway.core.mailflags import FLAGGED, SEEN
from gateway.imap.numbers import Numbers, Together
from gateway.imap.view import View
from gateway.mailbox.rows import Rows
from gateway.mailbox.store import OpenedBox
from gateway.mailbox.values import Box, Changes
from tests.support.imapsessions import Talk, literal, store_server

BOX = Box(1, "INBOX", 1, 1, 1, "", 1)


def numbers(*uids: int) -> Numbers:
    return Numbers(array("I", uids), array("q", [0] * len(uids)), array("q", [1] * len(uids)), is_shared=False)


def seen_by(view: View) -> list[tuple[int, int, int]]:
    return list(zip(view.uids, view.flags, view.modseqs, strict=True))


def test_only_what_is_the_same_is_had_together() -> None:
    together, first = Together(), numbers(1, 2, 3)
    assert together.join("a", first, 5) is first
    assert together.join("a", numbers(1, 2, 3), 5) is first
    assert together.join("b", numbers(1, 2, 3), 5) is not first
    older, newer = numbers(1, 2), numbers(1, 2, 3, 4)
    assert together.join("a", older, 4) is older
    assert together.join("a", numbers(1, 2, 3), 6) is first, "an older one does not take the place of a newer one"
    assert together.join("a", newer, 7) is newer
    assert together.join("a", numbers(1, 2, 3, 4), 7) is newer
    for one in (first, newer):
        assert one.own() is not one
        one.own().uids.append(9)
    assert list(newer.uids) == [1, 2, 3, 4]


def test_what_nobody_has_any_more_is_not_kept() -> None:
    together = Together()
    together.join("a", numbers(1), 1)
    gc.collect()
    other = numbers(1)
    assert together.join("a", other, 1) is other


def test_views_that_take_and_tell_at_different_times_each_stay_true() -> None:
    """Each against a model of its own, while all join whenever they like."""
    for seed in range(200):
        chance = random.Random(seed)
        rows, together = Rows(), Together()
        rows.apply(Changes(1, 11, rows=[(uid, 0, 1) for uid in range(1, 11)]))
        views = [View(OpenedBox(BOX, rows.shared(), 11, {}), is_read_only=False) for _ in range(4)]
        models = [seen_by(view) for view in views]
        history: list[Changes] = []
        for modseq in range(2, 30):
            history.append(change(chance, rows, modseq))
            rows.apply(history[-1])
            for at, view in enumerate(views):
                if chance.random() < 0.6:
                    news = [each for each in history if each.modseq > view.modseq]
                    for each in news:
                        view.take(each, 1)
                        models[at] = taken(models[at], each.rows)
                    gone = {uid for each in history if each.modseq <= view.modseq for uid in each.vanished}
                    if chance.random() < 0.5:
                        view.tell(with_expunges=True, with_modseq=False, as_vanished=False)
                        models[at] = [row for row in models[at] if row[0] not in gone]
                if chance.random() < 0.7:
                    view.join(together, "a")
                assert [seen_by(each) for each in views] == models


def change(chance: random.Random, rows: Rows, modseq: int) -> Changes:
    uids = list(rows.uids)
    kind = chance.randrange(3)
    if kind == 0 or not uids:
        return Changes(modseq, rows.uidnext + 1, rows=[(rows.uidnext, 0, modseq)])
    if kind == 1:
        return Changes(modseq, rows.uidnext, rows=[(chance.choice(uids), chance.choice((SEEN, FLAGGED)), modseq)])
    return Changes(modseq, rows.uidnext, vanished=[chance.choice(uids)])


def taken(model: Sequence[tuple[int, int, int]], rows: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    found = {row[0]: row for row in model}
    top = max(found, default=0)
    found |= {row[0]: row for row in rows if row[0] in found or row[0] > top}
    return [found[uid] for uid in sorted(found)]


def test_sessions_in_idle_have_their_numbers_once(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        talks = [Talk(server) for _ in range(5)]
        await talks[0].run(b"APPEND INBOX " + literal(b"A: b\r\n\r\nx\r\n"))
        for talk in talks:
            await talk.run("SELECT INBOX")
            await talk.news()
        await talks[0].run(b"APPEND INBOX " + literal(b"A: b\r\n\r\nx\r\n"))
        await talks[0].run("STORE 1 +FLAGS (\\Deleted)")
        await talks[0].run("EXPUNGE")
        for talk in talks[1:4]:
            assert b"* 1 EXPUNGE" in await talk.news()
        held = [talk.session._view for talk in talks]
        assert all(view is not None for view in held)
        assert len({id(view.uids) for view in held[1:4] if view is not None}) == 1
        assert len(held[4] or ()) == 1, "it was not told yet"
        assert b"* 1 EXPUNGE" in await talks[4].news()
        server.store.close()

    asyncio.run(run())
