"""What sender authentication costs: SPF, DKIM, ARC and DMARC of a 10 kB message whose DNS is at hand, a signature, a
seal, and a body of 10 MB.

    .venv/bin/python -m bench.senderauth_cost [--rounds 5]

One process, no network. Times are of the processor, the least of the rounds.
"""

import argparse
import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.message.blob import Blob, FileBlob, MemoryBlob
from gateway.message.header import parse_header
from gateway.queue.seals import signatures_of
from gateway.senderauth.arc import verify_arc
from gateway.senderauth.bodyhash import BodyHashes
from gateway.senderauth.dkim import verify_dkim
from gateway.senderauth.dmarc import evaluate_dmarc
from gateway.senderauth.sealing import arc_fields
from gateway.senderauth.signing import SigningKey, new_private_key
from gateway.senderauth.spf import check_spf
from tests.support.fakes import FakeResolver

CALLS = 200
AUTHOR, LIST = (SigningKey(name, "s", new_private_key("rsa")) for name in ("sender.example", "list.example"))
FIELDS = (
    b"From: Anna <anna@sender.example>\r\nTo: alice@example.org\r\nSubject: Minutes\r\nMIME-Version: 1.0\r\n"
    b"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\nContent-Type: text/plain\r\n\r\n"
)
LINE = b"The quick brown fox jumps  over the lazy dog, and the dog does not mind. \r\n"


def message(octets: int) -> bytes:
    return FIELDS + LINE * (octets // len(LINE))


def resolver() -> FakeResolver:
    return FakeResolver(
        *(f"s._domainkey.{key.domain} TXT {key.record}" for key in (AUTHOR, LIST)),
        "sender.example TXT v=spf1 include:_spf.sender.example mx -all",
        "_spf.sender.example TXT v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 -all",
        "_dmarc.sender.example TXT v=DMARC1; p=reject; rua=mailto:x@sender.example",
    )


def sealed(octets: bytes) -> bytes:
    header, hashes = parse_header(octets), BodyHashes([("relaxed", None)])
    hashes.feed(octets[header.end :])
    hashes.finish()
    return arc_fields(LIST, header.fields, hashes.digest("relaxed", None), "list.example; dmarc=pass", "none", 0)


async def verified(octets: bytes, blob: Blob, dns: FakeResolver) -> None:
    header = parse_header(octets[:65536])
    spf = await check_spf("203.0.113.7", "mx.sender.example", "anna@sender.example", dns)
    signatures = await verify_dkim(header, blob, dns)
    dmarc = await evaluate_dmarc(header, spf, signatures, dns)
    arc = await verify_arc(header, blob, dns)
    if (spf.result, signatures[0].result, dmarc.result, arc.result) != ("pass",) * 4:
        raise SystemExit(f"not as it should be: {spf} {signatures} {dmarc} {arc}")


def least(rounds: int, calls: int, work: Callable[[], Awaitable[object] | object]) -> float:
    """Milliseconds a call."""

    async def once() -> float:
        started = time.process_time()
        for _ in range(calls):
            found = work()
            if isinstance(found, Awaitable):
                await found
        return (time.process_time() - started) / calls * 1000

    return min(asyncio.run(once()) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    plain, dns = message(10_000), resolver()
    signed = signatures_of(plain, (AUTHOR,), 0) + plain
    whole = sealed(signed) + signed
    blob, header = MemoryBlob(whole), parse_header(whole)
    print(f"10 kB, {len(signed) - len(plain)} octets of signature, {len(whole) - len(signed)} of a seal")
    parts: dict[str, Callable[[], Awaitable[object] | object]] = {
        "SPF": lambda: check_spf("203.0.113.7", "mx.sender.example", "anna@sender.example", dns),
        "DKIM": lambda: verify_dkim(header, blob, dns),
        "ARC": lambda: verify_arc(header, blob, dns),
        "SPF, DKIM, DMARC, ARC (goal 1.7)": lambda: verified(whole, blob, dns),
        "DKIM signature made (goal 1.5)": lambda: signatures_of(plain, (AUTHOR,), 0),
        "ARC set made": lambda: sealed(signed),
    }
    for name, work in parts.items():
        print(f"  {name:36} {least(rounds, CALLS, work):6.2f} ms")
    with TemporaryDirectory(prefix="smarthost-bench-") as folder:
        path = Path(folder) / "large"
        large = message(10_000_000)
        path.write_bytes(sealed(large_signed := signatures_of(large, (AUTHOR,), 0) + large) + large_signed)
        blob_on_disk = FileBlob(path, path.stat().st_size)
        head = path.read_bytes()[:65536]
        del large, large_signed
        took = least(rounds, 1, lambda: verify_dkim(parse_header(head), blob_on_disk, dns))
        tracemalloc.start()
        asyncio.run(verify_dkim(parse_header(head), blob_on_disk, dns))
        peak = tracemalloc.get_traced_memory()[1]
        print(f"10 MB from disk, DKIM (goal 150): {took:.0f} ms, {peak / 1e6:.2f} MB of memory at most")


if __name__ == "__main__":
    main()
