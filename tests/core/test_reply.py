"""Replies: nothing but printable lines of at most 512 octets ever leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reply import MAX_LINE, Reply, reply


@given(
    st.integers(200, 599),
    st.sampled_from(["", "5.7.1", "2.0.0"]) | st.text(max_size=12),
    st.lists(st.text(max_size=700), min_size=1, max_size=4),
    st.booleans(),
)
def test_render_never_emits_a_control_character_or_a_long_line(
    code: int, status: str, lines: list[str], with_id: bool
) -> None:
    answer = Reply(code, status, tuple(lines))
    octets = (answer.with_id("0123456789ABCDEF") if with_id else answer).render()
    rendered = octets.split(b"\r\n")
    assert rendered.pop() == b""
    assert len(rendered) == len(lines)
    for number, line in enumerate(rendered):
        assert line.startswith(str(code).encode() + (b" " if number == len(lines) - 1 else b"-"))
        assert len(line) + 2 <= MAX_LINE
        assert all(32 <= octet <= 126 for octet in line)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=1000), st.integers(1, 3))
def test_the_id_always_ends_the_reply(text: str, count: int) -> None:
    octets = reply(550, "5.7.100", *[text] * count).with_id("0123456789ABCDEF").render()
    assert octets.endswith(b" [0123456789ABCDEF]\r\n")


@pytest.mark.parametrize(
    ("answer", "octets"),
    [
        (reply(250, "", "mail.example.org"), b"250 mail.example.org\r\n"),
        (reply(250, "2.1.0", "OK"), b"250 2.1.0 OK\r\n"),
        (reply(250, "", "a", "SIZE 1", "DSN"), b"250-a\r\n250-SIZE 1\r\n250 DSN\r\n"),
        (reply(550, "5.7.1", "one", "two"), b"550-5.7.1 one\r\n550 5.7.1 two\r\n"),
        (reply(550, "5.7.1", "a\r\n250 OK", "\0é\x7f"), b"550-5.7.1 a??250 OK\r\n550 5.7.1 ???\r\n"),
        (reply(354, "", ""), b"354 \r\n"),
    ],
)
def test_render(answer: Reply, octets: bytes) -> None:
    assert answer.render() == octets


def test_classes_and_text() -> None:
    answers = [reply(code, "", "x") for code in (250, 354, 421, 599)]
    kinds = [(answer.is_positive, answer.is_temporary, answer.is_permanent) for answer in answers]
    assert kinds == [(True, False, False), (True, False, False), (False, True, False), (False, False, True)]
    assert str(reply(550, "5.1.1", "no", "such")) == "550 5.1.1 no such"
    assert str(reply(250, "", "OK")) == "250 OK"
