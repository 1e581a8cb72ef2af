"""DKIM: the examples of RFC 6376 and RFC 8463, what other pens sign, and every way to be no good signature."""

import asyncio
import base64
import time

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.message.blob import INLINE_LIMIT, FileBlob, MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.dkim import MAX_SIGNATURES, DkimResult, summary, verify_dkim
from gateway.senderauth.keys import MAX_SIGNATURE, KeyRefused, parse_key
from tests.senderauth.signing import MESSAGE, ed25519_key, record, rsa_key, signed
from tests.support.fakes import FakeResolver


def verified(message: bytes, *lines: str) -> tuple[DkimResult, ...]:
    """lines: of DNS; without any, the keys that `signing` signs with."""
    keys = lines or (record(rsa_key()[1]),)
    return asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), FakeResolver(*keys)))


def word(message: bytes, *lines: str) -> tuple[str, str]:
    """Of the only signature: its result, and the reason."""
    (found,) = verified(message, *lines)
    return found.result, found.reason


# --- the RFCs' examples -----------------------------------------------------------------------------------------------

DINNER = """\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
"""
RFC_6376 = """\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
        4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
        KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
        4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
"""
RFC_8463 = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
"""
RFC_KEYS = (
    "brisbane._domainkey.football.example.com TXT v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com TXT v=DKIM1; k=rsa; p="
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3"
    "FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
    "brisbane._domainkey.example.com TXT v=DKIM1; p="
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq63"
    "1uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
)


@pytest.mark.parametrize(("signatures", "count"), [(RFC_6376, 1), (RFC_8463, 2)], ids=["RFC 6376", "RFC 8463"])
def test_examples_of_the_rfcs(signatures: str, count: int) -> None:
    message = (signatures + DINNER).replace("\n", "\r\n").encode()
    assert [found.result for found in verified(message, *RFC_KEYS)] == ["pass"] * count
    altered = message.replace(b"hungry", b"angry")
    assert [found.result for found in verified(altered, *RFC_KEYS)] == ["fail"] * count


# --- what is good -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body_form", [b"simple", b"relaxed"])
def test_every_form(header_form: bytes, body_form: bytes) -> None:
    (found,) = verified(signed(forms=(header_form, body_form)))
    assert (found.result, found.domain, found.selector, found.algorithm) == (
        "pass",
        "sender.example",
        "s",
        "rsa-sha256",
    )
    assert found.identity == "@sender.example"
    assert len(found.signature) == 8


def test_several_signatures_share_one_reading_of_the_body() -> None:
    message = signed(signed(signed(forms=(b"simple", b"simple")), domain=b"list.example"), length=True)
    keys = record(rsa_key()[1]), record(rsa_key()[1], domain="list.example")
    found = [(each.result, each.domain) for each in verified(message, *keys)]
    assert found == [("pass", "sender.example"), ("pass", "list.example"), ("pass", "sender.example")]


def test_a_large_body_is_read_from_its_file(tmp_path: object) -> None:
    body = b"".join(b"line %d \t of many\r\n" % number for number in range(20_000))
    message = signed(MESSAGE + body)
    path = tmp_path / "blob"  # type: ignore[operator]
    path.write_bytes(message)
    assert len(message) > 4 * INLINE_LIMIT
    blob = FileBlob(path, len(message))
    found = asyncio.run(verify_dkim(parse_header(message), blob, FakeResolver(record(rsa_key()[1]))))
    assert [each.result for each in found] == ["pass"]


def test_relaxed_survives_what_relays_do_to_blanks() -> None:
    message = signed()
    rewrapped = message.replace(b"One\r\n two", b"One \t two").replace(
        b"Hello  there,\t friend. ", b"Hello there, friend."
    )
    assert word(rewrapped.replace(b"Subject:", b"SUBJECT:   ")) == ("pass", "")
    assert word(message + b"\r\n\r\n") == ("pass", "")


def test_the_value_is_taken_out_with_its_blanks() -> None:
    """RFC 6376 3.5: blanks about b= are no part of what is signed (dkimpy leaves one before a semicolon)."""
    message = signed()
    head, _, rest = message.partition(b"From:")
    folded = head.replace(b" b=", b" b= \r\n\t").removesuffix(b"\r\n") + b" \r\n ;\r\n"
    # With a semicolon after b= the text differs; it verifies only where it was signed so.
    assert word(folded + b"From:" + rest)[0] == "fail"
    assert word(head.replace(b" b=", b" b= \r\n\t").replace(b"\r\nFrom", b" \r\nFrom") + b"From:" + rest) == (
        "pass",
        "",
    )


def test_what_the_signer_did_not_name_may_be_there_twice() -> None:
    assert word(b"Subject: x\r\n" + signed(fields=[b"from", b"to"])) == ("pass", "")


def test_long_identities_and_other_ways_to_ask() -> None:
    identity = b"u" * 110 + b"@sender.example"
    assert word(signed(identity=identity), record(rsa_key()[1], "t=s")) == ("pass", "")
    assert word(signed(more=b"q=dns/txt:dns")) == ("pass", "")


# --- what is not ------------------------------------------------------------------------------------------------------

NOW = int(time.time())
FLAWS: dict[str, tuple[bytes, tuple[str, str]]] = {
    "another body": (signed().replace(b"Bye.", b"bye."), ("fail", "body hash did not verify")),
    "another subject": (signed().replace(b"One", b"Two"), ("fail", "signature did not verify")),
    "a subject on top": (
        signed(fields=[b"from", b"subject", b"subject"]).replace(b"\r\nTo:", b"\r\nSubject: x\r\nTo:"),
        ("fail", "signature did not verify"),
    ),
    "a second From on top": (
        b"From: boss@example.org\r\n" + signed(fields=[b"from", b"subject"]), ("policy", "a From field is not signed")
    ),
    "a second subject on top": (
        b"Subject: URGENT\r\n" + signed(fields=[b"from", b"subject"]), ("policy", "a Subject field is not signed")
    ),
    "another content type on top": (
        b"Content-Type: text/html\r\n"
        + signed(b"Content-Type: text/plain\r\n" + MESSAGE, fields=[b"from", b"content-type"]),
        ("policy", "a Content-Type field is not signed"),
    ),
    "a selector that no name can have": (
        signed().replace(b"s=s;", b"s=" + b"a" * 64 + b";"), ("permerror", "s= is no selector")
    ),
    "text after its l=": (
        signed(length=True) + b"buy this\r\n", ("policy", "l= leaves a part of the body unsigned")
    ),
    "its l= is longer than the body": (
        signed(length=True).replace(b"Bye.\r\n", b""), ("fail", "body shorter than its l=")
    ),
    "expired": (signed(more=b"x=%d" % (NOW - 1000)), ("fail", "signature expired")),
    "long expired": (signed(more=b"t=1000000; x=1000001"), ("fail", "signature expired")),
    "of the future": (signed(more=b"t=%d" % (NOW + 100_000)), ("fail", "signature from the future")),
    "rsa-sha1": (signed().replace(b"a=rsa-sha256", b"a=rsa-sha1"), ("permerror", "rsa-sha1 counts no more")),
    "an unknown algorithm": (
        signed().replace(b"a=rsa-sha256", b"a=rsa-md5"), ("permerror", "unknown signature algorithm: rsa-md5")
    ),
    "another kind than its key": (
        signed().replace(b"a=rsa-sha256", b"a=ed25519-sha256"), ("permerror", "key of another kind than the signature")
    ),
    "From not signed": (signed(fields=[b"from"]).replace(b"h=from", b"h=form"), ("permerror", "From is not signed")),
    "version 2": (signed().replace(b"v=1", b"v=2"), ("permerror", "v= value is not 1 (2)")),
    "an identity elsewhere": (
        signed().replace(b"i=@sender.example", b"i=@other.example"),
        ("permerror", "i= domain is not a subdomain of d= (i=@other.example d=sender.example)"),
    ),
    "an identity of its domain alone": (
        signed().replace(b"i=@sender.example", b"i=sender.example"), ("permerror", "signature cannot be read")
    ),
    "a strange form": (signed().replace(b"c=relaxed/relaxed", b"c=nowsp"), ("permerror", "unknown c=")),
    "no domain": (
        signed().replace(b"d=sender.example", b"d=-.-").replace(b"i=@sender.example; ", b"").replace(
            b"i=@sender.example;", b""), ("permerror", "d= is no domain"),
    ),
    "a selector of dots": (signed().replace(b"s=s;", b"s=..;"), ("permerror", "s= is no selector")),
    "a tag twice": (signed().replace(b"v=1;", b"v=1; v=1;"), ("permerror", "signature cannot be read")),
    "no tags": (b"DKIM-Signature: hello\r\n" + MESSAGE, ("permerror", "signature cannot be read")),
    "nothing": (b"DKIM-Signature:\r\n" + MESSAGE, ("permerror", "missing v=")),
    "too long": (
        b"DKIM-Signature: v=1; b=" + b"\r\n A" * MAX_SIGNATURE + b"\r\n" + MESSAGE, ("permerror", "signature too long")
    ),
}  # fmt: skip


@pytest.mark.parametrize("flaw", FLAWS)
def test_what_is_wrong_is_told(flaw: str) -> None:
    message, expected = FLAWS[flaw]
    assert word(message) == expected


KEYS: dict[str, tuple[str, tuple[str, str]]] = {
    "no such name": ("other.example TXT x", ("permerror", "no key for signature")),
    "no text": ("s._domainkey.sender.example A 192.0.2.1", ("permerror", "no key for signature")),
    "DNS fails": ("s._domainkey.sender.example FAILS", ("temperror", "key: DNS SERVFAIL")),
    "revoked": (record(""), ("permerror", "key revoked")),
    "no p": ("s._domainkey.sender.example TXT v=DKIM1; k=rsa", ("permerror", "key record without a key")),
    "another version": (
        f"s._domainkey.sender.example TXT v=DKIM2; p={rsa_key()[1]}",
        ("permerror", "key record of another version"),
    ),
    "a version that is not first": (
        f"s._domainkey.sender.example TXT p={rsa_key()[1]}; v=DKIM1",
        ("permerror", "key record of another version"),
    ),
    "not for SHA-256": (record(rsa_key()[1], "h=sha1"), ("permerror", "key is not for SHA-256")),
    "not for email": (record(rsa_key()[1], "s=tlsrpt"), ("permerror", "key is not for email")),
    "an unknown kind": (record(rsa_key()[1], "k=dsa"), ("permerror", "key of an unknown kind")),
    "no base64": (record("!!!"), ("permerror", "key is no base64")),
    "no RSA key": (record(base64.b64encode(b"0" * 100).decode()), ("permerror", "no RSA key")),
    "an Ed25519 key under RSA's name": (record(ed25519_key()), ("permerror", "no RSA key")),
    "an RSA key under Ed25519's name": (record(rsa_key()[1], "k=ed25519"), ("permerror", "no Ed25519 key")),
    "prose": ("s._domainkey.sender.example TXT hello there", ("permerror", "key record cannot be read")),
    "another key": (record(rsa_key(1024)[1]), ("fail", "signature did not verify")),
    # What a key may say, and still be good.
    "no version": (f"s._domainkey.sender.example TXT p={rsa_key()[1]}", ("pass", "")),
    "all it may be for": (record(rsa_key()[1], "h=sha1:sha256; s=tlsrpt:email; n=a note"), ("pass", "")),
    "blanks in the key": (record(rsa_key()[1][:50] + " " + rsa_key()[1][50:]), ("pass", "")),
    "testing": (record(rsa_key()[1], "t=y"), ("pass", "")),
    "strict": (record(rsa_key()[1], "t=y:s"), ("pass", "")),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys(key: str) -> None:
    line, expected = KEYS[key]
    assert word(signed(), line) == expected


def test_the_first_key_that_can_be_read_counts() -> None:
    lines = ("s._domainkey.sender.example TXT a note", record(rsa_key()[1]))
    assert word(signed(), *lines) == ("pass", "")


def test_a_failure_while_a_domain_tests_is_as_if_it_were_unsigned() -> None:
    line = record(rsa_key()[1], "t=y")
    assert word(signed().replace(b"Bye.", b"bye."), line) == ("neutral", "body hash did not verify")


def test_a_strict_key_wants_the_very_domain() -> None:
    message = signed(identity=b"anna@mail.sender.example")
    assert word(message) == ("pass", "")
    reason = "i= is of a subdomain, and the key wants none"
    assert word(message, record(rsa_key()[1], "t=s")) == ("permerror", reason)


@pytest.mark.parametrize(("bits", "expected"), [(1024, "pass"), (4096, "pass")])
def test_key_sizes(bits: int, expected: str) -> None:
    assert word(signed(bits=bits), record(rsa_key(bits)[1]))[0] == expected


@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [(8192, 65537, "RSA key of 8192 bits"), (16384, 65537, "RSA key of 16384 bits"),
     (2048, (1 << 40) + 1, "RSA key with a large exponent"), (4096, (1 << 4000) + 1, "RSA key with a large exponent")],
)  # fmt: skip
def test_keys_that_are_weak_or_cost_much_are_refused(bits: int, exponent: int, reason: str) -> None:
    """No sum is done with them: the numbers need not even be those of a key."""
    with pytest.raises(KeyRefused, match=rf"\A{reason}\Z"):
        parse_key(b"p=" + base64.b64encode(der_key((1 << (bits - 1)) + 1, exponent)))


def der_key(modulus: int, exponent: int) -> bytes:
    """SubjectPublicKeyInfo of rsaEncryption."""

    def tlv(tag: int, content: bytes) -> bytes:
        length = len(content)
        size = bytes([length]) if length < 128 else bytes([0x82]) + length.to_bytes(2)
        return bytes([tag]) + size + content

    def integer(value: int) -> bytes:
        return tlv(2, value.to_bytes(value.bit_length() // 8 + 1))

    inner = tlv(0x30, integer(modulus) + integer(exponent))
    kind = tlv(0x30, bytes.fromhex("06092a864886f70d0101010500"))
    return tlv(0x30, kind + tlv(3, b"\0" + inner))


# --- hostile ----------------------------------------------------------------------------------------------------------


def test_only_so_many_signatures_are_looked_at() -> None:
    message = b"".join(b"DKIM-Signature: v=1; d=d%d.example\r\n" % number for number in range(500)) + signed()
    resolver = FakeResolver()
    found = asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), resolver))
    assert len(found) == MAX_SIGNATURES
    assert len(resolver.asked) <= MAX_SIGNATURES


def test_one_key_is_asked_for_once() -> None:
    message = signed(signed(signed()))
    resolver = FakeResolver(record(rsa_key()[1]))
    found = asyncio.run(verify_dkim(parse_header(message), MemoryBlob(message), resolver))
    assert [each.result for each in found] == ["pass"] * 3
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    "tags",
    [
        b"b=" + b"\r\n " * 5000, b"b=" + b" " * 15_000, b"b=" + b"\r\n A" * 4000, b"h=" + b"a:" * 7000 + b"from",
        b"h=" + b":".join(b"n%d" % n for n in range(2500)) + b":from", b"l=" + b"9" * 15_000, b"x=" + b"9" * 15_000,
        b"t=" + b"9" * 15_000, b"d=" + b"a." * 7000, b"s=" + b"a." * 7000, b"i=" + b"@" * 15_000, b";" * 15_000,
        b"a=b;" * 3000, b"\xff=\xff", b"=", b"h=from; h", b"bh=" + b"A" * 15_000,
    ],
    ids=lambda tags: repr(tags[:12]),
)  # fmt: skip
def test_tags_of_any_kind_give_a_result(tags: bytes) -> None:
    whole = b"v=1; a=rsa-sha256; d=sender.example; s=s; h=from; bh=AAAA; b=AAAA"
    name = tags.partition(b"=")[0] + b"="
    base = b";".join(tag for tag in whole.split(b";") if not tag.strip().startswith(name))
    message = b"DKIM-Signature: " + base + b"; " + tags + b"\r\n" + b"X-Filler: x\r\n" * 3000 + MESSAGE
    (found,) = verified(message)
    assert found.result in ("fail", "permerror")
    assert found.reason
    assert found.reason.isprintable()


@pytest.mark.parametrize("tag", [b"b", b"bh"])
def test_dkimpy_sees_no_blanks_in_base64(tag: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pattern for them takes a second for 15,000 blanks and a stranger's exclamation mark."""
    seen: list[dict[bytes, bytes]] = []
    monkeypatch.setattr(dkim, "validate_signature_fields", seen.append)
    message = b"DKIM-Signature: v=1; " + tag + b"=A" + b" \t" * 7000 + b"!\r\n" + MESSAGE
    verified(message)
    assert seen[0][tag] == b"A!"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_octets_of_any_kind_give_a_result(value: bytes, body: bytes) -> None:
    for found in verified(b"DKIM-Signature:" + value + b"\r\n" + MESSAGE + body):
        assert found.result in ("fail", "permerror")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_a_key_record_of_any_kind_is_a_key_or_refused(octets: bytes) -> None:
    try:
        parse_key(octets)
    except KeyRefused:
        return


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_octet_that_is_signed_can_be_changed(data: st.DataObject) -> None:
    """Every field of MESSAGE is signed, simple/simple: whatever octet changes, it is no pass."""
    message = signed(forms=(b"simple", b"simple"))
    start = message.index(b"From:")
    place = data.draw(st.integers(start, len(message) - 7))  # what follows is empty lines
    octet = data.draw(st.integers(33, 126).filter(lambda value: value != message[place]))
    altered = message[:place] + bytes([octet]) + message[place + 1 :]
    assert all(found.result != "pass" for found in verified(altered))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["Subject", "To", "X-A", "x-b"]), st.text("ab \t;=", max_size=20)), max_size=6),
    st.text("ab \t\n", max_size=60), st.sampled_from([b"simple", b"relaxed"]), st.sampled_from([b"simple", b"relaxed"]),
)  # fmt: skip
def test_whatever_dkimpy_signs_verifies(
    fields: list[tuple[str, str]], body: str, header_form: bytes, body_form: bytes
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    text = body.replace("\n", "\r\n") + "\r\n"
    message = f"From: a@sender.example\r\n{head}\r\n{text}".encode()
    assert dkim.verify(
        signed(message, forms=(header_form, body_form)), dnsfunc=lambda name, timeout: b"p=" + rsa_key()[1].encode()
    )
    assert word(signed(message, forms=(header_form, body_form))) == ("pass", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "none"), (["fail", "pass"], "pass"), (["fail", "temperror"], "temperror"), (["permerror", "fail"], "fail"),
     (["neutral"], "neutral"), (["policy", "fail"], "policy")],
)  # fmt: skip
def test_the_best_signature_counts(words: list[str], expected: str) -> None:
    assert summary(tuple(DkimResult(each) for each in words)) == expected
