"""A message as tokens: the same words whatever their wrapping, nothing of its way, bounded whatever it holds."""

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message.mime import walk
from gateway.spam.body import MAX_TEXT, organisation, read_body
from gateway.spam.corpus import tokens_of
from gateway.spam.structure import mailbox
from gateway.spam.symbols import symbols_of
from gateway.spam.tokens import ALL_BUCKETS, Tokens
from tests.support.hostile import all_messages

HEAD = b"From: Ann <ann@shop.example>\r\nTo: bob@example.org\r\nSubject: Hello\r\nMIME-Version: 1.0\r\n"
TEXT = "Dear customer, your invoice of 12 euros is attached. Viele Grüße, 日本語の手紙です"


def single(fields: bytes, body: bytes) -> Tokens:
    return tokens_of(HEAD + fields + b"\r\n\r\n" + body)


def html_of(body: str) -> Tokens:
    return single(b"Content-Type: text/html; charset=utf-8", body.encode())


def test_words_are_the_same_in_every_encoding() -> None:
    plain = single(b"Content-Type: text/plain; charset=utf-8", TEXT.encode())
    assert len(plain.words) > 10
    for fields, body in (
        (b"Content-Transfer-Encoding: base64", base64.encodebytes(TEXT.encode())),
        (b"Content-Transfer-Encoding: quoted-printable", quopri.encodestring(TEXT.encode())),
    ):
        assert single(b"Content-Type: text/plain; charset=utf-8\r\n" + fields, body).words == plain.words
    utf_16 = single(b"Content-Type: text/plain; charset=utf-16-le", TEXT.encode("utf-16-le"))
    assert set(utf_16.words) == set(plain.words)


def test_words_of_a_page_are_those_that_are_shown() -> None:
    page = f"<html><style>.hidden {{x}}</style><!-- secret --><script>var y</script><p>{TEXT}</p></html>"
    assert set(html_of(page).words) == set(single(b"Content-Type: text/plain; charset=utf-8", TEXT.encode()).words)


@pytest.mark.parametrize(
    "trick", ["cus\u200btomer", "CUSTOMER", "\uff43\uff55\uff53\uff54\uff4f\uff4d\uff45\uff52", "cus\u00adtomer"]
)
def test_letters_in_disguise_are_the_same_word(trick: str) -> None:
    fields = b"Content-Type: text/plain; charset=utf-8"
    assert single(fields, trick.encode()).words == single(fields, b"customer").words


def test_numbers_of_one_length_are_one_word() -> None:
    fields = b"Content-Type: text/plain"
    assert single(fields, b"order 4711").words == single(fields, b"order 1234").words


def test_which_way_a_message_took_is_no_token() -> None:
    body = HEAD + b"\r\nhello\r\n"
    trace = b"Received: from a by b\r\nList-Id: <x.example>\r\nDKIM-Signature: v=1\r\nReferences: <a@b>\r\n"
    assert tokens_of(trace + body) == tokens_of(body)


@pytest.mark.parametrize(
    ("page", "symbol"),
    [
        ('<a href="http://evil.example/x">www.bank.example</a>', "LINK_SHOWS_ANOTHER_HOST"),
        ('<a href="http://192.0.2.1/x">here</a>', "LINK_TO_ADDRESS"),
        ('<a href="https://bit.ly/x">here</a>', "LINK_SHORTENED"),
        ('<a href="https://xn--bnk-ula.example/">here</a>', "LINK_TO_INTERNATIONAL_NAME"),
        ('<p style="display:none">x</p>', "HTML_HIDDEN_TEXT"),
        ("<form action=x>", "HTML_FORM"),
        ("<img src=cid:1>", "HTML_IMAGE_ONLY"),
        ("<p>p\u0430ypal</p>", "TEXT_MIXED_SCRIPTS"),
        ("<p>pay\u200bpal</p>", "TEXT_INVISIBLE_LETTERS"),
    ],
)
def test_tricks_have_names(page: str, symbol: str) -> None:
    assert symbol in symbols_of(html_of(page).signs)
    assert symbol not in symbols_of(html_of('<p>Hello</p><a href="https://www.shop.example/">shop.example</a>').signs)


@pytest.mark.parametrize(
    ("fields", "symbol"),
    [
        (b"From: boss@bank.example <x@evil.example>", "FROM_NAME_IS_ANOTHER_ADDRESS"),
        (b"From: a@shop.example\r\nReply-To: x@gmail.com", "REPLY_TO_FREE_MAIL"),
        (b"From: a@shop.example\r\nReply-To: x@other.example", "REPLY_TO_ANOTHER_DOMAIN"),
        (b"From: a@b.example\r\nTo: undisclosed-recipients:;", "TO_NOBODY"),
        (b"From: a@b.example\r\nSubject: BUY THIS NOW", "SUBJECT_CAPITALS"),
    ],
)
def test_odd_headers_have_names(fields: bytes, symbol: str) -> None:
    assert symbol in symbols_of(tokens_of(fields + b"\r\n\r\nhello").signs)


def test_a_link_and_its_text_of_one_organisation_agree() -> None:
    assert "linkmismatch" not in html_of('<a href="https://click.shop.co.uk/x">www.shop.co.uk</a>').signs
    assert organisation("click.shop.co.uk") == organisation("www.shop.co.uk") == "shop.co.uk"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"Ann B" <Ann@B.example>', ("Ann B", "ann@b.example")),
        ("ann@b.example (Ann B)", ("Ann B", "ann@b.example")),
        ("ann@b.example", ("", "ann@b.example")),
        ("<a@b> <c@d>", ("<a@b>", "c@d")),
        ("", ("", "")),
    ],
)
def test_mailboxes_are_read(text: str, found: tuple[str, str]) -> None:
    assert mailbox(text) == found


def test_hostile_messages_give_tokens_and_no_more_than_their_bound() -> None:
    for octets in all_messages().values():
        found = tokens_of(octets)
        assert all(0 <= bucket < ALL_BUCKETS for kind in found.kinds for bucket in kind)
        assert len(read_body(octets, walk(octets).parts).text) <= 20 * MAX_TEXT


@given(st.binary(max_size=400))
def test_any_octets_give_tokens(octets: bytes) -> None:
    assert tokens_of(octets) == tokens_of(octets)
