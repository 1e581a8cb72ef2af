"""Links in messages: found however they are wrapped, each host as mail programs would visit it, within bounds."""

import sys
from base64 import b64encode
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.urls import MAX_SCANNED, MAX_URL, MAX_URLS, host_of, urls_of

EVIL = "http://evil.test/x"
HANG_GUARD_S = 10  # no measure of speed: far above what a linear pass needs


def text(body: str | bytes, kind: str = "text/plain", encoding: str = "8bit") -> bytes:
    octets = body.encode() if isinstance(body, str) else body
    return f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + octets


def anchor(target: str) -> bytes:
    return text(f'<p><a href="{target}">here</a></p>\r\n', "text/html; charset=utf-8")


def base64(octets: bytes, kind: str = "text/plain", width: int = 76) -> bytes:
    letters = b64encode(octets)
    lines = [letters[at : at + width] for at in range(0, len(letters), width)]
    return text(b"\r\n".join(lines), kind, "base64")


def mixed(*parts: bytes, boundary: str = "b") -> bytes:
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts)
    return (
        f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode() + body + f"--{boundary}--\r\n".encode()
    )


def hosts(message: bytes) -> set[str | None]:
    return {host_of(url) for url in urls_of(message)}


# --- what is a link ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("nothing here, not even a.b", ()),
        ("see http://a.test/p?q=1#f and https://b.test.", ("http://a.test/p?q=1#f", "https://b.test")),
        ("ftp://a.test/x www.b.test", ("ftp://a.test/x", "www.b.test")),
        ("(http://a.test/x), <http://b.test>; [http://c.test]!", ("http://a.test/x", "http://b.test", "http://c.test")),
        ("HTTP://A.Test/ Http://b.test", ("HTTP://A.Test/", "Http://b.test")),
        ("http://a.test http://b.test http://a.test", ("http://a.test", "http://b.test")),
        ("http://a.test/grüße", ("http://a.test/grüße",)),
        ("mailto:x@a.test hxxp://a.test a.test http: www", ()),
        ("http:\\\\a.test http:/a.test http:////a.test", ("http:\\\\a.test", "http:/a.test", "http:////a.test")),
        ("xhttp://a.test", ()),
        ("", ()),
    ],
)
def test_links_of_a_plain_text_in_order_each_once(body: str, found: tuple[str, ...]) -> None:
    assert urls_of(text(body)) == found
    assert urls_of(b"Subject: none of MIME\r\n\r\n" + body.encode()) == found


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.test", "a.test"),
        ("http://A.Test./", "a.test"),
        ("http://a.test:8080/x", "a.test"),
        ("http://a.test?x@b.test", "a.test"),
        ("http://a.test#@b.test", "a.test"),
        ("http://a.test/@b.test", "a.test"),
        ("http://a.test\\@b.test", "a.test"),
        ("http://a.test@b.test/", "b.test"),
        ("http://u:p@c:d@b.test:81/", "b.test"),
        ("http:\\\\a.test\\x", "a.test"),
        ("http:////a.test/", "a.test"),
        ("//a.test/x", "a.test"),
        ("www.a.test/x", "www.a.test"),
        ("ftp://a.test", "a.test"),
        ("http://bücher.test/", "xn--bcher-kva.test"),
        ("http://xn--bcher-kva.test/", "xn--bcher-kva.test"),
        ("http://evil。test/", "evil.test"),
        ("http://\uff45vil.test/", "evil.test"),
        ("http://ev\u00adil.test/", "evil.test"),
        ("http://a_b.test/", "a_b.test"),
        ("http://192.0.2.1/", None),
        ("http://[2001:db8::1]/", None),
        ("http://3221225985/", None),
        ("http://localhost/", None),
        ("http://", None),
        ("http://@/", None),
        ("http://a..test/", None),
        ("", None),
    ],
)
def test_the_host_of_a_link(url: str, host: str | None) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://%65vil.test/", "evil.test"),
        ("http://evil%2Etest/", "evil.test"),
        ("http://evil%E3%80%82test/", "evil.test"),
        ("http://☃.evil.test/", "evil.test"),
        ("http://-.evil.test/", "evil.test"),
        ("http://a!b.evil.test/", "evil.test"),
        ("http://xn--.evil.test/", "evil.test"),
    ],
)
def test_a_host_that_browsers_visit_is_known_by_its_domain_at_least(url: str, host: str) -> None:
    """Below a wildcard any label leads to the domain: one that is no host name must not hide it."""
    found = host_of(url)
    assert found is not None
    assert found == host or found.endswith(f".{host}")


