"""XCLIENT arguments: who the client is, and what a proxy may not say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.xclient import Client, XclientError, parse_xclient


@pytest.mark.parametrize(
    ("argument", "client"),
    [
        ("ADDR=192.0.2.1", Client("192.0.2.1")),
        ("addr=IPV6:2001:DB8::1 port=25 name=mx.example", Client("2001:db8::1", 25, "mx.example")),
        ("NAME=[UNAVAILABLE] ADDR=192.0.2.1", Client("192.0.2.1")),
        ("NAME=[tempunavail]", Client()),
        ("NAME=a+2Db.example", Client(None, None, "a-b.example")),
        ("PROTO=ESMTP HELO=x", Client()),
        ("PORT=[UNAVAILABLE]", Client()),
        ("ADDR=2001:db8::1", Client("2001:db8::1")),
        ("ADDR=IPv6:::ffff:203.0.113.9", Client("203.0.113.9")),
    ],
)
def test_a_client(argument: str, client: Client) -> None:
    assert parse_xclient(argument) == client


@pytest.mark.parametrize(
    "argument",
    [
        "",
        " ",
        "ADDR",
        "ADDR=1 ADDR=2",
        "LOGIN=alice",
        "DESTADDR=1",
        "FOO=1",
        "=x",
        "ADDR=",
        "ADDR=x",
        "ADDR=IPV6:x",
        "ADDR=1.2.3",
        "PORT=",
        "PORT=0",
        "PORT=65536",
        "PORT=-1",
        "PORT=2x",
        "NAME=a+0Ab",
        "NAME=a+00b",
        "NAME=\u00fc",
        "NAME=+FF",
        "PORT=000025999999",
        "ADDR=IPV6:fe80::1%+5d+20x",
    ],
)
def test_a_wrong_argument_is_refused(argument: str) -> None:
    with pytest.raises(XclientError):
        parse_xclient(argument)


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(["ADDR=", "PORT=", "NAME=", "1", "+2", "+0A", " ", ":", "IPV6:", "[UNAVAILABLE]", "\u00b2"])
    ).map("".join)
)
def test_any_argument_is_a_client_or_an_error(argument: str) -> None:
    try:
        client = parse_xclient(argument)
    except XclientError:
        return
    assert client.port is None or 0 < client.port < 65536
    assert client.name is None or (client.name.isprintable() and client.name.isascii())
