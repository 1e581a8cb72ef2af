"""Authentication-Results: the field that is written, by RFC 8601's grammar, and the forged ones that are found."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.message.edit import without
from gateway.message.header import parse_header
from gateway.senderauth.arc import ArcResult
from gateway.senderauth.dkim import DkimResult
from gateway.senderauth.dmarc import DmarcResult
from gateway.senderauth.results import Authentication, claimed_fields, results_field
from gateway.senderauth.spf import SpfResult

NOTHING = Authentication(SpfResult("none", "", "mailfrom"), (), DmarcResult("none"), ArcResult("none"))
ALL = Authentication(
    SpfResult("pass", "bounce.sender.example", "mailfrom"),
    (
        DkimResult("pass", "sender.example", "s1", "rsa-sha256", "@sender.example", "ab+/cdef"),
        DkimResult("fail", "list.example", "k", "ed25519-sha256", signature="xyz", reason="body hash did not verify"),
        DkimResult("permerror", reason="signature cannot be read"),
    ),
    DmarcResult("pass", "sender.example", "reject", "sender.example"),
    ArcResult("pass", ("list.example", "sender.example")),
)


def test_the_field() -> None:
    assert results_field("mx.example.org", ALL).decode() == (
        "Authentication-Results: mx.example.org;\r\n"
        "\tspf=pass smtp.mailfrom=bounce.sender.example;\r\n"
        '\tdkim=pass header.d=sender.example header.s=s1 header.a=rsa-sha256 header.b="ab+/cdef";\r\n'
        '\tdkim=fail reason="body hash did not verify" header.d=list.example header.s=k header.a=ed25519-sha256'
        " header.b=xyz;\r\n"
        '\tdkim=permerror reason="signature cannot be read";\r\n'
        "\tdmarc=pass (p=reject) header.from=sender.example;\r\n"
        "\tarc=pass header.d=list.example\r\n"
    )
    assert results_field("mx.example.org", NOTHING).decode() == (
        "Authentication-Results: mx.example.org;\r\n\tspf=none;\r\n\tdkim=none;\r\n\tdmarc=none\r\n"
    )


TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
QUOTED = r'"[ !#-\[\]-~]*"'
RESINFO = rf"[a-z]+=[a-z]+(?: \([ -'*-~]*\))?(?: reason={QUOTED})?(?: [a-z]+\.[a-z]+=(?:{TOKEN}|{QUOTED}))*"
FIELD = re.compile(rf"Authentication-Results: [^\s;]+(?:;\r\n\t{RESINFO})+\r\n")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_whatever_strangers_write_the_field_stays_one(one: str, two: str, three: str) -> None:
    found = Authentication(
        SpfResult("pass", one, "helo"), (DkimResult("fail", two, three, one, two, three, one),),
        DmarcResult("permerror", two, reason=three), ArcResult("fail", (one,), two),
    )  # fmt: skip
    text = results_field("mx.example.org", found).decode("ascii")
    assert FIELD.fullmatch(text)
    assert len(parse_header(text.encode() + b"\r\n").fields) == 1


@pytest.mark.parametrize(
    "value",
    [
        "mx.example.org; spf=pass", " mx.example.org;spf=pass", "MX.Example.ORG; none", "mx.example.org 1; spf=pass",
        "mx.example.org", "mx.example.org.; spf=pass", "(a (nested) comment) mx.example.org; spf=pass",
        '"mx.example.org"; spf=pass', "mx.example.org(comment); spf=pass", "\r\n mx.example.org;\r\n spf=pass",
        '"mx.example\\.org"; spf=pass', "\x0cmx.example.org; dkim=pass", '""mx.example.org; spf=pass',
        "mx.example.org/1; spf=pass", "mx.example.org=1; spf=pass", "mx.example.org,; spf=pass",
        '("quoted) mx.example.org; spf=pass', "((((deep\\))))) mx.example.org",
        "(" * 50_000 + ")" * 50_000 + "mx.example.org;",
    ],
)  # fmt: skip
def test_fields_that_claim_to_be_ours(value: str) -> None:
    header = parse_header(f"Authentication-results:{value}\r\nSubject: x\r\n\r\n".encode())
    assert claimed_fields(header, "mx.example.org") == (header.fields[0].raw,)


@pytest.mark.parametrize(
    "field",
    [
        "Authentication-Results: mx2.example.org; spf=pass", "Authentication-Results: example.org; spf=pass",
        "Authentication-Results: mx.example.org.evil.example; spf=pass", "Authentication-Results: ; spf=pass",
        "Authentication-Results:", "ARC-Authentication-Results: i=1; mx.example.org; spf=pass",
        "X-Authentication-Results: mx.example.org; spf=pass", "Authentication-Results: x; y=mx.example.org",
    ],
)  # fmt: skip
def test_fields_of_others_stay(field: str) -> None:
    assert claimed_fields(parse_header(f"{field}\r\nSubject: x\r\n\r\n".encode()), "mx.example.org") == ()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_fields_of_any_kind_are_ours_or_not(value: bytes) -> None:
    claimed_fields(parse_header(b"Authentication-Results:" + value + b"\r\n\r\n"), "mx.example.org")


def test_fields_go_and_the_others_stay_as_they_are() -> None:
    block = b"A: 1\r\nB:  2\r\n 3\r\nA: 1\r\nX: A: 1\r\nC: 4\r\n\r\n"
    assert without(block, (b"A: 1\r\n",)) == b"B:  2\r\n 3\r\nA: 1\r\nX: A: 1\r\nC: 4\r\n\r\n"
    assert without(block, (b"A: 1\r\n", b"A: 1\r\n")) == b"B:  2\r\n 3\r\nX: A: 1\r\nC: 4\r\n\r\n"
    assert without(block, (b"B:  2\r\n 3\r\n",)) == b"A: 1\r\nA: 1\r\nX: A: 1\r\nC: 4\r\n\r\n"
    assert without(block, ()) == block
