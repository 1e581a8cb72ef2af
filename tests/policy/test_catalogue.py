"""Each fact of the catalogue: its value in contexts that know it, its stage, its kind."""

from dataclasses import replace

import pytest

from gateway.core.verdict import Stage
from gateway.policy.catalogue import FACTS, FUNCTIONS, is_known_at
from gateway.policy.context import STAGES, Context
from gateway.policy.values import PENDING, Kind
from tests.support.policies import OWN, STRANGER, USER, context

MESSAGE = (
    b"Received: from a by b; x\r\nReceived: from c by d; x\r\nFrom: =?utf-8?q?J=C3=B6rg?= <joerg@Sender.Example>\r\n"
    b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nList-Id: <x.y>\r\nAuto-Submitted: auto-replied; x=y\r\n\r\nbody \xff\r\n"
)
PLAIN = b"From: a@b.example\r\nAuto-Submitted: no\r\nPrecedence: first-class\r\nnonsense\r\n\r\nx\r\n"


def at(session: object = STRANGER, **more: object) -> Context:
    return context(session, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("client.ip", at(), "203.0.113.7"),
        ("client.port", at(), 40000),
        ("client.trusted", at(), False),
        ("client.trusted", at(OWN), True),
        ("session.listener", at(USER), "submission"),
        ("session.errors", at(errors=4), 4),
        ("session.direction", at(recipient="alice@example.org"), "inbound"),
        ("session.transactions", at(), 0),
        ("session.direction", at(USER, recipient="alice@example.org"), "internal"),
        ("session.direction", at(OWN, recipient="x@elsewhere.example"), "outbound"),
        ("session.tls.active", at(), False),
        ("session.tls.active", at(USER), True),
        ("session.tls.version", at(), None),
        ("session.tls.version", at(USER), "TLSv1.3"),
        ("session.tls.cipher", at(USER), "AES"),
        ("auth.user", at(), None),
        ("auth.user", at(USER), "alice@example.org"),
        ("auth.method", at(), None),
        ("auth.method", at(USER), "PLAIN"),
        ("helo.name", at(), "mx.sender.example"),
        ("helo.esmtp", at(), True),
        ("helo.is_literal", at(), False),
        ("helo.is_literal", at(replace(STRANGER, helo="[192.0.2.1]")), True),
        ("helo.is_valid", at(), True),
        ("helo.is_valid", at(replace(STRANGER, helo="[192.0.2.1]")), True),
        ("helo.is_valid", at(replace(STRANGER, helo="[192.0.2.999]")), False),
        ("helo.is_valid", at(replace(STRANGER, helo="localhost")), False),
        ("helo.is_valid", at(replace(STRANGER, helo="192.0.2.1")), False),
        ("helo.is_valid", at(replace(STRANGER, helo="")), False),
        ("helo.claims_us", at(), False),
        ("helo.claims_us", at(replace(STRANGER, helo="MAIL.example.ORG.")), True),
        ("helo.claims_us", at(replace(STRANGER, helo="example.org")), True),
        ("helo.claims_us", at(replace(STRANGER, helo="a.example.org")), False),
        ("sender.address", at(sender="Bob@x.example"), "Bob@x.example"),
        ("sender.address", at(sender=""), ""),
        ("sender.local", at(sender="Bob@x.example"), "Bob"),
        ("sender.domain", at(sender="Bob@X.example"), "x.example"),
        ("sender.domain", at(sender=""), ""),
        ("sender.is_null", at(sender=""), True),
        ("sender.local", at(sender=""), ""),
        ("sender.is_null", at(sender="a@x.example"), False),
        ("sender.is_local", at(sender="a@example.org"), True),
        ("sender.is_local", at(sender=""), False),
        ("sender.is_local", at(sender="a@x.example"), False),
        ("recipient.address", at(recipient="Alice@example.org"), "Alice@example.org"),
        ("recipient.local", at(recipient='"a b"@x.example'), "a b"),
        ("recipient.domain", at(recipient="a@X.example"), "x.example"),
        ("recipient.is_local", at(recipient="a@example.org"), True),
        ("recipient.is_local", at(recipient="a@x.example"), False),
        ("recipient.is_relayed", at(recipient="a@partner.example"), True),
        ("recipient.is_relayed", at(recipient="a@example.org"), False),
        ("recipient.exists", at(recipient="alice@example.org"), True),
        ("recipient.exists", at(recipient="bob@example.org"), False),
        ("recipient.exists", at(recipient="a@partner.example"), True),
        ("recipients.count", at(count=7), 7),
        ("message.size", at(message=MESSAGE), len(MESSAGE)),
        ("message.has_8bit", at(message=MESSAGE), True),
        ("message.has_8bit", at(message=PLAIN), False),
        ("message.subject", at(message=MESSAGE), "grüße"),
        ("message.subject", at(message=PLAIN), None),
        ("message.from_address", at(message=MESSAGE), "joerg@sender.example"),
        ("message.from_domain", at(message=MESSAGE), "sender.example"),
        ("message.from_domain", at(message=b"X: y\r\n\r\n"), None),
        ("message.header_count", at(message=MESSAGE), 6),
        ("message.hops", at(message=MESSAGE), 2),
        ("message.hops", at(message=PLAIN), 0),
        ("message.is_bulk", at(message=MESSAGE), True),
        ("message.is_bulk", at(message=PLAIN), False),
        ("message.is_bulk", at(message=b"Precedence: BULK\r\n\r\n"), True),
        ("message.is_auto_submitted", at(message=MESSAGE), True),
        ("message.is_auto_submitted", at(message=PLAIN), False),
        ("message.is_auto_submitted", at(message=b"X: y\r\n\r\n"), False),
        ("message.malformed", at(message=PLAIN), True),
        ("message.malformed", at(message=MESSAGE), PENDING),  # its parts are yet to be looked at
    ],
)
def test_a_fact_has_this_value(name: str, where: Context, value: object) -> None:
    found = FACTS[name].read(where)
    assert found == value
    assert type(found) is type(value)


