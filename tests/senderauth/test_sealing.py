"""ARC sets made: the signing cases of the public suite (arc-draft-sign-tests.yml, under the licence beside it), and
chains that go on, end and are too long.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dkim
import pytest
import yaml

from gateway.core.ports import Answer, NoDomain, Records
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.arc import ArcResult, verify_arc
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.sealing import arc_fields
from gateway.senderauth.signing import SigningKey, new_private_key
from tests.senderauth.signing import signed

SUITE = Path(__file__).parent / "arc-draft-sign-tests.yml"
ORG = SigningKey("example.org", "s1", new_private_key("rsa"))


class Zone:
    def __init__(self, records: dict[str, str]) -> None:
        self._records = records

    async def lookup(self, name: str, rdtype: str) -> Answer:
        text = self._records.get(name)
        return NoDomain() if text is None else Records((text.replace(" ", "").encode(),))


def zone_of(*keys: SigningKey) -> Zone:
    return Zone({f"{key.selector}._domainkey.{key.domain}": key.record for key in keys})


def verified(message: bytes, zone: Zone) -> ArcResult:
    return asyncio.run(verify_arc(parse_header(message), MemoryBlob(message), zone))


def sealed(
    key: SigningKey, message: bytes, findings: str, result: str, now: int = 0, names: tuple[bytes, ...] = ()
) -> bytes:
    """The new fields."""
    header, hashes = parse_header(message), BodyHashes([("relaxed", None)])
    asyncio.run(hash_body(hashes, MemoryBlob(message), header.end))
    return arc_fields(key, header.fields, hashes.digest("relaxed", None), findings, result, now, names)


# --- the public suite -------------------------------------------------------------------------------------------------


def cases() -> Iterator[Any]:
    for scenario in yaml.safe_load_all(SUITE.read_text(encoding="utf-8")):
        key = SigningKey(scenario["domain"], scenario["sel"], scenario["privatekey"].encode())
        for name, case in scenario["tests"].items():
            yield pytest.param(key, scenario["txt-records"], case, id=name)


def merged_results(message: bytes, authserv_id: str) -> str:
    """What the suite's messages carry as the handler's own findings, as one value."""
    values = [field.value.decode() for field in parse_header(message).fields if field.name == "Authentication-Results"]
    own = [value.partition(";") for value in values if value.partition(";")[0].strip() == authserv_id]
    return f"{authserv_id};" + ";".join(rest.rstrip() for _, _, rest in own)


def plain(text: str) -> str:
    """A value with blanks where they count only; of a signature none at all."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\bb=([^;]*)", lambda match: match[0].replace(" ", ""), text)


@pytest.mark.parametrize(("key", "records", "case"), list(cases()))
def test_the_public_suite(key: SigningKey, records: dict[str, str], case: dict[str, Any]) -> None:
    message = re.sub(r"\r?\n", "\r\n", case["message"]).encode()
    findings = merged_results(message, case["srv-id"])
    names = tuple(case["sig-headers"].lower().encode().split(b":"))
    found = sealed(key, message, findings, verified(message, Zone(records)).result, case["t"], names)
    values = {field.name: field.value.decode() for field in parse_header(found + b"\r\n").fields}
    expected = {
        "ARC-Seal": case["AS"],
        "ARC-Message-Signature": case["AMS"],
        "ARC-Authentication-Results": case["AAR"],
    }
    assert {name: plain(value) for name, value in values.items()} == {
        name: plain(value) for name, value in expected.items() if value
    }


def test_the_suite_is_whole() -> None:
    assert len(list(cases())) == 17


# --- chains -----------------------------------------------------------------------------------------------------------

OTHER = SigningKey("list.example", "s2", new_private_key("rsa"))
FINDINGS = "mx.example.org;\r\n\tspf=pass smtp.mailfrom=sender.example;\r\n\tdmarc=pass header.from=sender.example"


