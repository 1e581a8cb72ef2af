"""Several sessions on one mailbox: each is told all that the others did, in numbers that are true when they are told.

Each client keeps what RFC 3501 lets it keep: it applies EXISTS, EXPUNGE and FETCH as they come, and knows nothing else.
"""

import asyncio
import random
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.support.imapsessions import Talk, literal, store_server

FLAGS = ["\\Seen", "\\Flagged", "\\Answered", "kw1", "KW2"]
_FETCH = re.compile(rb"^\* (\d+) FETCH \(([^\r\n]*)\)\r\n", re.MULTILINE)
_LINES = re.compile(rb"^\* (?:(\d+) (EXISTS|EXPUNGE|FETCH)([^\r\n]*)|(VANISHED) ([\d,:]+))\r\n", re.MULTILINE)


class Client:
    """rows: what it believes, UID (None: not asked for yet) and flags of each message by number."""

    def __init__(self, talk: Talk, *, knows_vanished: bool) -> None:
        self.talk = talk
        self.rows: list[tuple[int | None, frozenset[str] | None]] = []
        self._knows_vanished = knows_vanished

    async def open(self) -> None:
        if self._knows_vanished:
            await self.talk.run("ENABLE QRESYNC")
        await self.say("SELECT INBOX")
        await self.learn()

    async def learn(self) -> None:
        if self.rows:
            await self.say("FETCH 1:* (UID FLAGS)")

    async def say(self, command: str | bytes) -> bytes:
        answer = await self.talk.run(command)
        self.hear(answer)
        verdict = answer.splitlines()[-1]
        assert verdict.startswith(b"t OK") or b"EXPUNGEISSUED" in verdict, (command, answer[-500:])
        await self.ask_uids()
        return answer

    async def ask_uids(self) -> None:
        """Who is told of what has gone by UID has to know the UIDs (RFC 7162 3.2.10.2)."""
        if self._knows_vanished and any(uid is None for uid, _ in self.rows):
            await self.say("FETCH 1:* (UID FLAGS)")

    def hear(self, answer: bytes) -> None:
        for match in _LINES.finditer(answer):
            number, what = int(match[1] or 0), match[2]
            if match[4]:
                for uid in _numbers(match[5]):
                    (at,) = [at for at, row in enumerate(self.rows) if row[0] == uid]
                    del self.rows[at]
            elif what == b"EXISTS":
                assert number >= len(self.rows), "EXISTS never says fewer"
                self.rows += [(None, None)] * (number - len(self.rows))
            elif what == b"EXPUNGE":
                assert not self._knows_vanished
                del self.rows[number - 1]
            else:
                uid, flags = self.rows[number - 1]
                found = re.search(rb"UID (\d+)", match[3])
                if found is not None:
                    assert uid in (None, int(found[1])), "a number is another message's"
                    uid = int(found[1])
                told = re.search(rb"FLAGS \(([^)]*)\)", match[3])
                if told is not None:
                    flags = frozenset(told[1].decode().lower().split()) - {"\\recent"}
                self.rows[number - 1] = (uid, flags)

    async def act(self, chance: random.Random) -> None:
        number = chance.randint(1, max(1, len(self.rows)))
        flag, sign = chance.choice(FLAGS), chance.choice(["+", "-", ""])
        kind = chance.randrange(9)
        if kind == 0 or not self.rows:
            await self.say(b"APPEND INBOX (%b) " % flag.encode() + literal(b"Subject: x\r\n\r\nbody\r\n"))
        elif kind == 1:
            await self.say(f"STORE {number} {sign}FLAGS ({flag})")
        elif kind == 2:
            await self.say(f"STORE {number}:* {sign}FLAGS.SILENT ({flag})")
            self.believe(range(number - 1, len(self.rows)), sign, flag)
        elif kind == 3:
            await self.say(f"STORE {number} +FLAGS (\\Deleted)")
        elif kind == 4:
            await self.say("EXPUNGE")
        elif kind == 5:
            await self.say("NOOP")
        elif kind == 6:
            await self.say(f"FETCH {number} (UID FLAGS BODY[TEXT])")
        elif kind == 7:
            await self.say("UID SEARCH UNSEEN")
        else:
            self.hear(await self.talk.news())
            await self.ask_uids()

    def believe(self, places: range, sign: str, flag: str) -> None:
        """What a client thinks after a silent STORE, unless it was told otherwise meanwhile: that is tried below."""
        for at in places:
            uid, _ = self.rows[at] if at < len(self.rows) else (None, None)
            if at < len(self.rows):
                self.rows[at] = (uid, None)


def _numbers(text: bytes) -> list[int]:
    found: list[int] = []
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


async def together(folder: Path, seed: int, steps: int, sessions: int = 6) -> None:
    chance = random.Random(seed)
    server = store_server(folder)
    clients = [Client(Talk(server), knows_vanished=number % 3 == 2) for number in range(sessions)]
    for client in clients:
        await client.open()

    async def live(client: Client, own: random.Random) -> None:
        for _ in range(steps):
            await client.act(own)
            await client.learn() if own.random() < 0.2 else None
            await asyncio.sleep(0)

    await asyncio.gather(*(live(client, random.Random(chance.random())) for client in clients))
    for client in clients:
        await client.say("NOOP")
    truth = Client(Talk(server), knows_vanished=False)
    await truth.open()
    for client in clients:
        assert len(client.rows) == len(truth.rows)
        for (uid, flags), (true_uid, true_flags) in zip(client.rows, truth.rows, strict=True):
            assert uid in (None, true_uid)
            assert flags in (None, true_flags), (true_uid, client.talk is clients[0].talk)
        await client.learn()
        assert client.rows == truth.rows
    server.store.close()
    server.pool.shutdown()


@pytest.mark.parametrize("seed", range(6))
def test_sessions_that_do_anything_at_once_end_with_one_view(tmp_path: Path, seed: int) -> None:
    asyncio.run(together(tmp_path, seed, 60))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_sessions_that_do_anything_for_five_minutes(tmp_path: Path) -> None:
    until, seed = time.monotonic() + 300, 100
    while time.monotonic() < until:
        (tmp_path / str(seed)).mkdir()
        asyncio.run(together(tmp_path / str(seed), seed, 250, 10))
        shutil.rmtree(tmp_path / str(seed))
        seed += 1
    assert seed > 105


def test_a_silent_store_does_not_hide_what_another_session_did(tmp_path: Path) -> None:
    async def run() -> None:
        server = store_server(tmp_path)
        one, two = Talk(server), Talk(server)
        await one.run(b"APPEND INBOX " + literal(b"A: b\r\n\r\nx\r\n"))
        for talk in (one, two):
            await talk.run("SELECT INBOX")
        await two.run("STORE 1 +FLAGS (\\Flagged)")
        answer = await one.run("STORE 1 +FLAGS.SILENT (\\Seen)")
        assert b"* 1 FETCH (FLAGS (\\Flagged \\Seen" in answer
        answer = await one.run("STORE 1 +FLAGS.SILENT (\\Answered)")
        assert b"FETCH" not in answer
        server.store.close()

    asyncio.run(run())
