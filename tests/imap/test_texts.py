"""What SEARCH compares, against the whole parse of the same message: the short way must find what the long one does."""

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.imap import texts
from gateway.imap.summary import places_to_json, summarise
from gateway.imap.texts import MAX_TEXT, field_has, header_has, texts_of, values_of
from gateway.message.header import decode_octets, decode_text, parse_header
from gateway.message.mime import walk
from gateway.message.transfer import decode
from tests.support.hostile import all_messages

WORDS = ("needle", "Grüße", "ﬁ", "\u212aelvin", "İstanbul", "one two", "a:b", "=?x", "subject", "=3D", "ß", "")

_names = st.sampled_from(
    ["Subject", "subject", "SUBJECT ", "Subject\t", "From", "To", "X-Subject", "Sub", "Content-Type", "Date"]
)
_values = st.lists(
    st.sampled_from(
        [
            b"needle", b"nee\r\n dle", b"one\r\n\ttwo", "Grüße".encode(), "Grüße".encode("latin-1"), b"\r", b"\0",
            b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", b"=?utf-8?b?bmVlZGxl?=", b"=?utf-8?q?nee?= =?utf-8?q?dle?=",
            b"=?utf-8?q?nee?=\r\n =?iso-8859-1?q?dle?=", b"=?x?=", b": Subject: needle", "\u212aelvin".encode(),
            b"a:b", b"x" * 4090, b"\n needle", b"\nneedle",
        ]
    ),
    max_size=4,
).map(b" ".join)  # fmt: skip
_odd_lines = st.sampled_from([b"no colon here\r\n", b" needle\r\n", b": needle\r\n", b"Subject needle\r\n", b"\r\r\n"])
_field = st.tuples(_names, _values).map(lambda each: each[0].encode() + b":" + each[1] + b"\r\n")
_headers = st.lists(_field | _odd_lines, max_size=6).map(b"".join)


def header_of(octets: bytes) -> bytes:
    """As the store keeps it."""
    return octets[: walk(octets).parts[0].start]


def slow_values(header: bytes, name: str) -> list[bytes]:
    return [field.value for field in parse_header(header).fields if field.name.lower() == name]


def slow_field_has(header: bytes, name: str, wanted: str) -> bool:
    return any(wanted in decode_text(value).lower() for value in slow_values(header, name))


def slow_header_has(header: bytes, wanted: str) -> bool:
    told = "\n".join(f"{field.name}: {decode_text(field.value)}" for field in parse_header(header).fields)
    return wanted in told.lower()


def slow_texts(octets: bytes) -> list[str]:
    found = []
    for part in walk(octets[:MAX_TEXT]).parts:
        if part.is_leaf and part.media_type.startswith("text/"):
            raw, _ = decode(octets[:MAX_TEXT][part.start : part.end], part.encoding)
            found.append(decode_octets(raw, part.content_type.first("charset")).lower())
    return found


def fast_texts(octets: bytes) -> list[str]:
    return texts_of(octets[:MAX_TEXT], places_to_json(summarise(octets).places), len(octets))


# --- fields -------------------------------------------------------------------------------------------------------


@given(_headers, st.sampled_from([b"\r\n", b"", b"\r\nbody: x\r\n"]))
def test_fields_are_those_that_the_whole_header_has(fields: bytes, rest: bytes) -> None:
    header = header_of(fields + rest)
    for name in ("subject", "from", "x-subject", "date", "content-type", "sub", "sub:", "to ", ""):
        assert values_of(header, name) == slow_values(header, name)
        for word in WORDS:
            assert field_has(header, name, word.lower()) == slow_field_has(header, name, word.lower())
    for word in WORDS:
        assert header_has(header, word.lower()) == slow_header_has(header, word.lower())


@given(st.binary(max_size=200))
def test_octets_without_form_have_the_fields_that_the_parser_finds(octets: bytes) -> None:
    header = header_of(octets)
    for field in parse_header(header).fields:
        name = field.name.lower()
        assert values_of(header, name) == slow_values(header, name)
        assert header_has(header, name) == slow_header_has(header, name)


def test_hostile_headers_have_the_same_fields() -> None:
    for name, octets in all_messages().items():
        header = header_of(octets)
        for each in ("subject", "from", "to", "cc", "date", "message-id", "content-type"):
            assert values_of(header, each) == slow_values(header, each), name
        for word in ("probe", "alice@sender.example", "content-type", "multipart/mixed", "invoice", "xyzzy"):
            assert header_has(header, word) == slow_header_has(header, word), name
            for each in ("subject", "from", "content-type"):
                assert field_has(header, each, word) == slow_field_has(header, each, word), name


