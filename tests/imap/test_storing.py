"""STORE of flags that are there already: answered as any other, and no work for the store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.imapsessions import Talk, literal, store_server


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    server = store_server(tmp_path)
    opened = Talk(server)
    for flags in ("\\Seen", "\\Seen \\Flagged", "\\Flagged kw", ""):
        opened.ask(f"APPEND INBOX ({flags}) ".encode() + literal(b"A: b\r\n\r\nx\r\n"))
    opened.ask("SELECT INBOX")
    yield opened
    server.store.close()


def asked(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """UIDs that the store is asked to change from now on."""
    account, found = talk.session._account, list[list[int]]()
    set_flags = account.set_flags

    async def noted(box, uids, how, flags, since):  # type: ignore[no-untyped-def]  # as the port has it
        found.append(list(uids))
        return await set_flags(box, uids, how, flags, since)

    monkeypatch.setattr(account, "set_flags", noted)
    return found


@pytest.mark.parametrize(
    ("wish", "uids"),
    [
        ("+FLAGS (\\Flagged)", [[1, 4]]),
        ("-FLAGS (\\Flagged)", [[2, 3]]),
        ("-FLAGS (\\Flagged \\Seen)", [[1, 2, 3]]),
        ("+FLAGS (\\Flagged \\Seen)", [[1, 3, 4]]),
        ("FLAGS (\\Flagged KW)", [[1, 2, 4]]),
        ("FLAGS ()", [[1, 2, 3]]),
        ("+FLAGS (KW)", [[1, 2, 4]]),
        ("-FLAGS (new)", []),
        ("+FLAGS (new)", [[1, 2, 3, 4]]),
        ("-FLAGS (\\Draft)", []),
    ],
)
def test_only_what_changes_is_asked_for_and_the_second_time_nothing(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, wish: str, uids: list[list[int]]
) -> None:
    found = asked(talk, monkeypatch)
    first = talk.ask(f"STORE 1:4 {wish}")
    assert found == uids
    assert first.count(b" FETCH (FLAGS (") == 4
    again = talk.ask(f"STORE 1:4 {wish}")
    assert found == uids
    assert again == first[first.index(b"* 1 FETCH") :]
    assert again.endswith(b"t OK Stored\r\n")
    assert talk.ask(f"STORE 1:4 {wish.replace('FLAGS', 'FLAGS.SILENT')}") == b"t OK Stored\r\n"


def test_with_condstore_the_store_says_who_changed(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(talk, monkeypatch)
    answer = talk.ask("STORE 1:2 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)")
    assert found == [[1, 2]]
    assert b"t OK [MODIFIED 1:2]" in answer
    assert talk.ask("STORE 1 +FLAGS.SILENT (\\Seen)").startswith(b"* 1 FETCH (UID 1 MODSEQ (")
    assert found == [[1, 2]]


def test_what_others_changed_meanwhile_counts(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        await one.run(b"APPEND INBOX (\\Seen) " + literal(b"A: b\r\n\r\nx\r\n"))
        await one.run("SELECT INBOX")
        await two.run("SELECT INBOX")
        await two.run("STORE 1 -FLAGS (\\Seen)")
        assert await one.run("STORE 1 +FLAGS (\\Seen)") == b"* 1 FETCH (FLAGS (\\Seen \\Recent))\r\nt OK Stored\r\n"
        assert b"FLAGS (\\Seen)" in await two.run("NOOP")
        await two.run("STORE 1 +FLAGS (\\Flagged)")
        silent = await one.run("STORE 1 +FLAGS.SILENT (\\Seen)")  # nothing of it changes, and the client has not heard
        assert silent == b"* 1 FETCH (FLAGS (\\Flagged \\Seen \\Recent))\r\nt OK Stored\r\n"
        server.store.close()

    asyncio.run(run())
