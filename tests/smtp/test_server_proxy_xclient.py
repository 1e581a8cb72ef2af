"""PROXY v1 and v2 and XCLIENT of a running gateway: who the client is, and who may relay."""

import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.support.gateway import STRANGER, Gateway
from tests.support.raw import RawClient, RawReply, message, temporary_gateway, traced, wait_stored

PROXY = "127.0.0.20"  # in proxy_from, and in trusted, which must not help it
XPEER = "127.0.0.30"  # in xclient_from, and in trusted
BOTH = "127.0.0.40"  # in both, and in trusted
CLIENT = "192.0.2.77"  # a stranger
FRIEND = "198.51.100.5"  # in trusted
FRIEND6 = "2001:db8:5::1"  # in trusted
LISTENERS = ("smtp", "submission", "submissions")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    settings: dict[str, dict[str, object]] = {
        "listen": {"proxy_from": [f"{PROXY}/32", f"{BOTH}/32"], "xclient_from": [f"{XPEER}/32", f"{BOTH}/32"]},
        "networks": {"trusted": ["127.0.0.0/26", "198.51.100.0/24", "2001:db8:5::/48"]},
        "limits": {"errors": 50, "connections_by_address": 4},
    }
    with temporary_gateway(settings=settings) as running:
        yield running


def v1(ip: str, port: int = 40000) -> bytes:
    family, to = ("TCP4", "192.0.2.1") if "." in ip else ("TCP6", "2001:db8::1")
    return f"PROXY {family} {ip} {to} {port} 25\r\n".encode()


def v2(ip: str, port: int = 40000, *, tlv: bytes = b"") -> bytes:
    address = ip_address(ip)
    to = ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
    body = address.packed + to.packed + struct.pack("!HH", port, 25) + tlv
    return SIGNATURE + bytes([0x21, 0x11 if address.version == 4 else 0x21]) + struct.pack("!H", len(body)) + body


def v2_local(body: bytes = b"") -> bytes:
    return SIGNATURE + b"\x20\x00" + struct.pack("!H", len(body)) + body


def relay_reply(client: RawClient) -> RawReply:
    """The answer to a recipient elsewhere: 250 for those who may relay, 554 for others."""
    client.ehlo()
    assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
    return client.line("RCPT TO:<x@remote.test>")


def client_of(gateway: Gateway, answer: RawReply) -> tuple[str, int, str | None]:
    """Address, port and name of the client whom the refusal was given to, by the trace."""
    found = traced(gateway, answer)
    return found["client"], found["port"], found["name"]  # type: ignore[return-value]


# --- PROXY ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "ip"),
    [
        (v1(CLIENT), CLIENT),
        (v1("2001:db8:77::9"), "2001:db8:77::9"),
        (v2(CLIENT), CLIENT),
        (v2("2001:db8:77::9"), "2001:db8:77::9"),
        (v2(f"::ffff:{CLIENT}"), CLIENT),
    ],
    ids=["v1-tcp4", "v1-tcp6", "v2-tcp4", "v2-tcp6", "v2-mapped"],
)
def test_a_client_behind_the_proxy_is_judged_by_its_own_address(gateway: Gateway, header: bytes, ip: str) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, before=header) as client:
        answer = relay_reply(client)
        assert answer.code == 554
    assert client_of(gateway, answer) == (ip, 40000, None)


@pytest.mark.parametrize("ip", [FRIEND, FRIEND6])
@pytest.mark.parametrize("version", [1, 2])
def test_a_trusted_client_behind_the_proxy_may_relay(gateway: Gateway, version: int, ip: str) -> None:
    header = v1(ip) if version == 1 else v2(ip, tlv=b"\x05\x00\x04uniq")
    with RawClient(gateway.ports["smtp"], source=PROXY, before=header) as client:
        assert relay_reply(client).code == 250


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 198.51.100.5 192.0.2.1 1 2\r\n",
        v2_local(),
        v2_local(ip_address(FRIEND).packed * 2 + b"\0\1\0\2"),
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x31\x00\xd8" + b"/tmp/x".ljust(108, b"\0") * 2,
    ],
    ids=["v1-unknown", "v1-unknown-with-addresses", "v2-local", "v2-local-with-addresses", "v2-unspec", "v2-unix"],
)
def test_a_proxy_that_speaks_for_itself_is_served_but_may_not_relay(gateway: Gateway, header: bytes) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, before=header) as client:
        answer = relay_reply(client)
        assert answer.code == 554
        assert client.line("RCPT TO:<alice@example.org>").code == 250
    assert client_of(gateway, answer)[0] == PROXY


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.test\r\n",
        b"PROXY TCP4 198.51.100.5\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 198.51.100.5 192.0.2.1 40000\r\n",
        b"PROXY TCP4 198.51.100.5 192.0.2.1 40000 99999\r\n",
        b"PROXY TCP4 198.51.100.999 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 2001:db8:5::1 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 198.51.100.5 192.0.2.1 1 2\r\n",
        b"PROXY UDP4 198.51.100.5 192.0.2.1 1 2\r\n",
        b"PROXY  TCP4 198.51.100.5 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 198.51.100.5 192.0.2.1 1 2 3\r\n",
        b"PROXY TCP4 198.51.100.5 192.0.2.1 1 2\n" + b"x" * 100,
        b"PROXY TCP4 " + b"1" * 100 + b"\r\n",
        b"proxy tcp4 198.51.100.5 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 198.51.100.5 192.0.2.1 \xff 2\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x22\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x51\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x14\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x11\x00\x04" + b"\0" * 4,
        SIGNATURE + b"\x21\x21\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x11\xff\xff" + b"\0" * 3000,
        SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c" + b"\0" * 12,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_without_a_valid_header_the_proxy_is_closed_without_a_word(gateway: Gateway, octets: bytes) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as client:
        client.send(octets)
        client.try_send(b"EHLO client.test\r\n")
        assert client.rest(4.0) == b""


