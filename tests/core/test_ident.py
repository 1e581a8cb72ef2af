"""Ids: sixteen letters that sort by time."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from gateway.core.ident import LENGTH, new_id

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def milliseconds(name: str) -> int:
    number = 0
    for char in name:
        number = number * 32 + ALPHABET.index(char)
    return number >> 35


def test_ids_differ_and_carry_the_time() -> None:
    before = time.time_ns() // 1_000_000
    names = [new_id() for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert len(set(names)) == 2000
    assert all(len(name) == LENGTH and set(name) <= set(ALPHABET) for name in names)
    assert all(before <= milliseconds(name) <= after for name in names)
    times = [milliseconds(name) for name in names]
    assert times == sorted(times)


def test_threads_and_forked_processes_never_make_the_same_id() -> None:
    new_id()  # a stock is there
    reader, writer = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            os.write(writer, "".join(new_id() for _ in range(200)).encode())
            os._exit(0)
        os.wait()
    os.close(writer)
    text = b"".join(iter(lambda: os.read(reader, 65536), b"")).decode()
    os.close(reader)
    names = [text[at : at + LENGTH] for at in range(0, len(text), LENGTH)]
    names += [new_id() for _ in range(200)]
    with ThreadPoolExecutor(4) as pool:
        names += [name for found in pool.map(lambda _: [new_id() for _ in range(2000)], range(4)) for name in found]
    assert len(names) == 600 + 8000
    # The random part alone: the time would hide that it is shared.
    randoms = [int("".join(f"{ALPHABET.index(char):05b}" for char in name), 2) & (1 << 35) - 1 for name in names]
    assert len(set(randoms)) > len(names) - 5  # 8,600 of 2**35: a pair by chance once in a thousand runs