# --- HTML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.test/", " http://evil.test/", "HTTP://EVIL.TEST", "//evil.test/", "http:\\\\evil.test",
        "http:/evil.test", "http://good.test@evil.test/", "http://good.test&#64;evil.test/", "http&colon;//evil.test",
        "&#104;ttp://evil.test/", "&#x68;ttp://evil.test/", "&#104ttp://evil.test/", "http:&sol;&sol;evil.test",
        "http://evil&period;test/", "http://evil.test&#47;x", "http://evil&#46;test",
    ],
)  # fmt: skip
def test_a_link_in_html_leads_to_its_host(target: str) -> None:
    assert "evil.test" in hosts(anchor(target))


@pytest.mark.parametrize(
    "target",
    [
        "ht\r\ntp://evil.test/", "http://ev\til.test/", "http://ev&#10;il.test/", "http:/&#9;/evil.test/",
        "http:evil.test", " //evil.test/", "\\\\evil.test/", "/\\evil.test/",
    ],
)  # fmt: skip
def test_what_browsers_leave_out_of_a_link_hides_nothing(target: str) -> None:
    """WHATWG URL 4.4: tabs and line ends are removed, blanks around are stripped, a backslash is a slash."""
    assert "evil.test" in hosts(anchor(target))


@pytest.mark.parametrize("user", ["good.test'", "good.test ", "good.test<", "good.test>", "a" * (2 * MAX_URL)])
def test_a_user_part_does_not_hide_the_host(user: str) -> None:
    assert "evil.test" in hosts(anchor(f"http://{user}@evil.test/"))


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://evil&#x3002;test/", "evil.test"),
        ("http://&#65349;vil.test/", "evil.test"),
        ("http://ev&#8203;il.test/", "evil.test"),
        ("http://ev&shy;il.test/", "evil.test"),
        ("http://caf&eacute;.test/", "xn--caf-dma.test"),
        ("http://&#x431;.test/", "xn--90a.test"),
        ("http://b&uuml;cher&#46;test/ü", "xn--bcher-kva.test"),
    ],
)
def test_entities_of_letters_beyond_latin_1_stay_what_they_are(target: str, host: str) -> None:
    assert host in hosts(anchor(target))


@pytest.mark.parametrize(
    "html", ["<a href=http://evil.test/>", "<a href=//evil.test/>", "<p style='background: url(http://evil.test/x)'>",
             "<base href='http://evil.test/'>", "<!--\r\n--><a href='http://evil.test/'>", "<img src = '//evil.test/'>"]
)  # fmt: skip
def test_links_outside_of_quoted_anchors(html: str) -> None:
    assert "evil.test" in hosts(text(html, "text/html"))


@pytest.mark.parametrize("digits", [4300, 4301, 100_000])
def test_an_entity_of_any_length_raises_nothing(digits: int) -> None:
    """Python refuses to read numbers of more than 4300 digits."""
    assert urls_of(text(f"&#{'9' * digits}; {EVIL}", "text/html")) == (EVIL,)


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", range(3))
def test_a_link_at_the_very_end_of_base64_is_whole(before: int) -> None:
    assert urls_of(base64(b"x" * before + b" http://evil.test")) == ("http://evil.test",)


@pytest.mark.parametrize("width", [4, 57, 76, 998])
def test_base64_of_any_width(width: int) -> None:
    assert urls_of(base64(b"go to " + EVIL.encode() + b"\r\n", width=width)) == (EVIL,)


@pytest.mark.parametrize(
    "letters",
    [
        b64encode(b"h") + b"\r\n" + b64encode(b" http://evil.test/x \r\n"),
        b64encode(b"go http://evil.test/x \r\n")[:9] + b"!*." + b64encode(b"go http://evil.test/x \r\n")[9:],
        b64encode(b"go http://evil.test/x \r\n")[:9] + b"\r\n--\r\n" + b64encode(b"go http://evil.test/x \r\n")[9:],
    ],
    ids=["padding within", "foreign letters", "a line of dashes"],
)
def test_base64_that_is_not_clean(letters: bytes) -> None:
    """RFC 2045 6.8: what is no letter of base64 is passed over."""
    assert urls_of(text(letters, encoding="base64")) == (EVIL,)


@pytest.mark.parametrize(
    "body",
    ["http://ev=\r\nil.test/x", "=68ttp://evil.test/x", "http=3A//evil=2etest/x", "=\r\nhttp://evil.test/x"],
)  # fmt: skip
def test_quoted_printable(body: str) -> None:
    assert EVIL in urls_of(text(body, encoding="Quoted-Printable"))


