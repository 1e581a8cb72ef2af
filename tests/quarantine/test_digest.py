"""A digest as a message: what it says, and that nothing of what it tells of can change it."""

import email
import email.policy
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import NULL_REVERSE_PATH
from gateway.core.verdict import Protection
from gateway.message.blob import MemoryBlob
from gateway.quarantine.digest import Digest, Entry, compose
from gateway.quarantine.rendering import Shown, safe
from gateway.quarantine.store import Kept
from gateway.queue.store import QueuedMessage

MESSAGE = QueuedMessage(
    "0123456789ABCDEF", 1e9, 2e9, NULL_REVERSE_PATH, b"", MemoryBlob(b""), 0, "", False, "", "", Protection.ANY
)
SHOWN = Shown("A <a@x.example>", "a@x.example", "hello", "", "", (), False)


def entry(
    shown: Shown = SHOWN, *, is_self_released: bool = True, link: str = "https://m.example/quarantine/t"
) -> Entry:
    info = {"kept_by": "spam", **({"self_release": "yes"} if is_self_released else {})}
    return Entry(Kept(1, "alice@example.org", info, MESSAGE), shown, link if is_self_released else "", f"{link}2")


def parsed(digest: Digest) -> tuple[email.message.EmailMessage, str, str]:
    octets = compose(digest, "QUEUEID", "mail.example.org", 1e9)
    assert octets.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", octets)
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    assert not message.defects
    plain, rich = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert rich is not None
    return message, str(plain.get_content()), str(rich.get_content())


def test_it_says_who_what_and_why() -> None:
    digest = Digest("alice@example.org", "example.org", [entry(), entry(is_self_released=False)], 3, True)
    message, plain, rich = parsed(digest)
    assert str(message["Subject"]) == "5 messages were kept back for you"
    assert str(message["From"]) == "Mail quarantine <postmaster@example.org>"
    assert str(message["To"]) == "alice@example.org"
    assert str(message["Auto-Submitted"]) == "auto-generated"
    for text in (plain, rich):
        assert "hello" in text
        assert "spam" in text
        assert "https://m.example/quarantine/t" in text
        assert "only the postmaster can release it (number 0123456789ABCDEF)" in text
        assert "3 more are not listed here" in text


def test_without_pages_it_says_whom_to_ask() -> None:
    digest = Digest("alice@example.org", "example.org", [Entry(entry().kept, SHOWN)], 0, False)
    message, plain, rich = parsed(digest)
    assert str(message["Subject"]) == "1 message was kept back for you"
    assert "http" not in plain
    assert "href" not in rich
    assert "Questions: postmaster@example.org" in plain


@given(st.text(max_size=300).map(safe), st.text(max_size=300).map(safe))
def test_no_text_of_a_kept_message_changes_its_form(author: str, subject: str) -> None:
    shown = replace(SHOWN, author=author, subject=subject)
    _, plain, rich = parsed(Digest("alice@example.org", "example.org", [entry(shown)], 0, True))
    assert plain.count("Release:  ") == 1 + author.count("Release:  ") + subject.count("Release:  ")
    assert set(re.findall(r"<[^>]*>", rich)) <= ALLOWED


ALLOWED = set(re.findall(r"<[^>]*>", parsed(Digest("alice@example.org", "example.org", [entry()], 0, True))[2]))


def test_a_subject_writes_no_line_of_its_own_and_no_link() -> None:
    subject = safe("Your parcel" + " " * 62 + "Release:  https://evil.example/quarantine/x")
    _, plain, rich = parsed(
        Digest("alice@example.org", "example.org", [entry(replace(SHOWN, subject=subject))], 0, True)
    )
    assert "https://evil.example" not in plain + rich
    assert plain.count("Release:  ") == 1


def test_a_reader_whose_quarantine_is_nearly_full_is_told() -> None:
    _, plain, rich = parsed(Digest("alice@example.org", "example.org", [entry()], 0, True, is_nearly_full=True))
    assert "nearly full" in plain
    assert "nearly full" in rich