def test_a_malformed_header_is_no_fault_of_the_program(gateway: Gateway) -> None:
    for octets in (b"PROXY TCP4\r\n", b"PROXY TCP4 198.51.100.5\r\n", SIGNATURE + b"\x21\x11\x00\x04" + b"\0" * 4):
        with RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as client:
            client.send(octets)
            assert client.rest(4.0) == b""
    with RawClient(gateway.ports["smtp"], source=PROXY, before=v1(CLIENT)) as client:
        assert relay_reply(client).code == 554
    assert "Traceback" not in gateway.log()
    assert "never retrieved" not in gateway.log()


def test_a_silent_proxy_is_closed_soon_and_a_closing_one_at_once(gateway: Gateway) -> None:
    with (
        RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as silent,
        RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as half,
    ):
        half.send(b"PROXY TCP4 192")
        with RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as closing:
            closing.send(b"PROXY TCP4 192")
            closing.half_close()
            assert closing.rest(2.0) == b""
        assert silent.rest(8.0) == b""
        assert half.rest(8.0) == b""


@pytest.mark.parametrize("header", [v1(CLIENT), v2(CLIENT, tlv=b"\x05\x00\x04uniq"), v2_local()])
def test_a_header_split_in_pieces_is_read_whole_and_no_octet_more(gateway: Gateway, header: bytes) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, greet=False) as client:
        for octet in header[:-1]:
            client.send(bytes([octet]))
        assert client.is_silent(0.05)
        client.send(header[-1:] + b"EHLO client.test\r\nNOOP\r\n")
        assert client.codes(3) == [220, 250, 250]


def test_the_header_comes_before_implicit_tls(gateway: Gateway) -> None:
    for header in (v1(FRIEND), v2(CLIENT)):
        with RawClient(gateway.ports["submissions"], source=PROXY, before=header, tls=True) as client:
            client.ehlo()
            assert client.line("MAIL FROM:<alice@example.org>").code == 530
            assert client.login().code == 235
            client.envelope("x@remote.test", sender="alice@example.org")


def test_implicit_tls_without_the_header_is_closed(gateway: Gateway) -> None:
    with (
        pytest.raises((OSError, EOFError)),
        RawClient(gateway.ports["submissions"], source=PROXY, tls=True),
    ):
        pass


def test_starttls_keeps_who_the_client_behind_the_proxy_is(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, before=v1(CLIENT)) as client:
        client.ehlo()
        client.starttls()
        answer = relay_reply(client)
        assert answer.code == 554
    assert client_of(gateway, answer)[:2] == (CLIENT, 40000)
    with RawClient(gateway.ports["smtp"], source=PROXY, before=v1(FRIEND)) as client:
        client.ehlo()
        client.starttls()
        assert relay_reply(client).code == 250


def test_connections_are_counted_for_the_client_and_not_for_the_proxy(gateway: Gateway) -> None:
    clients = []
    try:
        for number in range(4):
            for ip in ("203.0.113.1", "203.0.113.2"):
                clients.append(RawClient(gateway.ports["smtp"], source=PROXY, before=v1(ip, 5000 + number)))
                assert clients[-1].greeting.code == 220
        with RawClient(gateway.ports["smtp"], source=PROXY, before=v1("203.0.113.1")) as one_more:
            assert one_more.greeting.code == 421
    finally:
        for client in clients:
            client.close()


def test_a_header_from_a_peer_outside_of_proxy_from_is_a_bad_command(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source="127.0.0.99") as client:
        assert client.line(v1(FRIEND)[:-2]).code == 500
        answer = relay_reply(client)
        assert answer.code == 554
    assert client_of(gateway, answer)[0] == "127.0.0.99"


def test_only_one_header_is_taken(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, before=v1(CLIENT) + v1(FRIEND), greet=False) as client:
        assert client.codes(2) == [220, 500]
        assert relay_reply(client).code == 554


