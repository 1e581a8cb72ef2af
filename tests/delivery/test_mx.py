"""Which hosts are tried for a domain, and what is said when there are none."""

import asyncio

import pytest

from gateway.core.address import parse_domain
from gateway.core.ports import DnsFailure
from gateway.core.reply import Reply
from gateway.delivery.mx import MAX_ADDRESSES, MAX_HOSTS, Hosts, MxSettings, NoHosts, find_addresses, find_hosts
from tests.support.fakes import FakeResolver

SETTINGS = MxSettings(frozenset({"mail.us.example"}), frozenset({"198.51.100.1"}), allow_private=False)
PUBLIC = "8.8.4.4"


def find(*lines: str, domain: str = "x.example", settings: MxSettings = SETTINGS) -> Hosts | NoHosts:
    return asyncio.run(find_hosts(parse_domain(domain), FakeResolver(*lines), settings))


def hosts(*lines: str, **more: object) -> list[tuple[str, tuple[str, ...]]]:
    found = find(*lines, **more)  # type: ignore[arg-type]
    assert isinstance(found, Hosts)
    return [(host.name, host.addresses) for host in found.hosts]


def refusal(*lines: str, **more: object) -> tuple[int, str]:
    found = find(*lines, **more)  # type: ignore[arg-type]
    assert isinstance(found, NoHosts)
    reply: Reply = found.reply
    assert reply.status[0] == str(reply.code)[0]
    return reply.code, reply.status


def test_hosts_come_by_preference_with_ipv6_first() -> None:
    assert hosts(
        "x.example MX 20 b.example",
        "x.example MX 10 a.example",
        "a.example A 8.8.4.4",
        "a.example AAAA 2001:4860::1",
        "b.example A 8.8.8.8",
    ) == [
        ("a.example", ("2001:4860::1", "8.8.4.4")),
        ("b.example", ("8.8.8.8",)),
    ]


def test_equal_preferences_share_the_load() -> None:
    lines = [f"x.example MX 10 {name}.example" for name in "abcd"] + [f"{name}.example A {PUBLIC}" for name in "abcd"]
    assert {hosts(*lines)[0][0] for _ in range(200)} == {"a.example", "b.example", "c.example", "d.example"}


def test_without_mx_the_domain_itself_is_the_host() -> None:
    assert hosts(f"x.example A {PUBLIC}") == [("x.example", (PUBLIC,))]


def test_a_literal_needs_no_dns() -> None:
    assert hosts(domain="[8.8.4.4]") == [("[8.8.4.4]", ("8.8.4.4",))]
    assert hosts(domain="[IPv6:2001:4860::1]") == [("[IPv6:2001:4860::1]", ("2001:4860::1",))]
    assert refusal(domain="[127.0.0.1]") == (550, "5.4.4")
    assert refusal(domain="[198.51.100.1]") == (554, "5.4.6")


@pytest.mark.parametrize(
    ("lines", "code", "status"),
    [
        ((), 550, "5.1.2"),
        (("x.example MX 0 .",), 556, "5.1.10"),
        (("x.example FAILS",), 451, "4.4.3"),
        (("x.example EXISTS",), 550, "5.4.4"),
        (("x.example MX 10 a.example",), 550, "5.4.4"),
        (("x.example MX 10 a.example", "a.example FAILS"), 451, "4.4.3"),
        (("x.example MX 10 a.example", "a.example A 10.0.0.1"), 550, "5.4.4"),
        (("x.example MX 10 a.example", "a.example AAAA ::ffff:127.0.0.1"), 550, "5.4.4"),
        (("x.example MX 10 mail.us.example", "mail.us.example A 8.8.8.8"), 554, "5.4.6"),
        (("x.example MX 10 a.example", "a.example A 198.51.100.1"), 554, "5.4.6"),
        (
            (
                "x.example MX 10 mail.us.example",
                "x.example MX 10 b.example",
                "mail.us.example A 8.8.8.8",
                "b.example A 8.8.4.4",
            ),
            554,
            "5.4.6",
        ),
    ],
)
def test_no_hosts_and_why(lines: tuple[str, ...], code: int, status: str) -> None:
    assert refusal(*lines) == (code, status)


def test_only_hosts_nearer_than_we_are_tried() -> None:
    assert hosts(
        "x.example MX 10 a.example",
        "x.example MX 20 mail.us.example",
        "x.example MX 30 c.example",
        "a.example A 8.8.4.4",
        "mail.us.example A 8.8.8.8",
        "c.example A 8.8.8.8",
    ) == [("a.example", ("8.8.4.4",))]


def test_a_backup_waits_while_the_nearer_host_cannot_be_looked_up() -> None:
    """RFC 5321 5.1: DNS trouble is temporary; it must not look like a loop."""
    code, _ = refusal(
        "x.example MX 10 a.example", "x.example MX 20 mail.us.example", "a.example FAILS", "mail.us.example A 8.8.8.8"
    )
    assert code == 451


def test_a_private_host_beside_one_in_dns_trouble_is_temporary() -> None:
    code, _ = refusal(
        "x.example MX 10 a.example", "x.example MX 20 b.example", "a.example A 10.0.0.1", "b.example FAILS"
    )
    assert code == 451


def test_one_host_in_dns_trouble_leaves_the_others() -> None:
    assert hosts(
        "x.example MX 10 a.example", "x.example MX 20 b.example", "a.example FAILS", "b.example A 8.8.8.8"
    ) == [("b.example", ("8.8.8.8",))]


def test_private_addresses_are_left_out_unless_allowed() -> None:
    lines = ("x.example MX 10 a.example", "a.example A 127.0.0.1", "a.example A 8.8.4.4", "a.example A 192.168.1.1")
    assert hosts(*lines) == [("a.example", ("8.8.4.4",))]
    allowed = MxSettings(frozenset(), frozenset(), allow_private=True)
    assert hosts(*lines, settings=allowed) == [("a.example", ("127.0.0.1", "8.8.4.4", "192.168.1.1"))]


def test_hosts_and_addresses_are_bounded() -> None:
    lines = [f"x.example MX {n} h{n}.example" for n in range(50)] + [
        f"h{n}.example A 8.8.{n}.{m}" for n in range(50) for m in range(50)
    ]
    found = hosts(*lines)
    assert len(found) == MAX_HOSTS
    assert [name for name, _ in found] == [f"h{n}.example" for n in range(MAX_HOSTS)]
    assert all(len(addresses) == MAX_ADDRESSES for _, addresses in found)


def test_addresses_of_one_family_do_for_both() -> None:
    resolver = FakeResolver("a.example A 8.8.4.4", "a.example FAILS AAAA", "b.example FAILS A", "b.example EXISTS")
    assert asyncio.run(find_addresses("a.example", resolver)) == ("8.8.4.4",)
    assert asyncio.run(find_addresses("b.example", resolver)) == DnsFailure("SERVFAIL")
    assert asyncio.run(find_addresses("none.example", resolver)) == ()
    assert asyncio.run(find_addresses("2001:DB8::1", resolver)) == ("2001:db8::1",)
