"""Names of mailboxes, and the patterns of LIST."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.foldernames import decode_utf7, encode_utf7, normal_name
from gateway.imap.names import Pattern, decode_name, encode_name


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("Sent", b"Sent"),
        ("A&B", b"A&-B"),
        ("Prjekté & Co", b"Prjekt&AOk- &- Co"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),  # RFC 3501 5.1.3
        ("😀", b"&2D3eAA-"),
    ],
)
def test_examples(name: str, encoded: bytes) -> None:
    assert encode_utf7(name) == encoded
    assert decode_utf7(encoded) == name


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_encoded_is_decoded(name: str) -> None:
    assert decode_utf7(encode_utf7(name)) == name


@given(st.binary(max_size=40))
def test_other_octets_are_refused_or_are_the_one_form(octets: bytes) -> None:
    try:
        name = decode_utf7(octets)
    except ValueError:
        return
    assert encode_utf7(name) == octets


@pytest.mark.parametrize(
    "octets", [b"a&b", b"&AOk", b"&&-", b"&A-", b"&AGE-", b"&AOkA6Q-&AOk-x&", b"\xc3\xa9", b"&2D3-", b"&\0-"]
)
def test_illegal_shifts_are_refused(octets: bytes) -> None:
    with pytest.raises(ValueError):
        decode_utf7(octets)


@pytest.mark.parametrize(
    ("name", "normal"),
    [("inbox", "INBOX"), ("Inbox/x", "INBOX/x"), ("inboxes", "inboxes"), ("x/inbox", "x/inbox"), ("e\u0301", "é")],
)
def test_a_name_has_one_form(name: str, normal: str) -> None:
    assert normal_name(name) == normal


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/../b",
        ".",
        " ",
        "a/ ",
        "a\0",
        "a\x07",
        "a%",
        "a*",
        "x" * 201,
        "a/" * 20 + "a",
    ],
)
def test_a_name_that_nobody_may_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError):
        normal_name(name)


def test_names_are_in_utf8_once_the_client_asks() -> None:
    assert decode_name("é".encode(), is_utf8=True) == "é"
    assert encode_name("é", is_utf8=True) == "é".encode()
    with pytest.raises(ValueError):
        decode_name(b"\xff", is_utf8=True)


@pytest.mark.parametrize(
    ("reference", "pattern", "name", "matches"),
    [
        ("", "*", "a/b", True),
        ("", "%", "a/b", False),
        ("", "%", "a", True),
        ("a/", "%", "a/b", True),
        ("", "a/%", "a/b/c", False),
        ("", "inbox", "INBOX", True),
        ("", "InBox/*", "INBOX/x", True),
        ("", "*%", "a/b", True),
        ("", "a.c", "abc", False),
        ("", "%/%", "a/b", True),
        ("", "e\u0301", "é", True),
    ],
)
def test_patterns(reference: str, pattern: str, name: str, matches: bool) -> None:
    assert Pattern(reference, pattern).matches(name) is matches


def test_a_pattern_of_many_wildcards_costs_little() -> None:
    started = time.process_time()
    assert not Pattern("", "*a" * 400 + "b").matches("a" * 200)
    assert time.process_time() - started < 0.5
