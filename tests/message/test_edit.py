"""Edits of a header block, octet for octet: only the subject changes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.edit import missing_tags, tag_subject
from gateway.message.header import parse_header

TAG = "[EXT]"


def tagged(block: bytes, tag: str = TAG) -> bytes:
    header = parse_header(block)
    return tag_subject(block[: header.end], header, tag) + block[header.end :]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: a\r\n\r\n", b"Subject: [EXT] a\r\n\r\n"),
        (b"Subject:a\r\n\r\n", b"Subject: [EXT] a\r\n\r\n"),
        (b"Subject:\ta\r\n\r\n", b"Subject: [EXT]\ta\r\n\r\n"),
        (b"SUBJECT : a\r\n\r\n", b"SUBJECT : [EXT] a\r\n\r\n"),
        (b"A: b\r\nSubject: a\r\n b\r\nC: d\r\n\r\n", b"A: b\r\nSubject: [EXT] a\r\n b\r\nC: d\r\n\r\n"),
        (b"A: b\r\n\r\nSubject: body\r\n", b"Subject: [EXT]\r\nA: b\r\n\r\nSubject: body\r\n"),
        (b"A: b\r\n Subject: x\r\n\r\n", b"Subject: [EXT]\r\nA: b\r\n Subject: x\r\n\r\n"),
        (b"X-Subject: x\r\nSubject: x\r\n\r\n", b"X-Subject: x\r\nSubject: [EXT] x\r\n\r\n"),
        (b"A: Subject: x\r\n\tSubject: x\r\nSubject: x\r\n\r\n",
         b"A: Subject: x\r\n\tSubject: x\r\nSubject: [EXT] x\r\n\r\n"),
        (b"Subject: a\r\nSubject: b\r\n\r\n", b"Subject: [EXT] a\r\nSubject: b\r\n\r\n"),
        (b"Subject: ab\r\nSubject: a\r\n\r\n", b"Subject: [EXT] ab\r\nSubject: a\r\n\r\n"),
        (b"Subject: \xff\xfe\r\n\r\n", b"Subject: [EXT] \xff\xfe\r\n\r\n"),
        (b"Subject: Re: [EXT] a\r\n\r\n", b"Subject: [EXT] Re: [EXT] a\r\n\r\n"),
        (b"\r\nSubject: body\r\n", b"Subject: [EXT]\r\n\r\nSubject: body\r\n"),
        (b"no field\r\nSubject: a\r\n\r\n", b"no field\r\nSubject: [EXT] a\r\n\r\n"),
        (b"Subject: a", b"Subject: [EXT] a"),
        (b"Subject: a\r\n", b"Subject: [EXT] a\r\n"),
    ],
)  # fmt: skip
def test_the_tag_goes_before_the_first_subject(before: bytes, after: bytes) -> None:
    assert tagged(before) == after


@pytest.mark.parametrize(
    "block",
    [
        b"Subject: [EXT] a\r\n\r\n",
        b"Subject:[EXT]\r\n\r\n",
        b"Subject:\r\n [EXT] a\r\n\r\n",
        b"Subject: \t [EXT] a\r\nSubject: b\r\n\r\n",
    ],
)
def test_a_subject_that_begins_with_the_tag_is_left_alone(block: bytes) -> None:
    assert tagged(block) == block


@pytest.mark.parametrize(
    ("value", "after"),
    [(b"", b" [EXT] "), (b" ", b" [EXT] "), (b"\r\n folded", b" [EXT] \r\n folded"), (b" \r\n\tx", b" [EXT] \r\n\tx")],
)
def test_an_empty_first_line_of_a_subject_takes_the_tag_too(value: bytes, after: bytes) -> None:
    assert tagged(b"A: b\r\nSubject:" + value + b"\r\n\r\nbody") == b"A: b\r\nSubject:" + after + b"\r\n\r\nbody"


NAMES = st.sampled_from(["Subject", "subject", "SUBJECT ", "X-Subject", "Subjects", "To", "DKIM-Signature"])
VALUES = st.from_regex(rb"[ -~\x80-\xff]{0,30}(\r\n[ \t][!-~\x80-\xff][ -~]{0,20}){0,2}", fullmatch=True)
TAGS = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=8), TAGS)
def test_only_the_subject_changes(fields: list[tuple[str, bytes]], tag: str) -> None:
    block = b"".join(name.encode() + b":" + value + b"\r\n" for name, value in fields) + b"\r\n"
    before, edited = parse_header(block), tagged(block + b"body", tag)
    after = parse_header(edited)
    assert edited[after.end :] == b"body"
    assert not after.is_malformed
    number = next((n for n, (name, _) in enumerate(fields) if name.strip().lower() == "subject"), None)
    if number is None:
        assert edited == f"Subject: {tag}\r\n".encode() + block + b"body"
        return
    for n, (old, new) in enumerate(zip(before.fields, after.fields, strict=True)):
        if n != number:
            assert new.raw == old.raw
            continue
        assert new.name == old.name
        if old.value.lstrip().startswith(tag.encode()):
            assert new.raw == old.raw
        else:
            assert re.fullmatch(b" " + re.escape(tag.encode()) + b" ?" + re.escape(old.value), new.value)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), TAGS)
def test_a_second_time_changes_nothing(fields: list[tuple[str, bytes]], tag: str) -> None:
    block = b"".join(name.encode() + b":" + value + b"\r\n" for name, value in fields) + b"\r\nbody"
    once = tagged(block, tag)
    assert tagged(once, tag) == once


LINES = st.lists(
    st.sampled_from([b"Subject", b":", b" ", b"\t", b"\r\n", b"x", b"\xff", b"\0", b"Subject: x\r\n", b"A: b\r\n"]),
    max_size=25,
).map(b"".join)


@given(LINES)
def test_any_octets_keep_all_of_their_own(block: bytes) -> None:
    """However broken: the tag is put in at one place, and without it all is as it was."""
    edited = tagged(block)
    places = [
        edited[:at] + edited[at + len(piece) :]
        for piece in (b" [EXT] ", b" [EXT]", b"Subject: [EXT]\r\n")
        for at in range(len(edited))
        if edited.startswith(piece, at)
    ]
    assert block in places


@pytest.mark.parametrize(
    ("subject", "missing"),
    [
        (b"hello", ("[EXT]", "[*]")),
        (b"[EXT] hello", ("[*]",)),
        (b"[*] hello", ("[EXT]",)),
        (b"[*] [EXT] hello", ()),
        (b"hello [EXT]", ("[EXT]", "[*]")),
    ],
)
def test_tags_that_a_subject_begins_with_are_not_put_again(subject: bytes, missing: tuple[str, ...]) -> None:
    header = parse_header(b"Subject: " + subject + b"\r\n\r\n")
    assert missing_tags(header, ("[EXT]", "[*]", "[EXT]")) == missing