def test_the_received_field_names_the_client_behind_the_proxy(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=PROXY, before=v2(CLIENT)) as client:
        client.ehlo()
        client.begin_data()
        client.send(message("behind-the-proxy") + b".\r\n")
        assert client.reply().code == 250
    mail = wait_stored(gateway, "behind-the-proxy")
    assert f"[{CLIENT}]".encode() in mail
    assert PROXY.encode() not in mail


# --- XCLIENT ----------------------------------------------------------------------------------------------------------


def test_xclient_is_offered_to_listed_peers_only(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        assert client.extensions()["XCLIENT"].split() == ["NAME", "ADDR", "PORT", "PROTO", "HELO"]
    for source in ("127.0.0.1", STRANGER):
        with RawClient(gateway.ports["smtp"], source=source) as client:
            assert "XCLIENT" not in client.extensions()
            answer = client.line(f"XCLIENT ADDR={FRIEND}")
            assert answer.code == 502
            assert answer.id


def test_a_peer_that_may_xclient_and_does_not_may_not_relay(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        answer = relay_reply(client)
        assert answer.code == 554
        assert client.line("RCPT TO:<alice@example.org>").code == 250
    assert traced(gateway, answer)
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        assert client.line("XCLIENT NAME=friend.test").code == 220
        assert relay_reply(client).code == 554
        assert client.line("RSET").code == 250
        assert client.line("XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]").code == 220
        assert relay_reply(client).code == 554


def test_xclient_makes_the_client_another_and_begins_anew(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        answer = client.line(f"XCLIENT ADDR={CLIENT} PORT=4711 NAME=client+2Etest PROTO=ESMTP HELO=x.test")
        assert answer.code == 220
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 503
        answer = relay_reply(client)
        assert answer.code == 554
    assert client_of(gateway, answer) == (CLIENT, 4711, "client.test")


@pytest.mark.parametrize(
    ("address", "code"),
    [(FRIEND, 250), (f"IPv6:{FRIEND6}", 250), (CLIENT, 554), ("IPv6:2001:db8:77::9", 554), ("127.0.0.1", 250)],
)
def test_who_xclient_names_is_whom_trust_is_for(gateway: Gateway, address: str, code: int) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        assert client.line(f"xclient addr={address}").code == 220
        assert relay_reply(client).code == code


@pytest.mark.parametrize("address", ["::ffff:198.51.100.5", "IPv6:::ffff:198.51.100.5"])
def test_a_mapped_address_by_xclient_is_its_ipv4_address(gateway: Gateway, address: str) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        assert client.line(f"XCLIENT ADDR={address}").code == 220
        assert relay_reply(client).code == 250


def test_trust_by_xclient_goes_with_the_next_xclient(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        assert client.line(f"XCLIENT ADDR={FRIEND}").code == 220
        assert relay_reply(client).code == 250
        assert client.line(f"XCLIENT ADDR={CLIENT}").code == 503
        assert client.line("RSET").code == 250
        assert client.line(f"XCLIENT ADDR={CLIENT}").code == 220
        assert relay_reply(client).code == 554


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "ADDR",
        "ADDR=999.1.1.1",
        "ADDR=friend.test",
        "ADDR=198.51.100.5 ADDR=198.51.100.6",
        "LOGIN=alice",
        "DESTADDR=192.0.2.1",
        "PORT=0",
        "PORT=70000",
        "PORT=x",
        "NAME=a+0Db",
        "NAME=a+00b",
    ],
)
def test_a_malformed_xclient_is_refused_and_changes_nothing(gateway: Gateway, argument: str) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        answer = client.line(f"XCLIENT {argument}".rstrip())
        assert answer.code == 501
        assert answer.id
        answer = relay_reply(client)
        assert answer.code == 554


def test_xclient_drops_the_sign_in(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        client.starttls()
        client.ehlo()
        assert client.login().code == 235
        assert client.line(f"XCLIENT ADDR={CLIENT}").code == 220
        assert relay_reply(client).code == 554


def test_xclient_survives_starttls(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=XPEER) as client:
        client.ehlo()
        assert client.line(f"XCLIENT ADDR={FRIEND}").code == 220
        client.ehlo()
        client.starttls()
        assert relay_reply(client).code == 250


def test_a_peer_in_both_lists_needs_the_header_and_may_then_xclient(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=BOTH, greet=False) as client:
        client.send(b"EHLO client.test\r\n")
        assert client.rest(4.0) == b""
    with RawClient(gateway.ports["smtp"], source=BOTH, before=v2_local()) as client:
        assert relay_reply(client).code == 554
        assert client.line("RSET").code == 250
        assert client.line(f"XCLIENT ADDR={FRIEND}").code == 220
        assert relay_reply(client).code == 250


def test_a_client_behind_a_peer_in_both_lists_may_not_name_another(gateway: Gateway) -> None:
    """The header names a stranger: what comes behind it is the stranger's words, and not the proxy's."""
    with RawClient(gateway.ports["smtp"], source=BOTH, before=v1(CLIENT)) as client:
        assert "XCLIENT" not in client.extensions()
        assert client.line(f"XCLIENT ADDR={FRIEND}").code == 502
        assert relay_reply(client).code == 554