KINDS = {
    Kind.BOOL: bool,
    Kind.NUMBER: int | float,
    Kind.TEXT: str | None,
    Kind.IP: str,
    Kind.LIST: tuple,
    Kind.RECORDS: tuple,
}


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("session", [STRANGER, OWN, USER])
def test_every_fact_is_of_its_kind_in_full_and_in_empty_contexts(name: str, session: object) -> None:
    fact = FACTS[name]
    assert fact.name == name
    assert fact.description
    contexts = (at(session), at(session, sender="a@b.example", recipient="c@example.org", message=MESSAGE))
    assert fact.read is not None or fact.provider
    for value in [fact.neutral] if fact.read is None else [fact.read(where) for where in contexts]:
        if value is PENDING and fact.provider:
            continue
        assert isinstance(value, KINDS[fact.kind])
        assert fact.kind is Kind.BOOL or not isinstance(value, bool)


def test_a_fact_is_known_from_its_stage_on() -> None:
    known = {stage: {name for name, fact in FACTS.items() if is_known_at(fact, stage)} for stage in STAGES}
    assert known[Stage.CONNECT] < known[Stage.HELO] < known[Stage.SENDER] < known[Stage.RECIPIENT]
    assert "recipient.address" in known[Stage.RECIPIENT] < known[Stage.MESSAGE]
    assert not is_known_at(FUNCTIONS["header"], Stage.RECIPIENT)
    assert is_known_at(FUNCTIONS["header"], Stage.MESSAGE)


def test_header_gives_the_first_such_field_decoded_or_none() -> None:
    call = FUNCTIONS["header"].call
    assert call(at(message=MESSAGE), "SUBJECT") == "grüße"
    assert call(at(message=MESSAGE), "X-None") is None
    assert call(at(), "Subject") is None


def test_an_internationalised_author_domain_is_compared_in_a_labels() -> None:
    where = at(message="From: x@bücher.example\r\n\r\n".encode())
    assert FACTS["message.from_domain"].read(where) == "xn--bcher-kva.example"
