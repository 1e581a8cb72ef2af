"""Addresses as values: what is one, what is none, and that format and parse agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import (
    MAX_PATH,
    NULL_REVERSE_PATH,
    Mailbox,
    parse_domain,
    parse_mailbox,
    path_or_null,
    quote_local_part,
    unquote_local_part,
)


@pytest.mark.parametrize(
    ("text", "ascii"),
    [
        ("Example.ORG", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("_dmarc.a.example", "_dmarc.a.example"),
        ("localhost", "localhost"),
        ("a-b.c-d.example", "a-b.c-d.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        ("[ipv6:::1]", "[IPv6:::1]"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
        ("1.2.3.example", "1.2.3.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_domains(text: str, ascii: str) -> None:
    domain = parse_domain(text)
    assert str(domain) == domain.ascii == ascii
    assert domain.is_literal is text.startswith("[")
    assert parse_domain(domain.ascii) == domain


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a.b",
        "a-.b",
        "a b.c",
        "a\tb",
        "a@b",
        "a/b",
        "1.2.3.4",
        "a.5",
        "x" * 64 + ".b",
        "a." * 127 + "ab",
        "[192.0.2.1",
        "[192.0.2.256]",
        "[::1]",
        "[IPv6:1.2.3.4]",
        "[IPv6:]",
        "[]",
        "[a.example]",
        "a\nb",
        "a\0b",
        "ü" * 64,
        "xn--\u00fc",
        "a\udcff",
        "\uff11.2.3.4",
        "[IPv6:fe80::1%eth0]",
        "[IPv6:fe80::1%\r\nX]",
    ],
)
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError):
        parse_domain(text)


@pytest.mark.parametrize(
    ("text", "local", "shown"),
    [
        ("Bob@Example.org", "Bob", "Bob@example.org"),
        ('"a b"@x.example', "a b", '"a b"@x.example'),
        ('"bob"@x.example', "bob", "bob@x.example"),
        ('"a@b"@x.example', "a@b", '"a@b"@x.example'),
        (r'"a\"b\\"@x.example', 'a"b\\', r'"a\"b\\"@x.example'),
        ('""@x.example', "", '""@x.example'),
        ("!#$%&'*+/=?^_`{|}~-@x.example", "!#$%&'*+/=?^_`{|}~-", "!#$%&'*+/=?^_`{|}~-@x.example"),
        ("jürgen@x.example", "jürgen", "jürgen@x.example"),
        ("a@[192.0.2.1]", "a", "a@[192.0.2.1]"),
        ('"a..b"@x.example', "a..b", '"a..b"@x.example'),
    ],
)
def test_mailboxes(text: str, local: str, shown: str) -> None:
    mailbox = parse_mailbox(text)
    assert (mailbox.local_part, str(mailbox)) == (local, shown)
    assert mailbox.is_ascii is text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@x.example",
        "a@",
        "a b@x.example",
        ".a@x.example",
        "a.@x.example",
        "a..b@x.example",
        "a@b@x.example",
        '"a@x.example',
        '"a"b"@x.example',
        '"a\\"@x.example',
        '"a\tb"@x.example',
        '"a\x7f"@x.example',
        "a" * 245 + "@x.example",
        "ü" * 123 + "@x.example",
        "a\r\nb@x.example",
        "(c)a@x.example",
        "a,b@x.example",
        "<a@x.example>",
        "a@" + "b." * 126 + "example",
    ],
)
def test_what_is_no_mailbox(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_mailbox(text)
    assert str(caught.value).isascii()


def test_a_surrogate_is_refused_with_words_for_a_peer() -> None:
    with pytest.raises(ValueError) as caught:
        parse_mailbox("\udcff@x.example")
    assert "codec" not in str(caught.value)


def test_the_longest_address_is_taken_and_one_octet_more_is_not() -> None:
    domain = ".".join(["d" * 63, "d" * 63, "d" * 61])
    local = "l" * (MAX_PATH - len(domain) - 1)
    assert len(str(parse_mailbox(f"{local}@{domain}"))) == MAX_PATH
    with pytest.raises(ValueError, match="longer than 254"):
        parse_mailbox(f"{local}@{domain}d")


def test_the_null_reverse_path_is_empty_text_both_ways() -> None:
    assert path_or_null("") is NULL_REVERSE_PATH
    assert NULL_REVERSE_PATH.is_null
    assert str(NULL_REVERSE_PATH) == ""
    path = path_or_null("Bob@x.example")
    assert not path.is_null
    assert path_or_null(str(path)) == path


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


@given(printable)
def test_quoting_a_local_part_can_be_undone(local: str) -> None:
    mailbox = Mailbox(local, parse_domain("x.example"))
    if len(local.encode()) <= 64:
        assert parse_mailbox(str(mailbox)) == mailbox
    quoted = quote_local_part(local)
    assert (unquote_local_part(quoted) if quoted.startswith('"') else quoted) == local


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for parse in (parse_domain, parse_mailbox):
        try:
            found = parse(text)
        except ValueError:
            continue
        assert parse(str(found)) == found
        assert not {"\r", "\n", "\0"} & set(str(found))
