"""ENVELOPE and BODYSTRUCTURE: the RFC's own example, odd addresses, and that no message raises or breaks the syntax."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.imap.addresses import addresses
from gateway.imap.summary import LEAF, MESSAGE, MULTIPART, Place, places_from_json, places_to_json, summarise
from tests.support.hostile import all_messages

HOSTILE = all_messages()
Value = None | int | bytes | list["Value"]


def read(octets: bytes) -> Value:
    """One value of the wire's syntax; fails where it is not well-formed or where more follows."""
    value, at = _read(octets, 0)
    assert at == len(octets), octets[at : at + 40]
    return value


def _read(octets: bytes, at: int) -> tuple[Value, int]:
    if octets[at : at + 1] == b"(":
        found: list[Value] = []
        at += 1
        while octets[at : at + 1] != b")":
            if octets[at : at + 1] == b" ":
                at += 1
            value, at = _read(octets, at)
            found.append(value)
        return found, at + 1
    for pattern in (rb'"([^"\\\r\n\0\x80-\xff]*)"', rb"\{(\d+)\}\r\n", rb"(\d+)(?=[ )]|\Z)", rb"(NIL)(?=[ )(]|\Z)"):
        match = re.compile(pattern).match(octets, at)
        if match is None:
            continue
        if pattern.startswith(rb"\{"):
            end = match.end() + int(match[1])
            assert end <= len(octets)
            return octets[match.end() : end], end
        if pattern.startswith(rb"(\d"):
            return int(match[1]), match.end()
        return (None if pattern.startswith(b"(NIL") else match[1]), match.end()
    raise AssertionError(octets[at : at + 60])


def test_the_envelope_of_the_rfc() -> None:
    message = (
        b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nFrom: Terry Gray <gray@cac.washington.edu>\r\n"
        b"Subject: IMAP4rev1 WG mtg summary and minutes\r\nTo: imap@cac.washington.edu\r\n"
        b"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
        b"Message-Id: <B27397-0100000@cac.washington.edu>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n"
    ) + b"x\r\n" * 92  # fmt: skip
    found = summarise(message)
    # RFC 3501 7.4.2
    assert found.envelope == (
        b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev1 WG mtg summary and minutes"'
        b' (("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu"))'
        b' (("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu"))'
        b' ((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL'
        b' "<B27397-0100000@cac.washington.edu>")'
    )
    assert found.body == b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 276 92)'
    assert found.structure == b'("TEXT" "PLAIN" ("CHARSET" "US-ASCII") NIL NIL "7BIT" 276 92 NIL NIL NIL NIL)'
    assert found.header == message[: -len(b"x\r\n" * 92)]
    assert found.places == (Place((1,), LEAF, 0, len(found.header), len(message)),)


NESTED = (
    b'Subject: outer\r\nContent-Type: multipart/mixed; boundary="a"\r\n\r\npreamble\r\n--a\r\n\r\none\r\n--a\r\n'
    b"Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=m.eml\r\n\r\n"
    b"Subject: inner\r\nFrom: a@b.example\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\n2.1\r\n--b\r\nContent-Type: text/html\r\nContent-Language: de, en\r\n\r\n<p>\r\n--b--\r\n"
    b"--a\r\nContent-Type: message/rfc822\r\n\r\nSubject: plain inside\r\n\r\nbody\r\n"
    b'--a\r\nContent-Type: image/png; name="a b.png"\r\nContent-Transfer-Encoding: BASE64\r\n\r\niVBOR\r\n--a--\r\n'
)