def test_a_chain_is_begun_and_goes_on_though_the_message_was_changed() -> None:
    zone = zone_of(ORG, OTHER)
    message = signed()
    first = sealed(ORG, message, FINDINGS, "none") + message
    assert verified(first, zone) == ArcResult("pass", ("example.org",))
    changed = first.replace(b"Bye.", b"-- \r\nof the list\r\nBye.")
    assert verified(changed, zone).result == "fail"
    # The list verified before it changed, and seals what it made of it.
    second = sealed(OTHER, changed, FINDINGS, "pass") + changed
    assert verified(second, zone) == ArcResult("pass", ("list.example", "example.org"))


def test_dkimpy_believes_the_chain() -> None:
    message = signed()
    first = sealed(ORG, message, FINDINGS, "none") + message
    second = sealed(OTHER, first, FINDINGS, "pass") + first
    records = {f"{key.selector}._domainkey.{key.domain}.".encode(): key.record.encode() for key in (ORG, OTHER)}
    validation, sets, reason = dkim.ARC(second).verify(dnsfunc=lambda name, timeout=5: records.get(name))
    assert (validation, len(sets)) == (b"pass", 2), reason


@pytest.mark.parametrize(("before", "after"), [(b"hello", b"hullo"), (b"dmarc=pass", b"dmarc=fail")])
def test_what_was_sealed_cannot_be_changed(before: bytes, after: bytes) -> None:
    message = signed().replace(b"Hello", b"hello")
    first = sealed(ORG, message, FINDINGS, "none") + message
    assert verified(first.replace(before, after, 1), zone_of(ORG)).result == "fail"


def test_a_signature_of_the_author_is_covered() -> None:
    message = signed()
    first = sealed(ORG, message, FINDINGS, "none") + message
    assert verified(first.replace(b"d=sender.example", b"d=sendor.example"), zone_of(ORG)).result == "fail"


def test_who_finds_a_chain_broken_says_so_once() -> None:
    zone = zone_of(ORG, OTHER)
    first = sealed(ORG, signed(), FINDINGS, "none") + signed()
    broken = first.replace(b"Hello", b"hullo")
    assert verified(broken, zone).result == "fail"
    told = sealed(OTHER, broken, FINDINGS, "fail")
    assert b"cv=fail" in told
    assert told.count(b"i=2;") == 3
    assert verified(told + broken, zone).result == "fail"
    assert sealed(ORG, told + broken, FINDINGS, "fail") == b""


def test_where_nobody_knows_how_a_chain_stands_none_is_added() -> None:
    first = sealed(ORG, signed(), FINDINGS, "none") + signed()
    assert sealed(OTHER, first, FINDINGS, "temperror") == b""


@pytest.mark.parametrize("instance", [b"50", b"99", b"x"])
def test_a_broken_chain_that_is_full_or_says_nothing_gets_none(instance: bytes) -> None:
    message = b"ARC-Seal: i=" + instance + b"; cv=pass; a=rsa-sha256; d=x.example; s=s; b=AAAA\r\n" + signed()
    assert verified(message, zone_of(ORG)).result == "fail"
    assert sealed(ORG, message, FINDINGS, "fail") == b""


def test_fifty_hands_and_no_more() -> None:
    message, zone = signed(), zone_of(ORG)
    for _ in range(50):
        found = sealed(ORG, message, FINDINGS, "pass" if b"ARC-Seal" in message else "none")
        assert found
        message = found + message
    assert verified(message, zone).result == "pass"
    assert sealed(ORG, message, FINDINGS, "pass") == b""


def test_lines_are_of_readable_length() -> None:
    """But for the signatures, which the public suite wants unbroken."""
    lines = sealed(ORG, signed(), FINDINGS, "none").split(b"\r\n")
    assert max(len(line) for line in lines if not line.startswith(b" b=")) < 100
    assert max(map(len, lines)) < 400
    assert not [line for line in lines[:-1] if not line.strip()]
