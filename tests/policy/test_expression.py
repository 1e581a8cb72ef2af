"""Conditions: operators, none, types, places of errors, and what is refused however it is dressed up."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.verdict import Stage
from gateway.policy.catalogue import CONSTANTS, FACTS
from gateway.policy.context import Context
from gateway.policy.expression import Condition, compile_condition
from gateway.policy.lists import NamedList, build
from gateway.policy.syntax import MAX_LENGTH, ExpressionError
from gateway.policy.values import PENDING
from tests.support.policies import STRANGER, USER, context

MESSAGE = b"From: Bob <bob@Sender.Example>\r\nSubject: Free offer\r\n\r\nbody\r\n"
LISTS = {
    name: NamedList(name, kind, build(kind, entries), Path(f"{name}.{kind}"))
    for name, kind, entries in (
        ("nets", "networks", ["203.0.113.0/24"]),
        ("doms", "domains", [".sender.example"]),
        ("adrs", "addresses", ["bob@sender.example"]),
        ("wrds", "words", ["Free Offer"]),
        ("with-dash", "words", ["x"]),
    )
}


def at_message(session: object = STRANGER) -> Context:
    return context(session, sender="bob@sender.example", message=MESSAGE, count=3, errors=2)  # type: ignore[arg-type]


def compiled(text: str, stage: Stage = Stage.MESSAGE) -> Condition:
    return compile_condition(text, stage, LISTS)


def failure(text: str, stage: Stage = Stage.MESSAGE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compiled(text, stage)
    return caught.value


def shown(text: str, stage: Stage = Stage.MESSAGE) -> tuple[str, str]:
    """The message and the piece of the text that the error points at."""
    error = failure(text, stage)
    return str(error), text[error.column : error.column + error.length]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("false", False),
        ("true and false", False), ("true or false", True),
        ("not true or true", True), ("false and false or true", True), ("true or false and false", True),
        ("1 < 2 <= 2", True), ("1 < 3 < 2", False), ("2 > 1 >= 1", True), ("2 >= 3", False), ("1 != 1.0", False),
        ("2 + 3 * 4 == 14", True), ("2 - 3 == -1", True), ("1.5 * 2 == 3", True), ("KB * KB == MB", True),
        ("GB == MB * KB", True), ("HOUR == 60 * MINUTE and DAY == 24 * HOUR", True), ("'a' == 'A'", False),
        ("'a' in ['a', 'b']", True), ("'a' not in ['a']", False), ("1 in []", False), ("'ell' in 'hello'", True),
        ("'x' not in 'hello'", True), ("none == none", True), ("none != 1", True), ("none < 1", False),
        ("none >= none", False), ("not none > 1", True), ("'a' == none", False),
        ("-5 < -4", True), ("'@nets' == '@nets'", True), ('"it\'s" == "it\'s"', True),
    ],
)  # fmt: skip
def test_operators_on_literals(text: str, value: bool) -> None:
    condition = compiled(text, Stage.CONNECT)
    assert condition.constant is value
    assert condition.test(context()) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("client.ip == '203.0.113.7'", True), ("client.ip in @nets", True), ("client.ip not in @nets", False),
        ("client.ip in ['10.0.0.0/8', '203.0.113.7']", True), ("client.ip in ['10.0.0.0/8']", False),
        ("client.ip in []", False),
        ("-client.port < -1", True), ("client.port == 40000", True), ("client.port > KB * 10", True),
        ("sender.domain in @doms", True), ("sender.address in @adrs", True), ("message.subject in @wrds", True),
        ("auth.user in @wrds", False), ("auth.user not in @wrds", True), ("auth.user in ['x', none]", True),
        ("auth.user == none", True), ("auth.user", False), ("not auth.user", True), ("'x' in auth.user", False),
        ("'x' not in auth.user", True), ("'Free' in message.subject", True), ("'free' in message.subject", False),
        ("header('subject') == 'Free offer'", True), ('header("X-None") == none', True),
        ("message.from_domain == 'sender.example'", True), ("recipients.count == 3 and session.errors == 2", True),
        ("message.size * 2 > message.size + 1", True), ("client.trusted == false", True),
        ("message.from_address == sender.address", True), ("session.tls.active or session.tls.version", False),
    ],
)  # fmt: skip
def test_operators_on_facts(text: str, value: bool) -> None:
    condition = compiled(text)
    assert condition.constant is None
    assert condition.test(at_message()) is value


def test_a_condition_names_the_facts_and_lists_that_it_may_read() -> None:
    condition = compiled("client.ip in @nets and (auth.user or header('X') in @wrds) and client.ip != none")
    assert condition.facts == ("client.ip", "auth.user", 'header("X")')
    assert condition.lists == ("nets", "wrds")
    assert condition.text.startswith("client.ip")


def test_a_fact_is_read_only_as_far_as_the_answer_hangs_on_it_and_only_once() -> None:
    looked_at = at_message(USER)
    assert compiled("auth.user or header('X') == 'y'").test(looked_at)
    assert looked_at.seen == {"auth.user": "alice@example.org"}
    looked_at.session = replace(USER, user=None)
    assert compiled("auth.user").test(looked_at)


def test_a_list_with_a_dash_is_named_with_an_underscore() -> None:
    assert compiled("'x' == auth.user or auth.user in @with_dash").lists == ("with-dash",)


@pytest.mark.parametrize(
    ("text", "message", "piece"),
    [
        ("client.prt == 1", "unknown fact `client.prt`. Did you mean `client.port`?", "client.prt"),
        ("clinet.ip in @nets", "unknown fact `clinet.ip`. Did you mean `client.ip`?", "clinet.ip"),
        ("true and qqqqq", "unknown fact `qqqqq`", "qqqqq"),
        ("client.ip in @net", "unknown list `@net`. Did you mean `@nets`?", "@net"),
        ("heder('X') == 'x'", "unknown function `heder`. Did you mean `header`?", "heder"),
        ("message.size > 5 * MBB", "unknown fact `MBB`. Did you mean `MB`?", "MBB"),
        ("message.size > client.ip", "ordering wants numbers, this is address", "client.ip"),
        ("message.subject < 5", "ordering wants numbers, this is text", "message.subject"),
        ("client.trusted >= 0", "ordering wants numbers, this is true or false", "client.trusted"),
        ("message.size == '5'", "cannot compare number with text", "'5'"),
        ("client.trusted == 'yes'", "cannot compare true or false with text", "'yes'"),
        ("client.trusted == 1", "cannot compare true or false with number", "1"),
        ("message.size + auth.user > 1", "arithmetic wants numbers, this is text", "auth.user"),
        ("message.size + none > 1", "arithmetic wants numbers, this is none", "none"),
        ("message.size / 2 > 1", "only + - * are offered", "message.size / 2"),
        ("2 ** 9 > 1", "only + - * are offered", "2 ** 9"),
        ("sender.domain in @nets", "@nets is a list of networks, this is text", "sender.domain"),
        ("client.ip in @doms", "@doms is a list of domains, this is address", "client.ip"),
        ("message.size in @wrds", "@wrds is a list of words, this is number", "message.size"),
        ("message.size in ['a']", "the list holds text, the left side is number", "['a']"),
        ("message.subject in ['a', 1]", "the list holds number, the left side is text", "['a', 1]"),
        ("message.size in 5", "`in` wants a list or a text on its right, this is number", "5"),
        ("message.size == [1]", "compare with a list by `in`", "[1]"),
        ("auth.user in [client.ip]", "a list holds literals only", "[client.ip]"),
        ("auth.user is none", "use == or in instead of is", "auth.user"),
        ("client.ip in ['10.0.0.1/8']", "10.0.0.1/8 has host bits set", "['10.0.0.1/8']"),
        ("header('a', 'b') == 'x'", "`header` takes one literal text", "header('a', 'b')"),
        ("header(auth.user) == 'x'", "`header` takes one literal text", "header(auth.user)"),
        ("header(name='x') == 'x'", "`header` takes one literal text", "header(name='x')"),
        ("client.port == ) and", "this is no expression", ")"),
        ("client.port == 5; 1", "this is no expression", ";"),
        ("'éé' == auth.usr", "unknown fact `auth.usr`. Did you mean `auth.user`?", "auth.usr"),
        ("  \n  client.prt", "unknown fact `client.prt`. Did you mean `client.port`?", "client.prt"),
        ("auth.user and\n  client.prt", "unknown fact `client.prt`. Did you mean `client.port`?", "client.prt"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_and_point_at_it(text: str, message: str, piece: str) -> None:
    assert shown(text) == (message, piece)


@pytest.mark.parametrize(
    ("text", "stage", "message"),
    [
        ("helo.name == 'x'", Stage.CONNECT, "fact `helo.name` is not known at stage connect"),
        ("recipient.address == 'x'", Stage.SENDER, "fact `recipient.address` is not known at stage sender"),
        ("message.size > 1", Stage.RECIPIENT, "fact `message.size` is not known at stage recipient"),
        ("header('X') == 'x'", Stage.RECIPIENT, "function `header` is not known at stage recipient"),
    ],
)
def test_a_fact_before_its_stage_is_an_error(text: str, stage: Stage, message: str) -> None:
    assert str(failure(text, stage)) == message


@pytest.mark.parametrize(
    "text",
    [
        "().__class__", "().__class__.__bases__[0].__subclasses__()", "lambda: 1", "[x for x in [1]]", "{1: 2}",
        "{x for x in [1]}", "(x for x in [1])", "(x := 1)", "f'{client.ip}'", "f''", "1 if true else 2", "[1][0]",
        "client.ip.__class__", "client.__dict__", "'a'.upper()", "'a' % 1 == 'a'", "b'x' == b'x'", "...", "1j", "True",
        "None", "__import__('os')", "print(1)", "exec('1')", "await x", "*x", "yield 1", "~1", "+1",
        "(1, 2)", "header('x').y", "client.ip in {'a'}", "1 @ 2", "1 // 2", "1 << 2", "x = 1", "import os", "`1`",
        "auth.user('x')", "header(f'x')", "header(*['x'])", "header(**{})", "@nets.x", "@", "", " ", "\n", "\0",
    ],
)  # fmt: skip
def test_what_is_not_the_language_is_refused(text: str) -> None:
    error = failure(text)
    assert 0 <= error.column <= max(0, len(text) - 1)
    assert error.length >= 1


@pytest.mark.parametrize(
    "text",
    [
        "not " * 900 + "true", "(" * 150 + "true" + ")" * 150 + " and (", "[" * 1500 + "]" * 1500, "-" * 3000 + "1",
        "1" + "+1" * 1900 + " > 0", "a." * 1500 + "a", "header(" * 500 + ")" * 500, "x" * (MAX_LENGTH + 1),
    ],
)  # fmt: skip
def test_deep_and_long_texts_are_refused(text: str) -> None:
    failure(text)


@pytest.mark.parametrize(
    "text", ["1", "''", "none", "[]", "[0]", "not none", "client.port and 'x'", "true or 5", "5 or auth.user"]
)
def test_a_literal_that_stands_as_a_condition_is_refused(text: str) -> None:
    assert str(failure(text)) == "this is always true or always false here; compare it with something"


def test_a_condition_of_the_greatest_length_is_taken() -> None:
    text = "client.port in [" + ", ".join(["12345"] * 560) + "]"
    assert len(text) < MAX_LENGTH
    assert compiled(text).test(context()) is False


def test_a_comment_in_a_condition_of_several_lines_swallows_nothing() -> None:
    """Either the comment is refused or what follows it still counts."""
    try:
        condition = compiled("client.trusted # our own\nor auth.user")
    except ExpressionError:
        return
    assert condition.facts == ("client.trusted", "auth.user")


def test_an_at_sign_after_an_escaped_quote_stays_text() -> None:
    condition = compiled("header('Subject') == 'it\\'s @home'")
    assert condition.test(context(message=b"Subject: it's @home\r\n\r\n"))


def test_the_letter_that_stands_for_the_list_sign_is_no_list_sign() -> None:
    assert "unknown" in str(failure("client.ip in ǁnets"))


def test_an_address_is_compared_as_an_address() -> None:
    session = replace(STRANGER, client_ip="2001:db8::1")
    assert compiled("client.ip == '2001:DB8:0::1'").test(context(session))


def test_a_network_beside_equals_is_an_error() -> None:
    assert "10.0.0.0/8" in str(failure("client.ip == '10.0.0.0/8'"))


def test_an_address_in_a_text_is_told_with_sense() -> None:
    assert shown("client.ip in '10.0.0.1'")[0] != "`in` wants a list or a text on its right, this is text"


def test_a_call_of_something_that_is_no_name_is_told_with_sense() -> None:
    assert "``" not in shown("'a'.upper()")[0]


def test_a_dash_in_a_list_name_is_told_with_sense() -> None:
    assert "with_dash" in shown("auth.user in @with-dash")[0]


def test_numbers_too_large_for_each_other_are_an_expression_error_or_none() -> None:
    with suppress(ExpressionError):
        assert compiled("1.5 * " + "9" * 400 + " > client.port").test(context()) is False


def test_a_surrogate_is_not_called_nesting() -> None:
    assert "nested" not in str(failure("auth.user == '\ud800'"))


WORDS = [
    *FACTS,
    *CONSTANTS,
    *"()[]<+*-,.#:{é\"'\\ \n",
    "and",
    "or",
    "not",
    "in",
    "==",
    "!=",
    ">=",
    "@nets",
    "@wrds",
    "header(",
]
WORDS += ["'x'", "1", "2.5", "none", "true", "if", "lambda"]
texts = st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@given(texts, st.sampled_from(list(Stage)))
def test_any_text_is_a_condition_or_an_expression_error(text: str, stage: Stage) -> None:
    found: Condition | ExpressionError
    try:
        found = compiled(text, stage)
    except ExpressionError as error:
        found = error
    if isinstance(found, ExpressionError):
        assert 0 <= found.column <= len(text)
        return
    condition = found
    looked_at = context(sender="", recipient="alice@example.org", message=MESSAGE)
    value = condition.test(looked_at)
    assert isinstance(value, bool) or (value is PENDING and looked_at.pending)
    if condition.constant is not None:
        assert condition.constant is value
    assert set(looked_at.seen) <= set(condition.facts)