def test_parts_are_numbered_as_the_rfc_does() -> None:
    found = summarise(NESTED)
    kinds = {place.number: place.kind for place in found.places}
    assert kinds == {
        (1,): LEAF, (2,): MESSAGE, (2, 1): LEAF, (2, 2): LEAF, (3,): MESSAGE, (3, 1): LEAF, (4,): LEAF,
    }  # fmt: skip
    bodies = {place.number: NESTED[place.body : place.end] for place in found.places}
    assert bodies[1,] == b"one"
    assert (bodies[2, 1], bodies[2, 2], bodies[3, 1]) == (b"2.1", b"<p>", b"body")
    assert bodies[2,].startswith(b"Subject: inner\r\n")
    heads = {place.number: NESTED[place.header : place.body] for place in found.places}
    assert heads[4,] == b'Content-Type: image/png; name="a b.png"\r\nContent-Transfer-Encoding: BASE64\r\n\r\n'
    assert heads[3, 1] == b"Subject: plain inside\r\n\r\n"
    assert heads[1,] == b"\r\n"
    structure = read(found.structure)
    assert isinstance(structure, list)
    one, two, three, four, kind, parameters, *rest = structure
    assert (kind, parameters, rest) == (b"MIXED", [b"BOUNDARY", b"a"], [None, None, None])
    assert one == [b"TEXT", b"PLAIN", None, None, None, b"7BIT", 3, 0, None, None, None, None]
    assert isinstance(two, list)
    assert two[:3] == [b"MESSAGE", b"RFC822", None]
    assert two[6] == len(bodies[2,])
    assert isinstance(two[8], list)
    assert two[8][2] == b"ALTERNATIVE"
    assert two[9] == bodies[2,].count(b"\n")
    assert two[-3:] == [[b"ATTACHMENT", [b"FILENAME", b"m.eml"]], None, None]
    assert isinstance(four, list)
    assert four[:7] == [b"IMAGE", b"PNG", [b"NAME", b"a b.png"], None, None, b"BASE64", 5]
    assert isinstance(two[8][1], list)
    assert two[8][1][-2] == [b"de", b"en"]
    short = read(found.body)
    assert isinstance(short, list)
    assert short[0] == [b"TEXT", b"PLAIN", None, None, None, b"7BIT", 3, 0]
    assert places_from_json(places_to_json(found.places)) == found.places


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (b"", b"NIL"),
        (b" ", b"NIL"),
        (b"a@b.example", b'((NIL NIL "a" "b.example"))'),
        (b'"Last, First" <a@b>, c@d', b'(("Last, First" NIL "a" "b")(NIL NIL "c" "d"))'),
        (b"a@b (A comment)", b'(("A comment" NIL "a" "b"))'),
        (
            b"A group: a@b, C <c@d>; e@f",
            b'((NIL NIL "A group" NIL)(NIL NIL "a" "b")("C" NIL "c" "d")(NIL NIL NIL NIL)(NIL NIL "e" "f"))',
        ),
        (b"undisclosed-recipients:;", b'((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL))'),
        (b"<@route,@x:a@b>", b'((NIL "@route,@x" "a" "b"))'),
        (b'"quoted local"@b', b'((NIL NIL "quoted local" "b"))'),
        (b"=?utf-8?q?J=C3=B6rg?= <j@b>", b'(("=?utf-8?q?J=C3=B6rg?=" NIL "j" "b"))'),
        (b"J\xc3\xb6rg <j@b>", b'(({5}\r\nJ\xc3\xb6rg NIL "j" "b"))'),
        (b'A "B" C\r\n <a@b>', b'(("A B C" NIL "a" "b"))'),
        (b"nobody", b'((NIL NIL "nobody" ""))'),
        (b"<>", b"NIL"),
        (b"A <a@b", b'(("A" NIL "a" "b"))'),
        (b'"A <a@b>', b'((NIL NIL "A <a" "b>"))'),
        (b"a@b; c@d", b'((NIL NIL "a" "b")(NIL NIL "c" "d"))'),
    ],
)
def test_addresses(value: bytes, wire: bytes) -> None:
    assert addresses(value) == wire


def test_sender_and_reply_to_are_the_authors_where_they_are_not_given() -> None:
    envelope = read(summarise(b"From: a@b\r\nSender:\r\nReply-To: c@d\r\n\r\n").envelope)
    assert isinstance(envelope, list)
    author = [[None, None, b"a", b"b"]]
    assert envelope[2:5] == [author, author, [[None, None, b"c", b"d"]]]
    assert read(summarise(b"\r\n").envelope) == [None] * 10


def check(octets: bytes) -> None:
    found = summarise(octets)
    for each in (found.envelope, found.structure, found.body):
        assert isinstance(read(each), list)
    for place in found.places:
        assert 0 <= place.header <= place.body <= place.end <= len(octets)
        assert place.kind in (MULTIPART, MESSAGE, LEAF)
    numbers = [place.number for place in found.places]
    assert len(set(numbers)) == len(numbers)
    assert octets.startswith(found.header)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_has_a_summary(name: str) -> None:
    check(HOSTILE[name])


@given(st.binary(max_size=3000))
def test_any_octets_have_a_summary(octets: bytes) -> None:
    check(octets)


@given(st.sampled_from([octets for octets in HOSTILE.values() if len(octets) < 5000] + [NESTED]), st.data())
def test_a_changed_message_has_a_summary(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, max(0, len(octets) - 1)))
    end = data.draw(st.integers(at, len(octets)))
    check(octets[:at] + data.draw(st.binary(max_size=20)) + octets[end:])


@given(st.binary(max_size=300))
def test_any_octets_are_an_address_list(value: bytes) -> None:
    found = read(addresses(value))
    assert found is None or isinstance(found, list)
    assert all(isinstance(each, list) and len(each) == 4 for each in found or [])
