"""The role that teaches the spam filter what users have said: beside all others, at low priority, a batch at a time."""

import asyncio
import os
import select
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress

from gateway.checks.engines import Engine, EngineError
from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.role_checks import spam_engines
from gateway.spam.corpus import MAX_MESSAGE, tokens_of
from gateway.spam.lesson_spool import LessonSpool, Waiting
from gateway.spam.lessons import Lessons, Outcome, digest_of
from gateway.storage.sqlite_spam import SqliteLessons
from gateway.telemetry import log

LOOK_S = 5.0
BATCH = 100
NICE = 10

_log = log.get("lessons")


def serve_lessons(config: Config, alive: int) -> None:
    """Until the supervisor is gone, or wants this to end or to begin anew."""
    os.nice(NICE)
    stopped_read, stopped_write = os.pipe2(os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os.write(stopped_write, b"t"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spool = LessonSpool(config.data / "lessons")
    while not select.select([alive, stopped_read], [], [], LOOK_S)[0]:
        found = spool.waiting(BATCH)
        if found:
            try:
                learn(config, found)
            except (OSError, sqlite3.Error, ConfigError) as error:
                _log.error("lessons not learnt", waiting=len(found), exc_info=error)


def learn(config: Config, found: Sequence[Waiting]) -> dict[Outcome, int]:
    """Once learnt they are not kept. Raises OSError, sqlite3.Error, ConfigError."""
    messages = []
    for each in found:
        with suppress(FileNotFoundError), each.path.open("rb") as file:
            messages.append((file.read(MAX_MESSAGE), each.is_spam))
    counts = dict.fromkeys(Outcome, 0)
    with closing(SqliteLessons(config.data / "spam.db")) as store:
        lessons = Lessons(store, config.data / "spam.model")
        lessons.expire(time.time() - config.checks.spam.keep)
        for octets, is_spam in messages:
            outcome = lessons.learn(digest_of(octets), tokens_of(octets), is_spam=is_spam, at=time.time())
            counts[outcome] += 1
        lessons.save()
    for each in found:
        each.path.unlink(missing_ok=True)
    asyncio.run(_teach_others(spam_engines(config), messages))
    _log.info("lessons of users", **{outcome.value: count for outcome, count in counts.items() if count})
    return counts


async def _teach_others(engines: Sequence[Engine], messages: Sequence[tuple[bytes, bool]]) -> None:
    """Engines beside the embedded one; what one of them refuses is told, and it is asked no more."""
    for engine in engines:
        try:
            for octets, is_spam in messages:
                await engine.learn(octets, is_spam=is_spam)
        except EngineError as error:
            _log.warning("an engine did not learn", engine=engine.name, reason=str(error))
        finally:
            await engine.close()
