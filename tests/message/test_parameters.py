"""Content-Type and Content-Disposition: the examples of RFC 2045 and 2231, and what readers disagree about."""

# ruff: noqa: E501 - messages
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.header import MAX_DECODED
from gateway.message.parameters import MAX_PARAMETERS, MAX_SEGMENTS, parse_parameters


@pytest.mark.parametrize(
    ("value", "word", "values"),
    [
        # RFC 2045 5.1
        (b" text/plain; charset=us-ascii (Plain text)", "text/plain", {"charset": ("us-ascii",)}),
        (b' text/plain; charset="us-ascii"', "text/plain", {"charset": ("us-ascii",)}),
        # RFC 2046 5.1.1
        (
            b' multipart/mixed; boundary="gc0pJq0M:08jU534c0p"',
            "multipart/mixed",
            {"boundary": ("gc0pJq0M:08jU534c0p",)},
        ),
        # RFC 2231 3
        (
            b' message/external-body; access-type=URL;\r\n URL*0="ftp://";\r\n'
            b' URL*1="cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar"',
            "message/external-body",
            {"access-type": ("URL",), "url": ("ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar",)},
        ),
        # RFC 2231 4
        (
            b" application/x-stuff;\r\n title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
            "application/x-stuff",
            {"title": ("This is ***fun***",)},
        ),
        # RFC 2231 4.1
        (
            b" application/x-stuff\r\n ;title*0*=us-ascii'en'This%20is%20even%20more%20\r\n"
            b' ;title*1*=%2A%2A%2Afun%2A%2A%2A%20\r\n ;title*2="isn\'t it!"',
            "application/x-stuff",
            {"title": ("This is even more ***fun*** isn't it!",)},
        ),
    ],
)
def test_the_examples_of_the_rfcs(value: bytes, word: str, values: dict[str, tuple[str, ...]]) -> None:
    found = parse_parameters(value)
    assert (found.word, found.values) == (word, values)
    assert not found.is_ambiguous
    assert not found.is_cut


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"", ""),
        (b" ; a=b", ""),
        (b" Text/HTML ", "text/html"),
        (b" BaSe64 (comment) ; x=y", "base64"),
        (b" (comment) base64", "base64"),
        (b" base64;", "base64"),
        (b" attachment; filename", "attachment"),
        (b" text/plain charset=x", "text/plain"),
    ],
)
def test_the_word_in_front_is_in_lower_case_without_comments(value: bytes, word: str) -> None:
    assert parse_parameters(value).word == word


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'attachment; filename="a b;c.exe"', "a b;c.exe"),
        (b"attachment; filename=my invoice.exe", "my invoice.exe"),
        (b'attachment; FileName = "a.exe"', "a.exe"),
        (b'attachment;filename="a.exe', "a.exe"),
        (b'attachment;;; ; filename="a.exe";', "a.exe"),
        (b'attachment; filename="a\\"b\\\\c.exe"', 'a"b\\c.exe'),
        (b'attachment; filename="=?utf-8?B?YS5leGU=?="', "a.exe"),
        (b'attachment; filename="=?utf-8?Q?a.e?=\r\n =?utf-8?Q?xe?="', "a.exe"),
        ('attachment; filename="grün.exe"'.encode(), "grün.exe"),
        ('attachment; filename="grün.exe"'.encode("latin-1"), "grün.exe"),
        (b"attachment; filename*=iso-8859-1''gr%FCn.exe", "grün.exe"),
        (b"attachment; filename*=utf-8''gr%C3%BCn.exe", "grün.exe"),
        (b"attachment; filename*=''a.exe", "a.exe"),
        (b"attachment; filename*=a.exe", "a.exe"),
        (b"attachment; filename*=x-bogus'en'%ff.exe", "ÿ.exe"),
        (b"attachment; filename*=zlib_codec''a.exe", "a.exe"),
        (b"attachment; filename*1=\"ice.\"; filename*2*=%65xe; filename*0*=utf-8''inv%6F", "invoice.exe"),
        (b'attachment; filename*0="a."; filename*1="exe"', "a.exe"),
        (b'attachment; filename*1="a.exe"', "a.exe"),
        (b'attachment; foo bar="x"; filename=a.exe', "a.exe"),
        (b'attachment; x="filename=b.txt"; filename=a.exe', "a.exe"),
    ],
)
def test_file_names(value: bytes, name: str) -> None:
    assert parse_parameters(value).first("filename") == name


