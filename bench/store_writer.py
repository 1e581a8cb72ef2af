"""Writes into our store from a process of its own, under the gateway's user, as the queue's role does.

    .venv/bin/python -m bench.store_writer FOLDER USER

FOLDER holds `DOMAIN/LOCAL`. Commands come on standard input, one JSON object a line; each is answered by one.
"""

import json
import os
import pwd
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from bench.messages import date_of, is_seen, message
from gateway.core.mailflags import SEEN
from gateway.mailbox.store import MessageStore
from gateway.servers.summarised import open_store

_NUMBERS = count(1)


def fill(store: MessageStore, account: str, first: int, end: int) -> None:
    """Not durably: a crash of the machine would take the benchmark with it."""
    sync, os.fsync = os.fsync, lambda fd: None
    try:
        for number in range(first, end):
            flags = SEEN if is_seen(number) else 0
            store.append(account, "INBOX", [message(number)], flags, (), date_of(number).timestamp())
    finally:
        os.fsync = sync


def deliver(store: MessageStore, account: str, messages: int, threads: int, size: int) -> tuple[float, float]:
    """Seconds until the last one is stored durably, and of the processor. Made before the clock starts."""
    made = [message(number, size) for number in range(messages)]
    run = f"{time.time_ns()}"

    def some(first: int) -> None:
        for at in range(first, messages, threads):
            pieces = _pieces(made[at])
            store.deliver(account, lambda pieces=pieces: pieces, f"{run}.{next(_NUMBERS)}", time.time())  # type: ignore[misc]  # bound early

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(int, range(threads)))  # threads are there
        started, cpu = time.perf_counter(), time.process_time()
        list(pool.map(some, range(threads)))
        return time.perf_counter() - started, time.process_time() - cpu


def _pieces(octets: bytes) -> Iterator[bytes]:
    yield b"Return-Path: <sender@elsewhere.test>\r\nDelivered-To: alice@example.org\r\n"
    yield octets


def main(folder: Path, user: str) -> None:
    store = open_store(folder)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    for line in sys.stdin:
        wish = json.loads(line)
        answer: dict[str, float] = {}
        match wish.pop("do"):
            case "fill":
                fill(store, **wish)
            case "deliver":
                answer["seconds"], answer["cpu"] = deliver(store, **wish)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