# --- parts --------------------------------------------------------------------------------------------------------

_types = st.sampled_from(
    [
        b"", b"Content-Type: text/plain\r\n", b"Content-Type: TEXT/html; charset=UTF-8\r\n",
        b"Content-Type: text/plain; charset=iso-8859-1\r\n", b"Content-Type: text\r\n", b"Content-Type: \r\n",
        b"Content-Type: text/plain;\r\n charset*=utf-8''utf-16\r\n",
        b"Content-Type: text/plain; charset=iso-2022-jp\r\n",
        b"Content-Type: text/plain; charset*0=ut; charset*1=f-16\r\n", b"Content-Type: image/png\r\n",
        b"Content-Type: text/plain (c); charset=\"utf-8\"\r\nContent-Type: image/png\r\n",
        b"Content-Type : text / plain\r\n", b"Content-Type: message/rfc822\r\n", b"X: Content-Type: image/png\r\n",
        b"Content-Type: text/plain; charset=" + b"x" * 300 + b"\r\n", b"nonsense\r\nContent-Type: text/plain\r\n",
    ]
)  # fmt: skip
_encodings = st.sampled_from(["", "7bit", "8BIT", "base64", "Quoted-Printable", "x-uue", "x-new", "base64 (c)", "two"])
_contents = st.lists(st.sampled_from([*WORDS, "\x1b$B", "--", "--b", "line\r\n", "\0", "x" * 80]), max_size=8).map(
    " ".join
)


def coded(text: str, encoding: str, charset: str) -> bytes:
    octets = text.encode(charset, "replace")
    match encoding.lower().split(" ")[0]:
        case "base64":
            return base64.encodebytes(octets).replace(b"\n", b"\r\n")
        case "quoted-printable":
            return binascii.b2a_qp(octets).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return octets


@st.composite
def _part(draw: st.DrawFn) -> bytes:
    encoding = draw(_encodings)
    fields = [draw(_types)]
    if encoding == "two":
        fields.append(b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n")
    elif encoding:
        fields.append(b"content-transfer-encoding: " + encoding.encode() + b"\r\n")
    body = coded(draw(_contents), encoding, draw(st.sampled_from(["utf-8", "latin-1", "utf-16"])))
    return b"".join(draw(st.permutations(fields))) + b"\r\n" + body


def _wrapped(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """In a multipart, or as a message in a message."""

    def multipart(parts: list[bytes], kind: str, tail: bytes) -> bytes:
        boundary = b"b%d" % (sum(map(len, parts)) % 7)
        head = f"Content-Type: multipart/{kind}; boundary=".encode() + boundary + b"\r\n\r\n"
        return head + b"".join(b"\r\n--" + boundary + b"\r\n" + part for part in parts) + tail.replace(b"B", boundary)

    tails = st.sampled_from([b"\r\n--B--\r\n", b"", b"\r\n--B--\r\nContent-Type: text/plain\r\n\r\nneedle"])
    kinds = st.sampled_from(["mixed", "digest", "alternative"])
    multiparts = st.builds(multipart, st.lists(inner, max_size=3), kinds, tails)
    return multiparts | inner.map(lambda part: b"Content-Type: message/rfc822\r\n\r\nSubject: needle\r\n" + part)


_messages = st.recursive(_part(), _wrapped, max_leaves=6)


@given(_messages)
def test_texts_are_those_that_the_whole_walk_finds(octets: bytes) -> None:
    assert fast_texts(octets) == slow_texts(octets)


@given(st.binary(max_size=300))
def test_octets_without_form_have_the_texts_that_the_walk_finds(octets: bytes) -> None:
    assert fast_texts(octets) == slow_texts(octets)


def test_hostile_messages_have_the_same_texts() -> None:
    for name, octets in all_messages().items():
        assert fast_texts(octets) == slow_texts(octets), name


def test_of_a_message_that_is_too_long_the_beginning_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT", 120)
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
    octets = head + b"needle\r\n" + b"x" * 200 + b"\r\n--b\r\n\r\nbehind\r\n--b--\r\n"
    (text,) = texts_of(octets[:120], places_to_json(summarise(octets).places), len(octets))
    assert text.startswith("needle")
    assert "behind" not in text