@pytest.mark.parametrize(
    ("body", "url"), [("http://ev= \r\nil.test/x", EVIL), ("http://evil=\r\n--y.test/x", "http://evil--y.test/x")]
)
def test_soft_line_breaks_of_every_kind(body: str, url: str) -> None:
    """RFC 2045 6.7 (3): blanks at the end of a line are taken off before all else."""
    assert url in urls_of(text(body, encoding="quoted-printable"))


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1"])
def test_charsets_of_wide_letters(charset: str) -> None:
    assert urls_of(base64(f"go {EVIL} now".encode(charset), f"text/plain; charset={charset}")) == (EVIL,)


@pytest.mark.parametrize("encoding", ["7bit (not base64)", "7bit; x=quoted-printable", "8bit (quoted-printable)"])
def test_a_comment_is_no_encoding(encoding: str) -> None:
    url = "http://evil.test/=41=42"
    assert url in urls_of(text(f"go {url} now", encoding=encoding))


# --- structures -------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    part = base64(b"go " + EVIL.encode() + b" now")
    for number in range(depth):
        part = mixed(part, boundary=f"b{number}")
    return part


RFC822 = b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"


@pytest.mark.parametrize(
    "message",
    [
        mixed(text("hello"), text(EVIL)),
        mixed(text("hello"), text(f'<a href="{EVIL}">', "text/html")),
        mixed(base64(EVIL.encode() + b" ")),
        nested(1), nested(3), nested(200),
        mixed(text(EVIL)).removesuffix(b"--b--\r\n"),
        mixed(text(EVIL)).replace(b"boundary=b", b"boundary=other"),
        mixed(text(EVIL)).replace(b"; boundary=b", b""),
        mixed(text(EVIL)).replace(b"--b\r\n", b"--b \t\r\n"),
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble " + EVIL.encode() + b"\r\n--b--\r\n",
        mixed(text("hello")) + b"epilogue " + EVIL.encode() + b"\r\n",
        mixed(RFC822 + text(EVIL)),
        mixed(RFC822 + mixed(base64(EVIL.encode() + b" "), boundary="c")),
        b"no field at all\r\n\r\n" + EVIL.encode(),
        b"\r\n" + EVIL.encode(),
    ],
)  # fmt: skip
def test_a_link_is_found_in_whatever_structure(message: bytes) -> None:
    assert urls_of(message) == (EVIL,)


PNG = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0K"


@pytest.mark.parametrize("header", [b"", b"Content-Disposition: inline\r\n", b"X: y\r\n"])
@pytest.mark.parametrize("before", [PNG, base64(b"hello"), text("caf=C3=A9", encoding="quoted-printable")])
def test_a_part_without_a_type_is_plain_text_whatever_came_before(before: bytes, header: bytes) -> None:
    """RFC 2046 5.1: the default holds for each part anew."""
    url = "http://evil.test/=41"
    assert url in urls_of(mixed(before, header + b"\r\n" + url.encode()))


@pytest.mark.parametrize(
    "body",
    [
        f"-- {EVIL}\r\n", f"--{EVIL}\r\n", f"--\r\n{EVIL}\r\n", f"hello\r\n-- \r\nAlice\r\n{EVIL}\r\n",
        f"--\r\nContent-Type: image/png\r\n\r\n{EVIL}\r\n",
        f"--\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n{EVIL}\r\n",
        f"--\r\nContent-Type: text/plain\r\n{EVIL}\r\n",
        f"--\r\nContent-Type: text/plain; x={EVIL}\r\n\r\nbody",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_part_hides_nothing(body: str) -> None:
    """The message is one plain text: a mail program shows all of it."""
    assert EVIL in urls_of(text("hello\r\n" + body))


@pytest.mark.parametrize(
    "body", [base64(b"go " + EVIL.encode() + b" now"), text("http://ev=\r\nil.test/x", encoding="quoted-printable")]
)
def test_a_forwarded_message_of_one_part_is_decoded(body: bytes) -> None:
    assert EVIL in urls_of(mixed(text("see below"), RFC822 + body))


@pytest.mark.parametrize(
    "kind",
    ["TEXT/HTML", "text/html;charset=x", "text/x-unheard-of", "\r\n text/html", "", "(a comment) text/html", "nonsense",
     "text", "=?utf-8?q?image/png?=", "application/xhtml+xml"],
)  # fmt: skip
def test_what_a_mail_program_shows_as_text_is_looked_at(kind: str) -> None:
    """RFC 2045 5.2: a Content-Type that is no valid one means plain text."""
    assert urls_of(text(f'<a href="{EVIL}">', kind)) == (EVIL,)


def test_a_part_of_another_kind_has_no_links_of_its_own() -> None:
    assert urls_of(mixed(text("hello"), text(b"%PDF- " + b"\xff" * 9, "application/pdf"))) == ()


def test_a_header_beyond_all_bounds_does_not_hide_the_body() -> None:
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 900) for number in range(320))
    assert urls_of(fields + text(EVIL)) == (EVIL,)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_no_more_than_so_many_links() -> None:
    body = " ".join(f"http://h{number}.test/" for number in range(MAX_URLS + 50))
    found = urls_of(text(body))
    assert (len(found), found[-1]) == (MAX_URLS, f"http://h{MAX_URLS - 1}.test/")


