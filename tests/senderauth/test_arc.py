"""ARC: the validation cases of the public suite (arc-draft-validation-tests.yml, under the licence beside it), and
what a hostile chain may cost.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.ports import Answer, NoDomain, Records
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.arc import ArcResult, verify_arc
from gateway.senderauth.arcset import MAX_INSTANCES
from tests.senderauth.signing import rsa_key, sealed_by, signed
from tests.support.fakes import FakeResolver

SUITE = Path(__file__).parent / "arc-draft-validation-tests.yml"


class Zone:
    """`core.ports.Resolver` over a scenario's txt-records; asked: how often."""

    def __init__(self, records: dict[str, str] | None = None) -> None:
        self._records = records or {}
        self.asked = 0

    async def lookup(self, name: str, rdtype: str) -> Answer:
        self.asked += 1
        text = self._records.get(name)
        return NoDomain() if text is None or rdtype != "TXT" else Records((text.replace(" ", "").encode(),))


def cases() -> Iterator[Any]:
    for scenario in yaml.safe_load_all(SUITE.read_text(encoding="utf-8")):
        for name, case in scenario["tests"].items():
            yield pytest.param(case["message"], scenario.get("txt-records"), case["cv"], id=name)


def verified(message: bytes, zone: Any) -> ArcResult:
    return asyncio.run(verify_arc(parse_header(message), MemoryBlob(message), zone))


@pytest.mark.parametrize(("message", "records", "expected"), list(cases()))
def test_the_public_suite(message: str, records: dict[str, str], expected: str) -> None:
    octets = re.sub(r"\r?\n", "\r\n", message).encode()
    found = verified(octets, Zone(records))
    # Three cases leave the verdict open: a seal that says cv=fail ends the chain, which is a fail (RFC 8617 5.2).
    assert found.result == (expected or "fail").lower(), found.reason
    assert bool(found.sealers) is (found.result == "pass")
    assert bool(found.reason) is (found.result == "fail")


def test_what_dkimpy_seals_is_a_chain() -> None:
    """Three hands, of which the last but one changed the message."""
    zone = Zone({f"s._domainkey.{name}.example": f"v=DKIM1; p={rsa_key()[1]}" for name in ("one", "two", "three")})
    first = sealed_by("one.example", signed())
    changed = sealed_by("two.example", first.replace(b"Bye.", b"bye."))
    assert verified(first, zone) == ArcResult("pass", ("one.example",))
    assert verified(changed, zone) == ArcResult("pass", ("two.example", "one.example"))
    whole = sealed_by("three.example", changed)
    assert verified(whole, zone) == ArcResult("pass", ("three.example", "two.example", "one.example"))
    assert verified(whole.replace(b"bye.", b"Bye."), zone).reason == "body hash of the newest set did not verify"
    without_seal = whole[whole.index(b"ARC-Message-Signature: ") :]
    assert verified(without_seal, zone).reason == "set 3 is not whole"
    told = b"i=1; one.example;\r\n arc=none;\r\n dmarc=pass"
    assert whole.count(told) == 1
    forged = whole.replace(told, told.replace(b"dmarc=pass", b"dmarc=fail"))
    assert verified(forged, zone).reason == "seal 1 did not verify"


# --- hostile ----------------------------------------------------------------------------------------------------------

BODY = b"x\r\n"
BODY_HASH = base64.b64encode(hashlib.sha256(BODY).digest()).decode()


def a_set(number: int, *, cv: str = "pass", seal: str = "", message: str = "", body_hash: str = "AAAA") -> bytes:
    """Three fields of one instance; what they sign is nonsense."""
    names = f"i={number}; a=rsa-sha256; d=d{number}.example; s=s; b=AAAA"
    return (
        f"ARC-Seal: {names}; cv={cv}{seal}\r\n"
        f"ARC-Message-Signature: {names}; h=from; bh={body_hash}{message}\r\n"
        f"ARC-Authentication-Results: i={number}; x; none\r\n"
    ).encode()


def chain(count: int, body_hash: str = "AAAA") -> bytes:
    numbers = range(count, 0, -1)
    sets = [a_set(number, cv="pass" if number > 1 else "none", body_hash=body_hash) for number in numbers]
    return b"".join(sets) + b"From: a@b.example\r\n\r\n" + BODY


@pytest.mark.parametrize(
    ("count", "asked"), [(1, 1), (MAX_INSTANCES, MAX_INSTANCES), (MAX_INSTANCES + 1, 0), (99, 0), (400, 0)]
)
def test_a_chain_that_is_too_long_is_not_looked_up(count: int, asked: int) -> None:
    zone = Zone()
    assert verified(chain(count), zone).result == "fail"
    assert zone.asked == asked


def test_dns_that_fails_is_a_temperror_where_all_hangs_on_it() -> None:
    zone = FakeResolver("s._domainkey.d1.example FAILS", "s._domainkey.d2.example FAILS")
    found = verified(chain(2, BODY_HASH), zone)
    assert (found.result, found.reason) == (
        "temperror", "message signature of the newest set: key: DNS SERVFAIL"
    )  # fmt: skip
    assert verified(chain(2), zone) == ArcResult("fail", reason="body hash of the newest set did not verify")


def test_a_body_that_is_signed_in_part_is_no_good() -> None:
    empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    message = a_set(1, cv="none", message="; l=0", body_hash=empty) + b"From: a@b.example\r\n\r\n" + BODY
    assert verified(message, Zone()).reason == "l= leaves a part of the body unsigned"


@pytest.mark.parametrize(
    "tags",
    ["; x=" + "A" * 20_000, "; h=from", "; l=" + "9" * 5000, "; t=" + "9" * 9000, " " * 9000 + "!", "; d=x", ";;;;"],
    ids=lambda tags: repr(tags[:8]),
)  # fmt: skip
@pytest.mark.parametrize("where", ["seal", "message"])
def test_tags_of_any_kind_give_a_result(where: str, tags: str) -> None:
    message = a_set(1, cv="none", **{where: tags}) + b"From: a@b.example\r\n\r\nx\r\n"
    assert verified(message, Zone()).result == "fail"


KINDS = ("Seal", "Message-Signature", "Authentication-Results")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Seal", "Message-Signature", "Authentication-Results"]), st.binary(max_size=60)),
        max_size=6,
    )
)
def test_fields_of_any_kind_give_a_result(fields: list[tuple[str, bytes]]) -> None:
    head = b"".join(b"ARC-" + name.encode() + b": i=1;" + value + b"\r\n" for name, value in fields)
    assert verified(head + b"From: a@b.example\r\n\r\nx\r\n", Zone()).result in ("none", "fail")
