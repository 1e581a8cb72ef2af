"""POP3 dialogues as tables, the maildrop, TOP over pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pop3.session import (
    MAX_ERRORS,
    Finish,
    Item,
    Pop3Session,
    Retrieve,
    Say,
    SignIn,
    StartTls,
    State,
    TopFilter,
)

ITEMS = [Item(11, 100), Item(12, 50), Item(15, 7)]


def fresh(*, is_tls: bool = True, can_start_tls: bool = True) -> Pop3Session:
    return Pop3Session("mail.example.org", is_tls, can_start_tls)


def signed_in() -> Pop3Session:
    session = fresh()
    session.signed_in(0x5F, list(ITEMS))
    return session


def say(session: Pop3Session, line: str) -> str:
    action = session.command(line.encode())
    assert isinstance(action, Say)
    assert action.octets.endswith(b"\r\n")
    return action.octets.decode()


def test_the_greeting() -> None:
    assert fresh().greeting() == b"+OK mail.example.org POP3 ready\r\n"


@pytest.mark.parametrize(
    "dialogue",
    [
        [
            ("STAT", "+OK 3 157"),
            ("DELE 2", "+OK message 2 will go at QUIT"),
            ("STAT", "+OK 2 107"),
            ("LIST", "+OK 2 messages\r\n1 100\r\n3 7\r\n."),
            ("RSET", "+OK nothing will go"),
            ("STAT", "+OK 3 157"),
        ],
        [
            ("list 1", "+OK 1 100"),
            ("LIST 3", "+OK 3 7"),
            ("LIST 4", "-ERR no such message"),
            ("LIST 0", "-ERR no such message"),
            ("LIST -1", "-ERR no such message"),
            ("LIST x", "-ERR no such message"),
        ],
        [
            ("UIDL", "+OK 3 messages\r\n1 0000005f0000000b\r\n2 0000005f0000000c\r\n3 0000005f0000000f\r\n."),
            ("UIDL 2", "+OK 2 0000005f0000000c"),
            ("DELE 2", "+OK message 2 will go at QUIT"),
            ("UIDL 2", "-ERR no such message"),
            ("DELE 2", "-ERR no such message"),
            ("RETR 2", "-ERR no such message"),
            ("TOP 2 1", "-ERR TOP wants a message number and a number of lines"),
        ],
        [
            ("NOOP", "+OK"),
            ("USER x", "-ERR unknown command, or not at this point"),
            ("PASS x", "-ERR unknown command, or not at this point"),
            ("STLS", "-ERR unknown command, or not at this point"),
        ],
        [
            ("TOP 1", "-ERR TOP wants a message number and a number of lines"),
            ("TOP 1 x", "-ERR TOP wants a message number and a number of lines"),
            ("TOP 1 -1", "-ERR TOP wants a message number and a number of lines"),
            ("RETR", "-ERR no such message"),
            ("DELE", "-ERR no such message"),
            ("RETR 99999999999999999999", "-ERR no such message"),
        ],
        [
            ("LIST ²", "-ERR no such message"),
            ("RETR ①", "-ERR no such message"),
            ("TOP 1 ²", "-ERR TOP wants a message number and a number of lines"),
            ("DELE ³", "-ERR no such message"),
        ],
    ],
)
def test_dialogues_in_the_transaction_state(dialogue: list[tuple[str, str]]) -> None:
    session = signed_in()
    for line, answer in dialogue:
        assert say(session, line) == answer + "\r\n"


@pytest.mark.parametrize(
    ("is_tls", "can_start", "dialogue"),
    [
        (
            False,
            True,
            [
                ("USER alice", "-ERR [AUTH] TLS first: STLS"),
                ("PASS x", "-ERR [AUTH] TLS first: STLS"),
                ("STAT", "-ERR unknown command, or not at this point"),
            ],
        ),
        (
            False,
            False,
            [("STLS", "-ERR TLS is active already or not offered"), ("USER alice", "-ERR [AUTH] TLS first: STLS")],
        ),
        (
            True,
            True,
            [
                ("STLS", "-ERR TLS is active already or not offered"),
                ("USER", "-ERR USER wants a name"),
                ("PASS x", "-ERR USER first, then PASS with the password"),
                ("USER alice", "+OK now the password"),
                ("PASS", "-ERR USER first, then PASS with the password"),
                ("RETR 1", "-ERR unknown command, or not at this point"),
                ("APOP a b", "-ERR unknown command, or not at this point"),
                ("", "-ERR unknown command, or not at this point"),
            ],
        ),
    ],
)
def test_dialogues_before_sign_in(is_tls: bool, can_start: bool, dialogue: list[tuple[str, str]]) -> None:
    session = fresh(is_tls=is_tls, can_start_tls=can_start)
    for line, answer in dialogue:
        assert say(session, line) == answer + "\r\n"
    assert session.state is State.AUTHORIZATION


def test_a_password_may_hold_blanks_also_at_its_ends() -> None:
    session = fresh()
    say(session, "user  alice@example.org ")
    assert session.command(b"pass  a b ") == SignIn("alice@example.org", " a b ")


def test_tls_makes_the_session_forget_the_user() -> None:
    session = fresh(is_tls=False)
    assert session.command(b"STLS") == StartTls(b"+OK Begin TLS negotiation\r\n")
    session.user = "early"
    session.secured()
    assert session.is_tls
    assert say(session, "PASS x").startswith("-ERR")


def test_sign_in_gives_the_maildrop_and_failure_wants_the_user_again() -> None:
    session = fresh()
    say(session, "USER alice")
    assert session.not_signed_in(is_locked=False) == Say(b"-ERR [AUTH] wrong user or password\r\n")
    assert say(session, "PASS x").startswith("-ERR USER first")
    assert session.not_signed_in(is_locked=True) == Say(b"-ERR [SYS/TEMP] too many failed logins, try again later\r\n")
    assert session.signed_in(1, list(ITEMS)) == Say(b"+OK 3 messages\r\n")
    assert session.state is State.TRANSACTION


def test_capabilities_follow_the_state_of_tls() -> None:
    def words(session: Pop3Session) -> set[str]:
        first, *found, dot = say(session, "CAPA").removesuffix("\r\n").split("\r\n")
        assert (first, dot) == ("+OK Capability list follows", ".")
        return set(found)

    common = {"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"}
    assert words(fresh(is_tls=False)) == common | {"STLS"}
    assert words(fresh(is_tls=False, can_start_tls=False)) == common
    assert words(fresh()) == common | {"USER", "SASL PLAIN LOGIN"}


def test_retrieving_names_the_item_and_the_lines() -> None:
    session = signed_in()
    assert session.command(b"RETR 2") == Retrieve(ITEMS[1], b"+OK 50 octets\r\n", None)
    assert session.command(b"TOP 1 0") == Retrieve(ITEMS[0], b"+OK top of message follows\r\n", 0)


def test_quit_removes_only_after_sign_in_and_what_was_marked() -> None:
    session = signed_in()
    for line in ("DELE 3", "DELE 1"):
        say(session, line)
    assert session.command(b"QUIT") == Finish((11, 15), b"+OK bye\r\n")
    assert fresh().command(b"QUIT") == Finish((), b"+OK bye\r\n")


def test_too_many_errors_are_hopeless() -> None:
    session = fresh()
    for _ in range(MAX_ERRORS):
        assert not session.is_hopeless
        say(session, "NONSENSE")
    assert session.is_hopeless


@given(
    st.binary(max_size=40)
    | st.lists(
        st.sampled_from(
            [b"TOP", b"RETR", b"LIST", b"UIDL", b"DELE", b" ", b"1", b"2", "²".encode(), b"USER", b"PASS", b"\t"]
        )
    ).map(b"".join)
)
def test_no_line_breaks_the_session(line: bytes) -> None:
    for session in (fresh(), signed_in()):
        action = session.command(line)
        if isinstance(action, Say):
            assert action.octets.startswith((b"+OK", b"-ERR"))
            assert action.octets.endswith(b"\r\n")


def top(message: bytes, lines: int) -> bytes:
    header, blank, body = message.partition(b"\r\n\r\n")
    if not blank:
        return message
    kept = body.split(b"\r\n")[:-1][:lines]
    return header + blank + b"".join(line + b"\r\n" for line in kept)


@given(
    st.lists(st.sampled_from([b"a", b"\r\n", b".", b"\r", b"\n"]), max_size=25).map(b"".join),
    st.integers(0, 4),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_top_is_the_same_for_any_pieces(text: bytes, lines: int, sizes: list[int]) -> None:
    message = b"A: b\r\n" + text.lstrip(b"\r\n") + b"\r\n"
    keeper, found, at, turn = TopFilter(lines), b"", 0, 0
    while at < len(message):
        size = sizes[turn % len(sizes)]
        found += keeper.feed(message[at : at + size])
        at, turn = at + size, turn + 1
    assert found == top(message, lines)


def test_top_says_when_it_is_done() -> None:
    keeper = TopFilter(1)
    assert keeper.feed(b"A: b\r\n\r\none\r\ntwo\r\nthree\r\n") == b"A: b\r\n\r\none\r\n"
    assert keeper.is_done
    assert keeper.feed(b"four\r\n") == b""