def test_a_long_link_is_cut() -> None:
    (found,) = urls_of(text("http://a.test/" + "x" * 9000))
    assert found.startswith("http://a.test/xx")
    assert len(found) <= MAX_URL


def test_what_lies_beyond_the_bound_is_not_looked_at() -> None:
    message = text(b"x " * (MAX_SCANNED // 2) + EVIL.encode())
    assert urls_of(message) == ()


PIECES = st.sampled_from(
    [
        b"--", b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"\0", b" ", b"Content-Type: ", b"text/html",
        b"multipart/mixed; ",
        b"boundary=b", b"message/rfc822", b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"http://",
        b"https:\\\\", b"www.", b"@", b"evil.test", b"&#", b"9" * 4301, b"&#x", b";", b"=", b"=3D",
        b"aHR0cDovL2V2aWwudGVzdA",
        b"\xff", b"\xe3\x80\x82", b"xn--", b"%2e", b"'", b'"', b"<", b":", b"[", b"]",
    ]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=300), st.lists(st.one_of(PIECES, st.binary(max_size=3)), max_size=60).map(b"".join))
)
def test_no_octets_make_it_raise(octets: bytes) -> None:
    for message in (octets, text(octets, "text/html"), text(octets, "text/html", "base64"), mixed(octets)):
        found = urls_of(message)
        assert len(found) == len(set(found)) <= MAX_URLS
        for url in found:
            host_of(url)


@given(st.text(max_size=80))
def test_no_text_makes_a_host_raise(url: str) -> None:
    found = host_of(url)
    assert found is None or (found.isascii() and "." in found)


def work(function: Callable[[bytes], object], octets: bytes) -> int:
    """How many calls it makes: Python's and C's."""
    calls = count()
    sys.setprofile(lambda frame, event, argument: next(calls) if event in ("call", "c_call") else None)
    try:
        function(octets)
    finally:
        sys.setprofile(None)
    return next(calls)


GROWING: dict[str, Callable[[int], bytes]] = {
    "parts": lambda size: mixed(*[text(EVIL, "text/html")] * size),
    "dashes": lambda size: text(b"--\r\n" * size),
    "fields and dashes": lambda size: b"a:\r\n" * size + b"\r\n" + b"--\r\n" * size,
    "a part's fields and dashes": lambda size: mixed(b"Content-Type: x\r\n" + b"a:\r\n" * size + b"\r\n--" * size),
    "links": lambda size: text(b" http://a.test/" * size),
    "entities": lambda size: text(b"&amp;&#1" * size, "text/html"),
}  # fmt: skip


@pytest.mark.parametrize("shape", GROWING)
def test_twice_the_octets_are_about_twice_the_work(shape: str) -> None:
    """Quadratic work would be four times as much."""
    small, large = (work(urls_of, GROWING[shape](size)) for size in (400, 800))
    assert large < 3 * small


MB = 1024 * 1024
HEAVY = {
    "one line": b"x" * MB, "blanks": b" " * MB, "schemes": b"http://" * (MB // 7),
    "half schemes": b"http:/ " * (MB // 7),
    "www": b"www." * (MB // 4), "dashes": b"--\r\n" * (MB // 4), "entities": b"&" * MB, "numbers": b"&#1" * (MB // 3),
    "names": (b"&" + b"a" * 32) * (MB // 33), "equals": b"=" * MB, "colons": b"a:\r\n" * (MB // 4),
    "quotes": b"'//" * (MB // 3),
    "at": b"http://" + b"@" * MB, "folded": b"a:" + b"\r\n b" * (MB // 4), "word": b"a " * (MB // 2),
}  # fmt: skip


@pytest.mark.timeout(HANG_GUARD_S)
@pytest.mark.parametrize("shape", HEAVY)
def test_a_megabyte_of_nonsense_hangs_nothing(shape: str) -> None:
    for kind, encoding in (("text/html", "8bit"), ("text/html", "quoted-printable"), ("multipart/x", "base64")):
        for url in urls_of(text(HEAVY[shape], kind, encoding)):
            host_of(url)