def test_the_extended_value_comes_before_the_plain_one() -> None:
    found = parse_parameters(b"attachment; filename=a.txt; filename*=utf-8''a.exe")
    assert found.values["filename"] == ("a.exe", "a.txt")
    assert found.is_ambiguous


@pytest.mark.parametrize(
    "value",
    [
        b"x; boundary=a; boundary=b",
        b'x; boundary=a; BOUNDARY="b"',
        b"x; boundary*0=a; boundary=b",
        b"x; filename*=utf-8''a.txt; filename*=utf-8''a.exe",
        b"x; filename*0=a.txt; filename*0=a.exe",
        b"x; filename*0*=utf-8''a.txt; filename*=utf-8''a.exe",
        b"x; filename*0=a.txt; filename*00=a.exe",
    ],
)
def test_two_values_of_one_parameter_are_ambiguous(value: bytes) -> None:
    assert parse_parameters(value).is_ambiguous


def test_the_same_value_twice_is_not_ambiguous() -> None:
    assert not parse_parameters(b'x; boundary=a; boundary="a"').is_ambiguous


def test_segments_behind_a_gap_are_a_reading_of_the_name_too() -> None:
    """Some readers stop at the gap, some put together what is there."""
    assert "a.exe" in parse_parameters(b"x; filename*0=a; filename*2=.exe").values["filename"]


def test_a_boundary_is_not_decoded() -> None:
    """RFC 2047 5: no encoded word within a quoted string, and no reader decodes one in a boundary."""
    assert parse_parameters(b'x; boundary="=?us-ascii?q?X?="').first("boundary") == "=?us-ascii?q?X?="


def test_blanks_in_front_belong_to_a_quoted_boundary() -> None:
    assert parse_parameters(b'x; boundary=" X"').first("boundary") == " X"


def test_comments_are_left_out_beside_quoted_values() -> None:
    found = parse_parameters(b' (x) multipart/mixed (y "z") ; boundary="(B)" (c)')
    assert (found.word, found.first("boundary")) == ("multipart/mixed", "(B)")


def test_an_encoded_word_with_blanks_in_it_is_decoded() -> None:
    """Against RFC 2047 5, but read so by many."""
    assert parse_parameters(b'x; filename="=?utf-8?Q?my invoice.exe?="').first("filename") == "my invoice.exe"


@pytest.mark.parametrize("word", [b"=?utf-8?B?YS5leGU$?=", b"=?utf-8?B?YS5leGU?="])
def test_broken_base64_in_a_name_is_decoded_as_far_as_it_goes(word: bytes) -> None:
    assert parse_parameters(b'x; filename="' + word + b'"').first("filename") == "a.exe"


def test_a_name_folded_with_a_tab_holds_no_control_character() -> None:
    name = parse_parameters(b'attachment; filename="a long\r\n\tname.pdf"').first("filename")
    assert not any(char < " " for char in name)


@pytest.mark.parametrize(
    "value",
    [
        b"x" * (MAX_DECODED + 1),
        b"x" + b";a=b" * (MAX_PARAMETERS + 1),
        b"x; filename*0=a; filename*%d=b" % MAX_SEGMENTS,
        b"x; filename*999=a",
        b"x; filename*9999999=a",
        b"x; filename*0*0=a",
    ],
)
def test_what_is_not_read_is_told(value: bytes) -> None:
    assert parse_parameters(value).is_cut


PIECES = [b";", b" ", b"=", b'"', b"\\", b"(", b")", b"*", b"0", b"1*", b"'", b"%41", b"%", b"\r\n", b"\0", b"\xff", b"a",
          b"filename", b"filename*", b"; filename*0*=utf-8''", b"=?utf-8?q?x?=", b"multipart/mixed"]  # fmt: skip


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)))
def test_any_octets_give_parameters(value: bytes) -> None:
    found = parse_parameters(value)
    assert found.word == found.word.lower()
    assert all(name and each for name, each in found.values.items())


@given(
    st.dictionaries(st.from_regex(r"[a-z-]{1,12}", fullmatch=True), st.from_regex(r"[ -~]{0,30}[!-~]", fullmatch=True))
)
def test_quoted_values_come_back_as_they_were(values: dict[str, str]) -> None:
    written = {name: value for name, value in values.items() if "=?" not in value and not value.startswith(" ")}
    quoted = (f'; {n}="{v}"' for n, v in ((n, _escaped(v)) for n, v in written.items()))
    found = parse_parameters(b"x/y" + "".join(quoted).encode())
    assert found.values == {name: (value,) for name, value in written.items()}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
