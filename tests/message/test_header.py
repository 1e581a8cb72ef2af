"""The header as octets: byte-exact fields, hostile messages, decoding that never fails."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.header import MAX_DECODED, MAX_HEADER, address_of, decode_text, parse_header
from tests.support.hostile import all_messages

HOSTILE = all_messages() | {
    "100,000 fields": b"".join(b"X-H%d: v\r\n" % number for number in range(100_000)) + b"Subject: x\r\n\r\n",
    "a line of 1 MB": b"Subject: " + b"A" * (1 << 20) + b"\r\n\r\n",
    "50,000 folds": b"Subject: a" + b"\r\n x" * 50_000 + b"\r\n\r\n",
    "20,000 addresses": b"To: " + b",\r\n ".join(b"u%d@example.org" % n for n in range(20_000)) + b"\r\n\r\n",
    "5,000 nested comments": b"From: " + b"(" * 5000 + b")" * 5000 + b" a@b.example\r\n\r\n",
    "20,000 open comments": b"From: " + b"(" * 20_000 + b" a@b.example\r\n\r\n",
    "an open quoted string": b'From: "' + b'\\"a' * 66_000 + b" <a@b.example>\r\n\r\n",
    "20,000 encoded words": b"Subject: " + b"\r\n ".join([b"=?utf-8?Q?a?="] * 20_000) + b"\r\n\r\n",
    "encoded words that are broken": b"Subject: =?utf-8?B?////?= =?bogus-999?Q?a=ZZ?= =?utf-8?X?abc?=\r\n\r\n",
}


def test_fields_are_slices_of_the_octets() -> None:
    octets = b"Subject: a\r\n b\r\nX-Empty:\r\nFrom : <a@b.example>\r\n\tmore\r\n\r\nbody: no\r\n"
    header = parse_header(octets)
    assert [field.name for field in header.fields] == ["Subject", "X-Empty", "From"]
    assert b"".join(field.raw for field in header.fields) + b"\r\n" == octets[: header.end]
    assert octets[header.end :] == b"body: no\r\n"
    assert not header.is_malformed
    assert header.fields[0].value == b" a\r\n b"
    assert header.text("SUBJECT") == "a b"
    assert header.text("x-empty") == ""
    assert header.text("nothing") is None
    assert (header.count("from"), header.count("To")) == (1, 0)


@pytest.mark.parametrize(
    ("octets", "names", "end", "is_malformed"),
    [
        (b"", [], 0, True),
        (b"\r\n", [], 2, True),
        (b"\r\nA: b\r\n\r\n", [], 2, True),
        (b"A: b", ["A"], 4, True),
        (b"A: b\r\n", ["A"], 6, True),
        (b"A: b\r\n\r\n", ["A"], 8, False),
        (b"no colon\r\nA: b\r\n\r\n", ["A"], 18, True),
        (b" folded first\r\nA: b\r\n\r\n", ["A"], 23, True),
        (b": x\r\nA: b\r\n\r\n", ["A"], 13, True),
        (b"A: b\nC: d\r\n\r\n", ["A", "C"], 13, False),
        (b"A\xff: b\r\nC: d\r\n\r\n", ["C"], 15, True),
        (b"A b: c\r\nD: e\r\n\r\n", ["D"], 16, True),
        (b"A: b\r\n \r\nC: d\r\n\r\n", ["A", "C"], 17, False),
        (b"A: a\0b\r\nB: c\r\n\r\n", ["A", "B"], 16, False),
        (b"From x y\r\nA: b\r\n\r\n", ["A"], 18, True),
    ],
)
def test_broken_headers_are_read_as_far_as_they_go(
    octets: bytes, names: list[str], end: int, is_malformed: bool
) -> None:
    header = parse_header(octets)
    assert ([field.name for field in header.fields], header.end, header.is_malformed) == (names, end, is_malformed)


pieces = st.lists(
    st.sampled_from(
        [b"A", b":", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"Subject: x\r\n", b"=?utf-8?q?x?="]
    ),
    max_size=30,
)


@given(pieces.map(b"".join))
def test_any_octets_give_fields_that_stand_in_them_in_order(octets: bytes) -> None:
    header = parse_header(octets)
    at = 0
    for field in header.fields:
        at = octets.index(field.raw, at) + len(field.raw)
        assert field.raw.startswith(field.name.encode())
        assert field.value in field.raw
        decode_text(field.value)
    assert at <= header.end <= len(octets) or octets[:2] == b"\r\n"


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[!-9;-~]{1,12}", fullmatch=True),
            st.from_regex(r"[ -~]{0,40}(\r\n [ -~]{0,20})?", fullmatch=True),
        ),
        max_size=8,
    )
)
def test_a_well_formed_header_is_read_byte_for_byte(fields: list[tuple[str, str]]) -> None:
    octets = b"".join(f"{name}:{value}\r\n".encode() for name, value in fields) or b"X:\r\n"
    header = parse_header(octets + b"\r\nbody")
    assert b"".join(field.raw for field in header.fields) == octets
    assert header.end == len(octets) + 2
    assert not header.is_malformed


def test_what_exceeds_the_limit_is_malformed_and_not_read() -> None:
    header = parse_header(b"A: b\r\n" * (MAX_HEADER // 6 + 100) + b"\r\nbody")
    assert header.is_malformed
    assert sum(len(field.raw) for field in header.fields) <= MAX_HEADER


@pytest.mark.parametrize("line", [b"a" * 5000, b"a \t" * 1700, b"a:" + b"\n " * 2500, b"\r" * 5000, b"(" * 5000])
def test_the_work_is_linear_in_the_size(line: bytes) -> None:
    """Counted in lines that the interpreter runs here, which a clock could not do reliably."""

    def steps(octets: bytes) -> int:
        count = 0

        def tracer(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)  # type: ignore[arg-type]
        try:
            header = parse_header(octets)
            for field in header.fields[:1]:
                address_of(field.value)
        finally:
            sys.settrace(before)
        return count

    one, four = steps(line + b"\r\n"), steps((line + b"\r\n") * 4)
    assert four <= 5 * one + 400


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" plain ", "plain"),
        (b" a\r\n b\r\n\tc", "a b\tc"),
        (b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?UTF-8?B?w6Q=?= x", "ä x"),
        (b"=?iso-8859-1?q?=E4?= =?utf-8?q?=C3=B6?=", "äö"),
        ("roh ü".encode(), "roh ü"),
        (b"latin \xfc", "latin ü"),
        (b"=?bogus?q?abc?=", "abc"),
        (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
        (b"=?utf-8?b?A?=", "=?utf-8?b?A?="),
        (b"=?zip?q?abc?=", "abc"),
        (b"=?base64?q?YWJj?=", "YWJj"),
        (b"=?utf-8?q?a=0D=0AB:_c=00?=", "a\r\nB: c\0"),
        (b"", ""),
        ("日本 =?utf-8?q?x?=".encode(), "日本 x"),
    ],
)
def test_decoding(value: bytes, text: str) -> None:
    assert decode_text(value) == text


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                b"=?",
                b"?=",
                b"utf-8",
                b"?q?",
                b"?B?",
                b"=C3",
                b"AA==",
                b" ",
                b"\r\n",
                b"\xff",
                b"idna",
                b"utf-7",
                b"utf-16",
                b"punycode",
                b"rot13",
                b"?",
            ]
        )
    ).map(b"".join)
)
def test_decoding_never_raises(value: bytes) -> None:
    assert isinstance(decode_text(value), str)
    found = address_of(value)
    assert found is None or "@" in found


def test_decoding_is_bounded_and_cuts_no_letter_in_two() -> None:
    assert len(decode_text(b"a" * 100_000)) == MAX_DECODED
    text = decode_text(("a" + "é" * MAX_DECODED).encode())
    assert set(text[:100]) == {"a", "é"}


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (b" a@B.Example", "a@b.example"),
        (b'"Alice, x" <A@b.example>', "A@b.example"),
        (b"Alice (was: <x@y.example>) <a@b.example>", "a@b.example"),
        (b'"<evil@x.example>" <a@b.example>', "a@b.example"),
        (b"(((((a@b.example", None),
        (b"", None),
        (b"nobody", None),
        (b"<>", None),
        (b"a@b.example, c@d.example", "a@b.example"),
        (b"Alice <a@b.example>, Bob <c@d.example>", "a@b.example"),
        (b"group: a@b.example, c@d.example;", "a@b.example"),
        (b"group: a@b.example;", "a@b.example"),
        (b"undisclosed-recipients:;", None),
        (b"\r\n <a@b.example>", "a@b.example"),
        (b"<a@b c>", None),
        (b'"a\\"<x@y>" <a@b.example>', "a@b.example"),
        ("J\u00fcrgen <j@b.example>".encode(), "j@b.example"),
    ],
)
def test_the_first_address_of_a_field(value: bytes, address: str | None) -> None:
    assert address_of(value) == address


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_read_within_the_bounds(name: str) -> None:
    octets = HOSTILE[name]
    header = parse_header(octets[:MAX_HEADER])
    assert sum(len(field.raw) for field in header.fields) <= MAX_HEADER
    for field in ("From", "Subject", "To", "Message-ID"):
        text = header.text(field)
        assert text is None or len(text) <= MAX_DECODED
        found = header.first(field)
        assert found is None or found.raw in octets
        address_of(found.value if found else b"")


@pytest.mark.parametrize(
    ("octets", "field", "text", "is_malformed"),
    [
        (b"Subject : spaced\r\n\r\n", "Subject", "spaced", False),
        (b"To: a\r\nthis line has no colon\r\nSubject: after\r\n\r\n", "Subject", "after", True),
        (b"Subject: a\r\n \r\nX-After: yes\r\n\r\n", "X-After", "yes", False),
        (b"Subject: a\0b\r\nX-After: yes\r\n\r\n", "X-After", "yes", False),
        (b"From: a@b.example\rSubject: x\r\rhi\r", "Subject", None, True),
    ],
)
def test_hostile_headers_show_what_they_hide(octets: bytes, field: str, text: str | None, is_malformed: bool) -> None:
    header = parse_header(octets)
    assert (header.text(field), header.is_malformed) == (text, is_malformed)


def test_repeated_fields_are_all_counted() -> None:
    assert parse_header(b"Received: x\r\n" * 300 + b"\r\n").count("Received") == 300
