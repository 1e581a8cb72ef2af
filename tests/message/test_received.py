"""Received fields of the MTAs there are: who the client was, and no word of its own taken for an address."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.transaction import Session, Tls
from gateway.message.received import Brought, brought_by, names_client
from gateway.message.trace import received

CLIENT = Brought("192.0.2.1", "client.example")


@pytest.mark.parametrize(
    "value",
    [
        "from client.example (name.example [192.0.2.1]) by mx.example (Postfix) with ESMTPS id 4X; Tue",
        "from client.example (unknown [192.0.2.1])\r\n\tby mx.example (Postfix) with ESMTP id 4X\r\n\tfor <a@b>; Tue",
        "from client.example ([192.0.2.1]) by mx.example with ESMTP; Tue",
        "from client.example (name.example [192.0.2.1] (may be forged)) by mx.example (8.17.1/8.17.1) with ESMTP",
        "from name.example ([192.0.2.1] helo=client.example) by mx.example with esmtps (TLS1.3) (Exim 4.96)",
        "from name.example ([192.0.2.1]:4711 helo=client.example)\r\n\tby mx.example with esmtp (Exim 4.96)",
        "from [192.0.2.1] (helo=client.example) by mx.example with esmtp (Exim 4.96)",
        "from [192.0.2.1] (port=4711 helo=client.example) by mx.example with esmtp (Exim 4.96)",
        "from unknown (HELO client.example) (192.0.2.1) by mx.example with SMTP; 1 Jan",
        "from unknown (HELO client.example) (user@192.0.2.1) by mx.example with SMTP; 1 Jan",
        "from client.example (192.0.2.1) by mx.example (203.0.113.9) with Microsoft SMTP Server (TLS) id 15.1",
        "from client.example (::ffff:192.0.2.1) by mx.example with SMTP",
    ],
)
def test_the_client_of_each_mta(value: str) -> None:
    assert brought_by(f" {value}".encode()) == CLIENT


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("from client.example ([192.0.2.1]) by mx", CLIENT),
        ("from client.example (x [IPv6:2001:db8::1]) by mx", Brought("2001:db8::1", "client.example")),
        ("from client.example (2001:db8::1) by mx", Brought("2001:db8::1", "client.example")),
        ("from name.example ([192.0.2.1]) by mx.example with esmtp (Exim 4.96)", Brought("192.0.2.1", "name.example")),
        ("from [192.0.2.1] by mx.example with esmtp", Brought("192.0.2.1", "")),
        # What the client says of itself is no address.
        ("from [203.0.113.9] (unknown [192.0.2.1]) by mx", Brought("192.0.2.1", "[203.0.113.9]")),
        ("from [192.0.2.1] (helo=[203.0.113.9]) by mx", Brought("192.0.2.1", "[203.0.113.9]")),
        ("from unknown (HELO [203.0.113.9]) (192.0.2.1) by mx", Brought("192.0.2.1", "[203.0.113.9]")),
        ("from name ([192.0.2.1] helo=[203.0.113.9]) by mx", Brought("192.0.2.1", "[203.0.113.9]")),
        ("from [192.0.2.66] (helo=foo.test [192.0.2.1]) by mx (8.17)", Brought("192.0.2.1", "[192.0.2.66]")),
        ("from a(b (unknown [192.0.2.1]) by mx", Brought("192.0.2.1", "a(b")),
        ("from a)(b[192.0.2.66]) (unknown [192.0.2.1]) by mx", Brought("192.0.2.1", "a)(b[192.0.2.66])")),
        ("from unknown (HELO a)(192.0.2.66) (192.0.2.1) by mx", Brought("192.0.2.1", "a)(192.0.2.66")),
        ("from unknown (HELO x) (a@b@192.0.2.1) by mx", Brought("192.0.2.1", "x")),
        ("from x (IDENT:root@host [192.0.2.1]) by mx (8.9)", Brought("192.0.2.1", "x")),
        (f"from {'x' * 9000} (unknown [192.0.2.1]) by mx", Brought("192.0.2.1", "x" * 255)),
        # Nothing that is known.
        ("by mx.example (Postfix, from userid 1000) id 4X; Tue", None),
        ("from client.example by mx.example with SMTP", None),
        ("from client.example (x [300.1.1.1]) by mx", None),
        ("from user by mx.example with local (Exim 4.96)", None),
        ("", None),
    ],
)  # fmt: skip
def test_what_stands_where(value: str, found: Brought | None) -> None:
    assert brought_by(f" {value}".encode()) == found


@pytest.mark.parametrize(
    ("value", "is_named"),
    [
        ("from somewhere, by pigeon", True),
        ("FROM x by y with ESMTPS id z", True),
        ("from x by y with Microsoft SMTP Server", True),
        ("from x (using TLSv1.3 with cipher AES (256/256 bits)) by y (Postfix) with ESMTPS id z", True),
        ("from x (using TLSv1.3 with cipher AES (256/256 bits)) by y", True),
        ("from Debian-exim by hop.example with local (Exim 4.96)", False),
        ("from debian-spamd by hop.example with spam-scanned (Exim 4.96)", False),
        ("from localhost by hop.example with LMTP id x", False),
        ("from 192.0.2.66 (SquirrelMail authenticated user bob) by hop.example with HTTP", False),
        ("by hop.example (Postfix, from userid 1001) id x", False),
        ("(qmail 12345 invoked from network); 24 Nov 2026", False),
        ("", False),
    ],
)
def test_whether_somebody_brought_it(value: str, is_named: bool) -> None:
    assert names_client(f" {value}".encode()) is is_named


@pytest.mark.parametrize("ip", ["192.0.2.1", "2001:db8::7"])
def test_our_own(ip: str) -> None:
    session = Session("S", "smtp", ip, 25, False, "name.example", "[203.0.113.9]", True, Tls("TLSv1.3", "X"))
    field = received(session, "mx.example.org", "Q", "", 0.0)
    assert brought_by(field.partition(b":")[2]) == Brought(ip, "[203.0.113.9]")


@given(st.binary(max_size=300))
def test_any_value_gives_an_answer(value: bytes) -> None:
    found = brought_by(b" from " + value)
    assert found is None or ip_address(found.ip)


def test_a_long_value_is_no_work() -> None:
    for piece in (b"(", b"a (", b" helo=", b"[1"):
        assert brought_by(b"from x (" + piece * 100_000) is None
