"""What looking into a message costs: a 10 kB message with a picture, and 5 MB with a zip; by part of the work.

    .venv/bin/python -m bench.content_cost [--rounds 5]

One process, no network; `way` is the exchange with another process over its socket. Times are of the processor, the
least of the rounds.
"""

import argparse
import asyncio
import base64
import io
import os
import random
import resource
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.checks.content import ContentClient
from gateway.content.inspection import inspect_parts
from gateway.content.signatures import compile_signatures
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.message.mime import walk
from gateway.policy.context import MessageFacts
from gateway.servers import content
from gateway.spam.filter import BASE_MODEL, SpamFilter
from gateway.spam.model import open_model
from gateway.spam.tokens import tokenise

CALLS = 200
WORDS = (Path(__file__).resolve().parents[1] / "README.md").read_text().split()
HEAD = (
    b"From: Ann <ann@shop.example>\r\nTo: bob@example.org\r\nSubject: Minutes\r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
    b'Message-ID: <1@shop.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
)


def message(text: int, name: str, octets: bytes) -> bytes:
    """So many octets of text, in plain and in HTML, and a file."""
    words = random.Random(1).choices(WORDS, k=text // 12)
    plain = "\r\n".join(" ".join(words[at : at + 12]) for at in range(0, len(words), 12)).encode()
    rich = b"<html><body><p>" + plain + b'</p><a href="https://www.shop.example/a/b">here</a></body></html>'
    packed = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    fields = f"Content-Type: application/octet-stream; name={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    parts = (
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + plain,
        b"Content-Type: text/html; charset=utf-8\r\n\r\n" + rich,
        fields.encode() + packed,
    )
    return HEAD + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def zipped(octets: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", os.urandom(octets))
    return out.getvalue()


def least(call: Callable[[], object], calls: int, rounds: int) -> float:
    """Milliseconds of the processor a call."""
    found = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(calls):
            call()
        found.append(1000 * (time.process_time() - started) / calls)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    scan = compile_signatures(Path("policies/yara")).scanner()
    model, judge = open_model(BASE_MODEL), SpamFilter(Path("/nonexistent")).judge
    small = message(6600, "photo.png", b"\x89PNG\r\n\x1a\n" + os.urandom(1500))
    large = message(6600, "files.zip", zipped(3_700_000))
    for name, octets, calls in (("small", small, CALLS), ("large", large, 3)):
        structure = walk(octets)
        tokens = tokenise(octets, structure.parts)
        parts = structure.parts
        figures = {
            "parts": least(partial(walk, octets), calls, rounds),
            "look and scan": least(partial(inspect_parts, octets, structure, scan), calls, rounds),
            "tokens": least(partial(tokenise, octets, parts), calls, rounds),
            "model": least(partial(model.probability, tokens), calls, rounds),
            "filter": least(partial(judge, octets, parts), calls, rounds),
        }
        told = ", ".join(f"{part} {figure:.2f} ms" for part, figure in figures.items())
        print(f"{name}, {len(octets)} octets: {told}")
    print("way and all of it, small:", _way(small, rounds))
    print("memory of this process:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MB at most")


def _way(octets: bytes, rounds: int) -> str:
    """Of the client's process, and of that which looks."""
    listener, rules = content.listen(), compile_signatures(Path("policies/yara"))
    alive, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        content.serve(listener, alive, rules, SpamFilter(Path("/nonexistent")).judge, lambda: False)
        os._exit(0)

    async def ask() -> float:
        client = ContentClient(listener.getsockname())
        started = time.process_time()
        for _ in range(CALLS):
            await client.look(MessageFacts(MemoryBlob(octets), False, parse_header(octets)))
        return 1000 * (time.process_time() - started) / CALLS

    own, other = [], []
    for _ in range(rounds):
        before = _cpu(pid)
        own.append(asyncio.run(ask()))
        other.append(1000 * (_cpu(pid) - before) / CALLS)
    os.close(end)
    os.waitpid(pid, 0)
    return f"client {min(own):.2f} ms, content {min(other):.2f} ms"


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
