"""What is shown of a kept message: text, whatever it holds, and in bounded work."""

import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import NULL_REVERSE_PATH
from gateway.core.verdict import Protection
from gateway.message.blob import FileBlob, MemoryBlob
from gateway.quarantine.rendering import MAX_TEXT, Shown, safe, show, show_fields
from gateway.queue.store import QueuedMessage


def queued(octets: bytes, header: bytes = b"", offset: int = 0) -> QueuedMessage:
    blob = MemoryBlob(octets)
    return QueuedMessage("Q", 0.0, 0.0, NULL_REVERSE_PATH, header, blob, offset, "", False, "", "", Protection.ANY)


def shown(text: str) -> Shown:
    return show(queued(text.replace("\n", "\r\n").encode()))


def test_plain_text_goes_before_html() -> None:
    found = shown(
        "From: A <A@X.example>\nSubject: =?utf-8?q?caf=C3=A9?=\nDate: today\n"
        "Content-Type: multipart/alternative; boundary=b\n\n"
        "--b\nContent-Type: text/html\n\n<p>rich</p>\n--b\nContent-Type: text/plain\n\nplain\n--b--\n"
    )
    assert (found.author, found.author_address, found.subject) == ("A <A@X.example>", "a@x.example", "café")
    assert (found.date, found.text, found.files, found.is_cut) == ("today", "plain", (), False)


def test_html_becomes_text() -> None:
    found = shown(
        "Content-Type: text/html\n\n<html><head><title>t</title></head><body><style>s</style>"
        "<p>One &amp; <b>two</b></p><div>three</div><script>bad()</script><!-- c --><a href='http://x/'>link</a>"
    )
    assert [line.strip() for line in found.text.split("\n")] == ["One & two", "three", "link"]


def test_an_attachment_is_named_and_not_shown() -> None:
    found = shown(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"
        'Content-Type: text/plain; name="a\u202etxt.exe"\nContent-Disposition: attachment\n\nsecret\n--b--\n'
    )
    assert found.text == "hello"
    assert found.files == ("a txt.exe",)


def test_an_edited_header_counts() -> None:
    octets = b"Subject: old\r\n\r\nbody\r\n"
    found = show(queued(octets, b"Received: x\r\nSubject: [tag] old\r\n\r\n", octets.index(b"body")))
    assert (found.subject, found.text) == ("[tag] old", "body")


def test_a_large_message_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"Subject: s\r\n\r\n" + b"x" * 50_000_000)
    blob = FileBlob(path, path.stat().st_size)
    message = QueuedMessage("Q", 0.0, 0.0, NULL_REVERSE_PATH, b"", blob, 0, "", False, "", "", Protection.ANY)
    started = time.process_time()
    found = show(message)
    assert time.process_time() - started < 1.0
    assert found.is_cut
    assert len(found.text) == MAX_TEXT


@pytest.mark.parametrize(
    "body", ["<" * 60_000, "<style" * 10_000, "<!--" * 15_000, "&" * 60_000, "<p" * 30_000, "\x00\x1b[2J" * 10_000]
)
def test_hostile_html_costs_little(body: str) -> None:
    started = time.process_time()
    shown(f"Content-Type: text/html\n\n{body}")
    assert time.process_time() - started < 1.0


@given(st.binary(max_size=2000))
def test_whatever_it_is_it_is_shown_as_plain_lines(octets: bytes) -> None:
    found = show(queued(octets))
    for text in (found.author, found.subject, found.date, *found.files, *found.text.split("\n")):
        assert text.isprintable()
    assert show_fields(queued(octets)).subject == found.subject


@given(st.text())
def test_a_safe_text_is_one_line_without_controls(text: str) -> None:
    found = safe(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in found)
